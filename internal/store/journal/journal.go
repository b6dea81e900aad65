// Package journal keeps the latest state of something in a store, so that only the process
// that took it over last can change it.
//
// Each state is a blob with a number of its own, written only if no blob has that number. A
// process that takes a journal over writes the last state again under the next number, which
// is the number that the process before it would use next. So that one's next write fails,
// however long it was frozen, and whatever it believes.
//
// A Journal is used by one goroutine at a time.
package journal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// kept is how many states are left in the store. A writer that is so far behind that its
// number was deleted could use it again.
const kept = 100

// Journal writes states of the type T, as JSON.
type Journal[T any] struct {
	bucket store.Bucket
	folder string
	writer string // a name that no other Journal has
	last   int64
}

// entry is what a blob holds.
type entry[T any] struct {
	Writer string `json:"writer"`
	State  T      `json:"state"`
}

// Last reads the last state of a folder, which ends in a slash; the zero value if there is none.
func Last[T any](ctx context.Context, b store.Bucket, folder string) (state T, err error) {
	_, state, err = last[T](ctx, b, folder)
	return state, err
}

func last[T any](ctx context.Context, b store.Bucket, folder string) (n int64, state T, err error) {
	var name fleetscore.BlobName
	for info, err := range b.List(ctx, folder, store.ListOptions{}) {
		if err != nil {
			return 0, state, err
		}
		number, err := strconv.ParseInt(strings.TrimSuffix(path.Base(string(info.Name)), ".json"), 10, 64)
		if err == nil && number > n {
			n, name = number, info.Name
		}
	}
	if n == 0 {
		return 0, state, nil
	}
	data, err := store.ReadAll(ctx, b, name)
	if err != nil {
		return 0, state, err
	}
	var e entry[T]
	if err := json.Unmarshal(data, &e); err != nil {
		return 0, state, fleetscore.Errorf(fleetscore.Corrupt, "read", string(name), "%w", err)
	}
	return n, e.State, nil
}

// Take takes a journal over and returns its last state; the zero value if there is none.
// Writers before this one write no more.
func Take[T any](ctx context.Context, b store.Bucket, folder string) (*Journal[T], T, error) {
	for {
		n, state, err := last[T](ctx, b, folder)
		if err != nil {
			return nil, state, err
		}
		j := &Journal[T]{bucket: b, folder: folder, writer: rand.Text(), last: n}
		if err = j.Put(ctx, state); err == nil {
			return j, state, nil
		} else if !fleetscore.Conflict.Is(err) {
			return nil, state, err
		} // the writer before was faster
	}
}

// Put writes the next state. Kind Conflict if another process has taken the journal over.
// After any other error the state may be there nevertheless; the same call may be repeated.
func (j *Journal[T]) Put(ctx context.Context, state T) error {
	data, err := json.Marshal(entry[T]{j.writer, state})
	if err != nil {
		return err
	}
	name := j.name(j.last + 1)
	err = store.WriteAll(ctx, j.bucket, name, data, store.PutOptions{IfAbsent: true})
	if fleetscore.Conflict.Is(err) { // perhaps it is ours, and only the answer was lost
		there, rerr := store.ReadAll(ctx, j.bucket, name)
		if rerr != nil && !fleetscore.NotFound.Is(rerr) {
			return rerr
		}
		if rerr != nil || !bytes.Equal(there, data) {
			return fleetscore.Errorf(fleetscore.Conflict, "write", string(name), "another process has taken over")
		}
	} else if err != nil {
		return err
	}
	j.last++
	if j.last > kept {
		_ = j.bucket.Delete(ctx, j.name(j.last-kept)) // what is left costs a few bytes
	}
	return nil
}

func (j *Journal[T]) name(n int64) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%020d.json", j.folder, n))
}
