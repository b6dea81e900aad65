package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Blob is an entry of the store; a folder's name ends in "/" and its other fields are
// zero.
type Blob struct {
	Name      fleetscore.BlobName `json:"name"`
	SizeBytes int64               `json:"size_bytes"`
	Modified  time.Time           `json:"modified,omitzero"`
	ETag      string              `json:"etag,omitempty"`
}

func blobOf(i store.Info) Blob { return Blob{i.Name, i.SizeBytes, i.Modified, i.ETag} }

func (s *server) registerStore(api huma.API) {
	add(api, huma.Operation{OperationID: "list store", Method: http.MethodGet, Path: "/store", Tags: []string{"store"}, Summary: "Blobs in the store"}, s.listStore)
	add(api, huma.Operation{OperationID: "read blob", Method: http.MethodGet, Path: "/store/{name}", Tags: []string{"store"}, Summary: "A blob's bytes; the name may contain slashes",
		Responses: plain("200", "application/octet-stream"), Metadata: map[string]any{restOfPath: true}}, s.readBlob)
}

// ListStoreInput says what to list; exported, because huma ignores embedded types
// that aren't.
type ListStoreInput struct {
	Prefix    string `query:"prefix"`
	Delimiter bool   `query:"delimiter" doc:"only the direct children of the prefix's folder, each subfolder once"`
	Limit     int    `query:"limit" default:"1000" minimum:"1" maximum:"10000"`
	After     string `query:"after" doc:"the field next of the previous page"`
}

func (s *server) listStore(ctx context.Context, in *ListStoreInput) (*body[List[Blob]], error) {
	var page []Blob
	for info, err := range s.deps.Store.List(ctx, in.Prefix, store.ListOptions{After: fleetscore.BlobName(in.After), Delimiter: in.Delimiter}) {
		if err != nil {
			return nil, err
		}
		if len(page) == in.Limit {
			return answerList(page, string(page[len(page)-1].Name)), nil
		}
		page = append(page, blobOf(info))
	}
	return answerList(page, ""), nil
}

func (s *server) readBlob(ctx context.Context, in *struct {
	Name string `path:"name"`
}) (*huma.StreamResponse, error) {
	r, err := s.deps.Store.Get(ctx, fleetscore.BlobName(in.Name), 0, -1)
	if err != nil {
		return nil, err
	}
	return stream(r, "application/octet-stream"), nil
}
