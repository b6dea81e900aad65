package oneshot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Folder is the folder of results, on this machine or in a store.
type Folder struct {
	path   string
	bucket store.Bucket // nil for a folder on this machine
}

const (
	manifestName = "manifest.json"
	rejectedName = "rejected.csv"
)

// OpenFolder opens a folder, and makes it if it doesn't exist.
func OpenFolder(ctx context.Context, path string) (*Folder, error) {
	r := &Folder{path: path}
	if strings.Contains(path, "://") {
		var err error
		if r.bucket, err = store.Open(ctx, path); err != nil {
			return nil, err
		}
		return r, nil
	}
	if err := durable.MkdirAll(path, 0o755); err != nil {
		return nil, r.problem(err)
	}
	return r, nil
}

// remove removes a file, if it exists.
func (r *Folder) remove(ctx context.Context, name string) error {
	if r.bucket != nil {
		return r.bucket.Delete(ctx, fleetscore.BlobName(name))
	}
	path := filepath.Join(r.path, name)
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil // a pipe or a device stays, and is written to
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return r.problem(err)
	}
	return nil
}

// outputName is the folder with what commands left.
const outputName = "_output"

// removeOutput removes what commands left in an earlier run.
func (r *Folder) removeOutput(ctx context.Context) error {
	if r.bucket == nil {
		if err := os.RemoveAll(filepath.Join(r.path, outputName)); err != nil {
			return r.problem(err)
		}
		return nil
	}
	for i, err := range r.bucket.List(ctx, outputName+"/", store.ListOptions{}) {
		if err == nil {
			err = r.bucket.Delete(ctx, i.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Save keeps a file that a command left, under a relative name with slashes.
func (r *Folder) Save(ctx context.Context, name string, file io.Reader) error {
	name = outputName + "/" + name
	if r.bucket == nil {
		if err := durable.MkdirAll(filepath.Dir(filepath.Join(r.path, filepath.FromSlash(name))), 0o755); err != nil {
			return r.problem(err)
		}
	}
	_, err := r.Write(ctx, name, func(w io.Writer) error {
		_, err := io.Copy(w, file)
		return err
	})
	return err
}

func (r *Folder) problem(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fleetscore.Errorf(fleetscore.Exhausted, "write results", r.path, "the disk is full").WithHint("free some space, or set --out to a folder on another disk")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "write results", r.path, "%w", err).WithHint("check the folder's permissions, or set --out to another folder")
}

// Write writes a complete file. Nobody sees the file before it is complete.
func (r *Folder) Write(ctx context.Context, name string, fill func(io.Writer) error) (FileInfo, error) {
	if r.bucket != nil {
		return r.put(ctx, name, fill)
	}
	path := filepath.Join(r.path, name)
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return r.stream(path, fill)
	}
	p, err := durable.Create(path, 0o666)
	if err != nil {
		return FileInfo{}, r.problem(err)
	}
	h := newHashing(&earlyWriter{f: p.File})
	if err := fill(h); err != nil {
		return FileInfo{}, r.problem(errors.Join(err, p.Abort()))
	}
	if err := p.Commit(); err != nil {
		return FileInfo{}, r.problem(err)
	}
	return h.info(), nil
}

// stream writes to a pipe or a device, such as /dev/null, which must not be replaced by
// a file.
func (r *Folder) stream(path string, fill func(io.Writer) error) (FileInfo, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return FileInfo{}, r.problem(err)
	}
	h := newHashing(f)
	if err := errors.Join(fill(h), f.Close()); err != nil {
		return FileInfo{}, r.problem(err)
	}
	return h.info(), nil
}

func (r *Folder) put(ctx context.Context, name string, fill func(io.Writer) error) (FileInfo, error) {
	pr, pw := io.Pipe()
	h := newHashing(pw)
	filled := make(chan error, 1)
	go func() {
		err := fill(h)
		pw.CloseWithError(err)
		filled <- err
	}()
	_, err := r.bucket.Put(ctx, fleetscore.BlobName(name), pr, store.PutOptions{})
	pr.CloseWithError(io.ErrClosedPipe) // a writer that hasn't finished stops
	if e := <-filled; err == nil {
		err = e
	}
	return h.info(), err
}

// earlyWriter makes the disk start writing while the rest is still computed, so that
// the sync at the end is short.
type earlyWriter struct {
	f       durable.File
	written int64
	begun   int64
}

const earlyBytes = 32 << 20 // the size of a piece that the disk writes

func (w *earlyWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if w.written += int64(n); w.written-w.begun >= earlyBytes {
		if f, ok := w.f.(*os.File); ok {
			beginWriting(f, w.begun, w.written-w.begun)
		}
		w.begun = w.written
	}
	return n, err
}
