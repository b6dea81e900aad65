package storetest

import (
	"context"
	"io"
	"iter"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Faulty is a bucket that asks before each operation whether to fail.
type Faulty struct {
	store.Bucket
	// Fail is called with "get", "put", "stat", "delete" or "list" and the name; its
	// error is returned in place of the operation. With "put done" the operation is
	// carried out and its answer lost.
	Fail func(op string, name fleetscore.BlobName) error
}

// Crash is a bucket whose nth operation of a kind fails, and every operation after it, as
// if the process had ended there. It notes in struck that there were so many.
func Crash(b store.Bucket, op string, nth int, struck *bool) *Faulty {
	var mu sync.Mutex
	n := 0
	return &Faulty{Bucket: b, Fail: func(o string, name fleetscore.BlobName) error {
		mu.Lock()
		defer mu.Unlock()
		if o == op {
			n++
		}
		if *struck || n == nth && o == op {
			*struck = true
			return fleetscore.Errorf(fleetscore.Internal, o, string(name), "crash")
		}
		return nil
	}}
}

// Get fails or reads.
func (f *Faulty) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	if err := f.Fail("get", name); err != nil {
		return nil, err
	}
	return f.Bucket.Get(ctx, name, offset, length)
}

// Put fails, writes, or writes and fails.
func (f *Faulty) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if err := f.Fail("put", name); err != nil {
		return store.Info{}, err
	}
	i, err := f.Bucket.Put(ctx, name, body, opt)
	if err == nil {
		err = f.Fail("put done", name)
	}
	return i, err
}

// Stat fails or looks up.
func (f *Faulty) Stat(ctx context.Context, name fleetscore.BlobName) (store.Info, error) {
	if err := f.Fail("stat", name); err != nil {
		return store.Info{}, err
	}
	return f.Bucket.Stat(ctx, name)
}

// Delete fails or deletes.
func (f *Faulty) Delete(ctx context.Context, name fleetscore.BlobName) error {
	if err := f.Fail("delete", name); err != nil {
		return err
	}
	return f.Bucket.Delete(ctx, name)
}

// List fails or lists.
func (f *Faulty) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	if err := f.Fail("list", fleetscore.BlobName(prefix)); err != nil {
		return func(yield func(store.Info, error) bool) { yield(store.Info{}, err) }
	}
	return f.Bucket.List(ctx, prefix, opt)
}
