package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/images"
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

func (s *server) registerImages(api huma.API) {
	add(api, huma.Operation{OperationID: "list images", Method: http.MethodGet, Path: "/images", Tags: []string{"images"}, Summary: "Container images in the server's registry"},
		func(ctx context.Context, _ *struct{}) (*body[List[images.Image]], error) {
			all, err := s.deps.Images.List(ctx)
			return answerList(all, ""), err
		})
	add(api, huma.Operation{OperationID: "lock image", Method: http.MethodPost, Path: "/images/lock", Tags: []string{"images"}, Summary: "Keep a tag from being moved or deleted, or let go of it"}, s.lockImage)
	add(api, huma.Operation{OperationID: "remove image", Method: http.MethodPost, Path: "/images/remove", Tags: []string{"images"}, Summary: "Delete a tag, or an image by its digest with all its tags"}, s.removeImage)
	add(api, huma.Operation{OperationID: "collect images", Method: http.MethodPost, Path: "/images/gc", Tags: []string{"images"},
		Summary: "Remove images without a tag that no result cites, and content that no image refers to"}, s.collectImages)
}

func (s *server) lockImage(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Image  string `json:"image" doc:"REPOSITORY:TAG"`
		Locked bool   `json:"locked"`
	}
}) (*struct{}, error) {
	repository, tag := images.Split(in.Body.Image)
	if err := s.deps.Images.Lock(ctx, repository, tag, in.Body.Locked); err != nil {
		return nil, err
	}
	what := "unlock image"
	if in.Body.Locked {
		what = "lock image"
	}
	s.audit(ctx, in.Author, what, in.Body.Image)
	return nil, nil
}

func (s *server) removeImage(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Image string `json:"image" doc:"REPOSITORY:TAG or REPOSITORY@DIGEST"`
	}
}) (*struct{}, error) {
	repository, reference := images.Split(in.Body.Image)
	if cited, err := s.cited(ctx); err != nil {
		return nil, err
	} else if cited[reference] {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "remove image", in.Body.Image, "results that are still kept were made with it").
			WithHint("remove its tags instead; fleetscore image gc removes it once the last of these results has expired")
	}
	if err := s.deps.Images.Remove(ctx, repository, reference); err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "remove image", in.Body.Image)
	return nil, nil
}

// cited are the digests of images that results cite.
func (s *server) cited(ctx context.Context) (map[string]bool, error) {
	if s.deps.Cited == nil {
		return nil, nil
	}
	return s.deps.Cited(ctx)
}

func (s *server) collectImages(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		DryRun bool `json:"dry_run" doc:"remove nothing, only say what would be removed"`
	}
}) (*body[images.Collected], error) {
	cited, err := s.cited(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.deps.Images.GC(ctx, cited, in.Body.DryRun)
	if err != nil {
		return nil, err
	}
	if !in.Body.DryRun {
		s.audit(ctx, in.Author, "collect images", "")
	}
	return answer(c), nil
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
