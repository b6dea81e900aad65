package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

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
	return step(ctx, s, nil, "list blobs", in.Prefix, func() (*body[List[Blob]], error) { return s.listStore(ctx, &in.ListStoreInput) }, nil)
}

func (s *server) statTaskBlob(ctx context.Context, in *struct {
	ID   fleetscore.LeaseID `path:"id"`
	Name string             `path:"name"`
}) (*body[Blob], error) {
	if err := s.taskBlob(ctx, in.ID, in.Name, false); err != nil {
		return nil, err
	}
	i, err := step(ctx, s, nil, "describe blob", in.Name, func() (store.Info, error) { return s.deps.Store.Stat(ctx, fleetscore.BlobName(in.Name)) }, nil)
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
	in, err := step(r.Context(), s, nil, "read blob", name, func() (io.ReadCloser, error) {
		return s.deps.Store.Get(r.Context(), fleetscore.BlobName(name), offset, length)
	}, func(late io.ReadCloser) { late.Close() })
	if err != nil {
		return err
	}
	defer in.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := io.Copy(s.steady(w), in); err != nil {
		panic(http.ErrAbortHandler) // so that the node notices that the answer isn't complete
	}
	return nil
}

func (s *server) writeTaskBlob(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := s.taskBlob(r.Context(), fleetscore.LeaseID(r.PathValue("id")), name, true); err != nil {
		return err
	}
	timer := time.NewTimer(s.cfg.StoreLimit)
	arriving := &arriving{body: r.Body, answer: http.NewResponseController(w), timer: timer, limit: s.cfg.StoreLimit}
	i, err := step(r.Context(), s, timer, "write blob", name, func() (store.Info, error) {
		return s.deps.Store.Put(r.Context(), fleetscore.BlobName(name), arriving, store.PutOptions{})
	}, nil)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(blobOf(i))
}

// maxStoreCalls is how many calls of the store nodes may cause at the same time. A call
// that never returns counts, so that a store that hangs can't fill the memory.
const maxStoreCalls = 1024

// step carries out one call of the store for a node, and answers without it after
// Config.StoreLimit, or when the timer fires: a folder on a disk that hangs doesn't heed
// its context. The call goes on by itself then, and drop gets what it opened. The
// request's context ends with the answer, which ends the calls that heed it.
func step[T any](ctx context.Context, s *server, timer *time.Timer, op, subject string, call func() (T, error), drop func(T)) (T, error) {
	var none T
	if timer == nil {
		timer = time.NewTimer(s.cfg.StoreLimit)
	}
	defer timer.Stop()
	silent := func() error {
		return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "the store gave no answer within %s", s.cfg.StoreLimit).
			WithHint("check the store that the server uses: its disk, or the network to it; nodes try again by themselves")
	}
	select {
	case s.storeCalls <- struct{}{}:
	case <-timer.C:
		return none, silent()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	gone := make(chan struct{})
	go func() {
		defer func() { <-s.storeCalls }()
		v, err := guarded(op, subject, call)
		select {
		case done <- result{v, err}:
		case <-gone:
			if err == nil && drop != nil {
				drop(v)
			}
		}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		close(gone)
		return none, silent()
	case <-ctx.Done():
		close(gone)
		return none, ctx.Err()
	}
}

// guarded turns a panic into an error, as it would end the process here.
func guarded[T any](op, subject string, call func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fleetscore.Errorf(fleetscore.Internal, op, subject, "a defect of ours: %v\n%s", p, debug.Stack())
		}
	}()
	return call()
}

// arriving is a body that a node sends. The store's time limit doesn't run while the next
// piece is waited for, which has a limit of its own.
type arriving struct {
	body   io.Reader
	answer *http.ResponseController
	timer  *time.Timer
	limit  time.Duration
}

// Read implements io.Reader.
func (a *arriving) Read(p []byte) (int, error) {
	a.timer.Stop()
	_ = a.answer.SetReadDeadline(time.Now().Add(a.limit)) // not every writer supports deadlines
	n, err := a.body.Read(p)
	_ = a.answer.SetReadDeadline(time.Time{}) // a deadline that passes later would end the request
	a.timer.Reset(a.limit)
	return n, err
}

// steady limits the time in which the node takes each piece of an answer.
func (s *server) steady(w http.ResponseWriter) io.Writer {
	return &leaving{w, http.NewResponseController(w), s.cfg.StoreLimit}
}

type leaving struct {
	w      http.ResponseWriter
	answer *http.ResponseController
	limit  time.Duration
}

// Write implements io.Writer.
func (l *leaving) Write(p []byte) (int, error) {
	_ = l.answer.SetWriteDeadline(time.Now().Add(l.limit)) // not every writer supports deadlines
	n, err := l.w.Write(p)
	_ = l.answer.SetWriteDeadline(time.Time{}) // the connection carries other requests later
	return n, err
}
