package client

import (
	"bytes"
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Blobs is the server's store as a node sees it: the inputs and outputs of the
// task whose lease the context carries. Only results can be written, nothing
// deleted.
func (c *Client) Blobs() store.Bucket { return blobs{c} }

type blobs struct{ c *Client }

// path is the address of a blob, or of all of them.
func (b blobs) path(ctx context.Context, what string, name fleetscore.BlobName) (string, error) {
	lease := dispatch.LeaseOf(ctx)
	if lease == "" {
		return "", fleetscore.Errorf(fleetscore.Internal, "reach store", string(name), "the context has no lease, but blobs belong to a task")
	}
	if name == "" {
		return leasePath(lease, what), nil
	}
	if err := store.CheckName(name); err != nil {
		return "", err
	}
	segments := strings.Split(string(name), "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return leasePath(lease, what) + "/" + strings.Join(segments, "/"), nil
}

// blob is the server's description of a blob.
type blob store.Info

// awayLimit is how long a blob's request is repeated while the server is away, so
// that a restart of the server uses up no try of a node's task.
const awayLimit = time.Minute

// patient repeats a call while the server, or its store, is unavailable.
func patient(ctx context.Context, call func() error) error {
	begin, pause := time.Now(), 50*time.Millisecond
	for {
		err := call()
		if !fleetscore.Unavailable.Is(err) || ctx.Err() != nil || time.Since(begin) > awayLimit {
			return err
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// Get reads a range through the server, and continues an interrupted answer: this is
// safe because nodes read only blobs that never change.
func (b blobs) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	r := &ranged{ctx: ctx, b: b, name: name, next: offset, left: length}
	return r, r.open()
}

type ranged struct {
	ctx  context.Context // of Get, which bounds the whole reading
	b    blobs
	name fleetscore.BlobName
	next int64
	left int64 // negative means to the end
	body io.ReadCloser
}

func (r *ranged) open() error {
	path, err := r.b.path(r.ctx, "blobs", r.name)
	if err != nil {
		return err
	}
	return patient(r.ctx, func() (err error) {
		r.body, err = r.b.c.Open(r.ctx, path, url.Values{"offset": {strconv.FormatInt(r.next, 10)}, "length": {strconv.FormatInt(r.left, 10)}})
		return err
	})
}

func (r *ranged) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.next += int64(n)
		if r.left >= 0 {
			r.left -= int64(n)
		}
		if n > 0 || err == nil || err == io.EOF {
			return n, err
		}
		if r.ctx.Err() != nil {
			return 0, r.ctx.Err()
		}
		r.body.Close()
		if err := r.open(); err != nil {
			r.body = io.NopCloser(strings.NewReader(""))
			return 0, err
		}
	}
}

func (r *ranged) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// Put writes through the server. A body that can be read again is sent again while
// the server is away.
func (b blobs) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if opt.IfAbsent {
		return store.Info{}, fleetscore.Errorf(fleetscore.Invalid, "write", string(name), "nodes may not commit")
	}
	path, err := b.path(ctx, "blobs", name)
	if err != nil {
		return store.Info{}, err
	}
	var i blob
	send := func() error { return b.c.Send(ctx, http.MethodPut, path, nil, "application/octet-stream", body, &i) }
	if buffer, ok := body.(*bytes.Buffer); ok {
		body = bytes.NewReader(buffer.Bytes())
	}
	if s, ok := body.(*bytes.Reader); ok {
		err = patient(ctx, func() error {
			if _, err := s.Seek(0, io.SeekStart); err != nil {
				return err
			}
			return send()
		})
	} else {
		err = send()
	}
	return store.Info(i), err
}

// Stat describes a blob.
func (b blobs) Stat(ctx context.Context, name fleetscore.BlobName) (store.Info, error) {
	path, err := b.path(ctx, "stat", name)
	if err != nil {
		return store.Info{}, err
	}
	var i blob
	err = patient(ctx, func() error { return b.c.Get(ctx, path, nil, &i) })
	return store.Info(i), err
}

// Delete refuses.
func (b blobs) Delete(_ context.Context, name fleetscore.BlobName) error {
	return fleetscore.Errorf(fleetscore.Invalid, "delete", string(name), "nodes may not delete")
}

// List reads one page after another.
func (b blobs) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		path, err := b.path(ctx, "blobs", "")
		for err == nil {
			var page struct {
				Items []blob
				Next  string
			}
			query := url.Values{"prefix": {prefix}, "after": {string(opt.After)}, "delimiter": {strconv.FormatBool(opt.Delimiter)}}
			err = patient(ctx, func() error { return b.c.Get(ctx, path, query, &page) })
			for _, i := range page.Items {
				if !yield(store.Info(i), nil) {
					return
				}
			}
			if err == nil && page.Next == "" {
				return
			}
			opt.After = fleetscore.BlobName(page.Next)
		}
		yield(store.Info{}, err)
	}
}
