package client

import (
	"bytes"
	"cmp"
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
//
// Every request has a deadline, see Config.SilenceLimit and Config.AwayLimit: a server, a
// network or a store that never answers fails the task as unavailable, within two
// minutes by default.
func (c *Client) Blobs() store.Bucket {
	limited := *c
	limited.servers = nil
	for _, s := range c.servers {
		guarded := *s
		guarded.http = &http.Client{Transport: store.Guard(s.http.Transport, cmp.Or(c.cfg.SilenceLimit, 30*time.Second)), CheckRedirect: s.http.CheckRedirect}
		limited.servers = append(limited.servers, &guarded)
	}
	return blobs{&limited, cmp.Or(c.cfg.AwayLimit, time.Minute)}
}

type blobs struct {
	c    *Client
	away time.Duration // how long a request is repeated
}

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

// maxBreaks is how often in a row an answer may break without a single new byte.
const maxBreaks = 5

// patient repeats a call while the server, or its store, is unavailable.
func (b blobs) patient(ctx context.Context, call func() error) error {
	begin, wait := time.Now(), firstPause
	for {
		err := call()
		if !fleetscore.Unavailable.Is(err) || ctx.Err() != nil || time.Since(begin) > b.away {
			return err
		}
		if pause(ctx, wait) != nil {
			return err
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// firstPause is the wait before a request is repeated for the first time.
const firstPause = 50 * time.Millisecond

// pause waits, half as long or half as long again, so that nodes don't ask at the same
// moment.
func pause(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait/2 + rand.N(wait))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Get reads a range through the server, and continues an interrupted answer: this is
// safe because nodes read only blobs that never change.
func (b blobs) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	r := &ranged{ctx: ctx, b: b, name: name, next: offset, left: length, brokenAt: -1}
	return r, r.open()
}

type ranged struct {
	ctx  context.Context // of Get, which bounds the whole reading
	b    blobs
	name fleetscore.BlobName
	next int64
	left int64 // negative means to the end
	body io.ReadCloser

	breaks   int   // how often the answer broke since the byte
	brokenAt int64 // at this place came
}

func (r *ranged) open() error {
	path, err := r.b.path(r.ctx, "blobs", r.name)
	if err != nil {
		return err
	}
	return r.b.patient(r.ctx, func() (err error) {
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
		if err := r.resume(err); err != nil {
			r.body = io.NopCloser(strings.NewReader(""))
			return 0, err
		}
	}
}

// resume asks for the rest after the answer broke.
func (r *ranged) resume(cause error) error {
	if r.brokenAt != r.next {
		r.breaks, r.brokenAt = 0, r.next
	}
	if r.breaks++; r.breaks > maxBreaks {
		return fleetscore.Errorf(fleetscore.Unavailable, "read", string(r.name), "the answer broke %d times in a row at byte %d: %w", r.breaks, r.next, cause).
			WithHint("the server's log says whether its store fails")
	}
	if err := pause(r.ctx, firstPause<<(r.breaks-1)); err != nil {
		return err
	}
	return r.open()
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
		err = b.patient(ctx, func() error {
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
	err = b.patient(ctx, func() error { return b.c.Get(ctx, path, nil, &i) })
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
			err = b.patient(ctx, func() error { return b.c.Get(ctx, path, query, &page) })
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
