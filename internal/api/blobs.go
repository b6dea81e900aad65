package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/store"
)

// registerBlobs lets nodes read a task's inputs and write its outputs if the store is
// not a folder that they can open, because nodes have no credentials of the store.
// The bytes are streamed, so these requests are read here and only described to huma.
func (s *server) registerBlobs(api huma.API, mux *access.Mux) {
	add(api, huma.Operation{OperationID: "list task blobs", Method: http.MethodGet, Path: "/leases/{id}/blobs", Tags: []string{"node protocol"},
		Summary: "Blobs that an attempt's task may read"}, s.listTaskBlobs)
	add(api, huma.Operation{OperationID: "describe task blob", Method: http.MethodGet, Path: "/leases/{id}/stat/{name}", Tags: []string{"node protocol"},
		Summary: "Size and time of a blob that an attempt's task may read", Metadata: map[string]any{restOfPath: true}}, s.statTaskBlob)
	path := func(name, in string) *huma.Param {
		return &huma.Param{Name: name, In: in, Required: in == "path", Schema: &huma.Schema{Type: huma.TypeString}}
	}
	describe(api, Prefix+"/leases/{id}/blobs/{name...}", &huma.Operation{OperationID: "read task blob", Method: http.MethodGet, Path: "/leases/{id}/blobs/{name}", Tags: []string{"node protocol"},
		Summary: "A range of a blob that an attempt's task may read; the name may contain slashes", Responses: plain("200", "application/octet-stream"),
		Parameters: []*huma.Param{path("id", "path"), path("name", "path"), path("offset", "query"), path("length", "query")}})
	describe(api, Prefix+"/leases/{id}/blobs/{name...}", &huma.Operation{OperationID: "write task blob", Method: http.MethodPut, Path: "/leases/{id}/blobs/{name}", Tags: []string{"node protocol"},
		Summary: "Write a file of an attempt's results; the name may contain slashes", Responses: plain("200", "application/json"),
		Parameters:  []*huma.Param{path("id", "path"), path("name", "path")},
		RequestBody: bytesBody("application/octet-stream", "the blob")})
	mux.HandleFunc("GET "+Prefix+"/leases/{id}/blobs/{name...}", problems(s.readTaskBlob))
	mux.HandleFunc("PUT "+Prefix+"/leases/{id}/blobs/{name...}", problems(s.writeTaskBlob))
}

// describe adds an operation to the document whose requests are read elsewhere.
func describe(api huma.API, path string, op *huma.Operation) {
	pattern := op.Method + " " + path
	if _, ok := access.Table[pattern]; !ok {
		pattern = path
	}
	describeAccess(op, pattern)
	api.OpenAPI().AddOperation(op)
}

// problems answers a handler's error as a Problem.
func problems(h func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			writeProblem(w, err)
		}
	}
}

// taskBlob refuses blobs that a lease's task doesn't need, and leases that are not
// the caller's.
func (s *server) taskBlob(ctx context.Context, lease fleetscore.LeaseID, name string, write bool) error {
	if err := s.holds(ctx, lease); err != nil {
		return err
	}
	return s.deps.Broker.Access(ctx, lease, name, write)
}

type listTaskBlobsInput struct {
	ID fleetscore.LeaseID `path:"id"`
	ListStoreInput
}

func (s *server) listTaskBlobs(ctx context.Context, in *listTaskBlobsInput) (*body[List[Blob]], error) {
	if err := s.taskBlob(ctx, in.ID, in.Prefix, false); err != nil {
		return nil, err
	}
	return s.listStore(ctx, &in.ListStoreInput)
}

func (s *server) statTaskBlob(ctx context.Context, in *struct {
	ID   fleetscore.LeaseID `path:"id"`
	Name string             `path:"name"`
}) (*body[Blob], error) {
	if err := s.taskBlob(ctx, in.ID, in.Name, false); err != nil {
		return nil, err
	}
	i, err := s.deps.Store.Stat(ctx, fleetscore.BlobName(in.Name))
	return answer(blobOf(i)), err
}

func (s *server) readTaskBlob(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := s.taskBlob(r.Context(), fleetscore.LeaseID(r.PathValue("id")), name, false); err != nil {
		return err
	}
	offset, err1 := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	length, err2 := strconv.ParseInt(r.URL.Query().Get("length"), 10, 64)
	if err1 != nil || err2 != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "read blob", name, "offset and length must be whole numbers; a negative length reads to the end")
	}
	in, err := s.deps.Store.Get(r.Context(), fleetscore.BlobName(name), offset, length)
	if err != nil {
		return err
	}
	defer in.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := io.Copy(w, in); err != nil {
		panic(http.ErrAbortHandler) // so that the node notices that the answer isn't complete
	}
	return nil
}

func (s *server) writeTaskBlob(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := s.taskBlob(r.Context(), fleetscore.LeaseID(r.PathValue("id")), name, true); err != nil {
		return err
	}
	i, err := s.deps.Store.Put(r.Context(), fleetscore.BlobName(name), r.Body, store.PutOptions{})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(blobOf(i))
}
