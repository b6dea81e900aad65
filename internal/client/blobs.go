package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

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
		return "", fleetscore.Errorf(fleetscore.Internal, "reach store", string(name), "no lease: blobs belong to a task")
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

// blob is what the server says of a blob.
type blob store.Info

// Get reads a range through the server.
func (b blobs) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	path, err := b.path(ctx, "blobs", name)
	if err != nil {
		return nil, err
	}
	r, err := b.c.Open(ctx, path, url.Values{"offset": {strconv.FormatInt(offset, 10)}, "length": {strconv.FormatInt(length, 10)}})
	if err != nil {
		return nil, err
	}
	return whole{r, name}, nil
}

// whole gives the error of an answer that breaks off its kind.
type whole struct {
	io.ReadCloser
	name fleetscore.BlobName
}

func (w whole) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, context.Canceled) {
		err = fleetscore.Errorf(fleetscore.Unavailable, "read", string(w.name), "%w", err)
	}
	return n, err
}

// Put writes through the server.
func (b blobs) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if opt.IfAbsent {
		return store.Info{}, fleetscore.Errorf(fleetscore.Invalid, "write", string(name), "nodes commit nothing")
	}
	path, err := b.path(ctx, "blobs", name)
	if err != nil {
		return store.Info{}, err
	}
	var i blob
	err = b.c.Send(ctx, http.MethodPut, path, nil, "application/octet-stream", body, &i)
	return store.Info(i), err
}

// Stat describes a blob.
func (b blobs) Stat(ctx context.Context, name fleetscore.BlobName) (store.Info, error) {
	path, err := b.path(ctx, "stat", name)
	if err != nil {
		return store.Info{}, err
	}
	var i blob
	err = b.c.Get(ctx, path, nil, &i)
	return store.Info(i), err
}

// Delete refuses.
func (b blobs) Delete(_ context.Context, name fleetscore.BlobName) error {
	return fleetscore.Errorf(fleetscore.Invalid, "delete", string(name), "nodes delete nothing")
}

// List asks for page after page.
func (b blobs) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		path, err := b.path(ctx, "blobs", "")
		for err == nil {
			var page struct {
				Items []blob
				Next  string
			}
			err = b.c.Get(ctx, path, url.Values{"prefix": {prefix}, "after": {string(opt.After)}, "delimiter": {strconv.FormatBool(opt.Delimiter)}}, &page)
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
