package simtest

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// bucket is a store in memory. It passes the conformance suite of all stores.
type bucket struct {
	mu    sync.Mutex // guards what follows
	blobs map[fleetscore.BlobName]blob
	puts  int
}

type blob struct {
	data []byte
	info store.Info
}

func newBucket() *bucket { return &bucket{blobs: map[fleetscore.BlobName]blob{}} }

func (b *bucket) find(ctx context.Context, op string, name fleetscore.BlobName) (blob, error) {
	if err := ctx.Err(); err != nil {
		return blob{}, err
	}
	if err := store.CheckName(name); err != nil {
		return blob{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found, ok := b.blobs[name]
	if !ok {
		return blob{}, fleetscore.Errorf(fleetscore.NotFound, op, string(name), "there is no such blob")
	}
	return found, nil
}

// Get implements store.Bucket.
func (b *bucket) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read", string(name), "offset %d", offset)
	}
	found, err := b.find(ctx, "read", name)
	if err != nil {
		return nil, err
	}
	size := int64(len(found.data))
	from := min(offset, size)
	to := size
	if length >= 0 {
		to = min(from+length, size)
	}
	return io.NopCloser(bytes.NewReader(found.data[from:to])), nil
}

// Put implements store.Bucket.
func (b *bucket) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if err := store.CheckName(name); err != nil {
		return store.Info{}, err
	}
	data, err := io.ReadAll(body)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return store.Info{}, fleetscore.Wrap("write", string(name), err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blobs[name]; ok && opt.IfAbsent {
		return store.Info{}, fleetscore.Errorf(fleetscore.Conflict, "write", string(name), "it exists already")
	}
	b.puts++
	info := store.Info{Name: name, SizeBytes: int64(len(data)), Modified: time.Now(), ETag: strconv.Itoa(b.puts)}
	b.blobs[name] = blob{data, info}
	return info, nil
}

// Stat implements store.Bucket.
func (b *bucket) Stat(ctx context.Context, name fleetscore.BlobName) (store.Info, error) {
	found, err := b.find(ctx, "stat", name)
	return found.info, err
}

// Delete implements store.Bucket.
func (b *bucket) Delete(ctx context.Context, name fleetscore.BlobName) error {
	if _, err := b.find(ctx, "delete", name); fleetscore.NotFound.Is(err) {
		return nil
	} else if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.blobs, name)
	return nil
}

// List implements store.Bucket.
func (b *bucket) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		b.mu.Lock()
		var found []store.Info
		for name, x := range b.blobs {
			if strings.HasPrefix(string(name), prefix) {
				found = append(found, x.info)
			}
		}
		b.mu.Unlock()
		slices.SortFunc(found, func(x, y store.Info) int { return strings.Compare(string(x.Name), string(y.Name)) })
		last := fleetscore.BlobName("")
		for _, i := range found {
			if err := ctx.Err(); err != nil {
				yield(store.Info{}, err)
				return
			}
			if opt.Delimiter {
				if at := strings.IndexByte(string(i.Name[len(prefix):]), '/'); at >= 0 {
					i = store.Info{Name: i.Name[:len(prefix)+at+1]}
				}
			}
			if i.Name <= opt.After || i.Name == last {
				continue
			}
			last = i.Name
			if !yield(i, nil) {
				return
			}
		}
	}
}
