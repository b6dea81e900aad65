package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// uploadLimit is how long an upload may stand still before it is forgotten.
const uploadLimit = time.Hour

// upload is a blob that arrives in pieces, each in a request of its own.
type upload struct {
	repository string
	file       string

	mu   sync.Mutex // one piece at a time; guards what follows
	size int64
	used time.Time
	gone bool
}

// open begins an upload.
func (r *Registry) open(repository string) (string, *upload, error) {
	r.forget()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.uploads) >= r.cfg.MaxUploads {
		return "", nil, &refusal{http.StatusTooManyRequests, "TOOMANYREQUESTS", fmt.Sprintf("%d uploads are unfinished; try again when some of them have ended", len(r.uploads))}
	}
	id := strings.ToLower(rand.Text())
	u := &upload{repository: repository, file: filepath.Join(r.cfg.TempDir, id), used: r.now()}
	f, err := os.OpenFile(u.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return "", nil, fleetscore.Wrap("begin upload", repository, err)
	}
	r.uploads[id] = u
	return id, u, nil
}

// forget removes uploads that have stood still for too long.
func (r *Registry) forget() {
	r.mu.Lock()
	var old []string
	for id, u := range r.uploads {
		if u.mu.TryLock() { // otherwise a piece is just arriving
			if r.now().Sub(u.used) > uploadLimit {
				old = append(old, id)
			}
			u.mu.Unlock()
		}
	}
	r.mu.Unlock()
	for _, id := range old {
		r.drop(id)
	}
}

// drop ends an upload and removes what had arrived.
func (r *Registry) drop(id string) {
	r.mu.Lock()
	u := r.uploads[id]
	delete(r.uploads, id)
	r.mu.Unlock()
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gone = true
	_ = os.Remove(u.file) // New removes it otherwise
}

// take finds an upload and holds it until the caller unlocks it.
func (r *Registry) take(q request) (*upload, error) {
	r.mu.Lock()
	u := r.uploads[q.reference]
	r.mu.Unlock()
	if u != nil && u.repository == q.repository {
		u.mu.Lock()
		if !u.gone {
			u.used = r.now()
			return u, nil
		}
		u.mu.Unlock()
	}
	return nil, &refusal{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload: it was finished or cancelled, stood still for more than " + uploadLimit.String() + ", or the server was started again; begin it again"}
}

// add appends a piece. A piece that breaks off is taken back as a whole.
func (r *Registry) add(u *upload, body io.Reader) error {
	f, err := os.OpenFile(u.file, os.O_WRONLY, 0o600)
	if err != nil {
		return fleetscore.Wrap("take upload", u.repository, err)
	}
	n, err := int64(0), error(nil)
	if _, err = f.Seek(u.size, io.SeekStart); err == nil {
		n, err = io.Copy(f, io.LimitReader(body, r.cfg.MaxBlobBytes-u.size+1))
	}
	if err == nil && u.size+n > r.cfg.MaxBlobBytes {
		err = &refusal{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a layer may have at most %d bytes", r.cfg.MaxBlobBytes)}
	}
	if err != nil {
		_ = f.Truncate(u.size) // what is beyond the size is overwritten otherwise
		n = 0
	}
	if e := f.Close(); err == nil {
		err = e
	}
	u.size += n
	var known *refusal
	if err != nil && !errors.As(err, &known) {
		err = &refusal{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the piece broke off: " + err.Error()}
	}
	return err
}

func location(w http.ResponseWriter, q request, id string, size int64) {
	w.Header().Set("Location", Prefix+q.repository+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, size-1)))
}

// beginUpload begins an upload; takes a whole blob at once, if its digest is given; or
// adds a blob of another repository, if the caller may pull it from there.
func (r *Registry) beginUpload(w http.ResponseWriter, req *http.Request, q request) error {
	if q.reference != "" {
		return &refusal{http.StatusMethodNotAllowed, "UNSUPPORTED", "POST isn't possible for an upload that was begun"}
	}
	ctx, asked := req.Context(), req.URL.Query()
	if mount, from := asked.Get("mount"), asked.Get("from"); mount != "" {
		d, err := parseDigest(mount)
		if err != nil {
			return err
		}
		mounted, err := r.mount(ctx, q.repository, from, d)
		if err != nil {
			return err
		}
		if mounted {
			created(w, q, d)
			return nil
		}
	}
	if text := asked.Get("digest"); text != "" {
		d, err := parseDigest(text)
		if err != nil {
			return err
		}
		id, u, err := r.open(q.repository)
		if err != nil {
			return err
		}
		defer r.drop(id)
		u.mu.Lock()
		defer u.mu.Unlock()
		if err := r.add(u, bodyOf(w, req)); err != nil {
			return err
		}
		if err := r.finish(ctx, u, d); err != nil {
			return err
		}
		created(w, q, d)
		return nil
	}
	id, _, err := r.open(q.repository)
	if err != nil {
		return err
	}
	location(w, q, id, 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount adds a blob of another repository.
func (r *Registry) mount(ctx context.Context, repository, from string, d digest.Digest) (bool, error) {
	if from == "" || checkRepository(from) != nil || !r.may(ctx, from, Pull) {
		return false, nil
	}
	for _, name := range []fleetscore.BlobName{memberName(from, d), contentName(d)} {
		if _, err := r.bucket.Stat(ctx, name); fleetscore.NotFound.Is(err) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, store.WriteAll(ctx, r.bucket, memberName(repository, d), nil, store.PutOptions{})
}

func created(w http.ResponseWriter, q request, d digest.Digest) {
	w.Header().Set("Location", Prefix+q.repository+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) getUpload(w http.ResponseWriter, _ *http.Request, q request) error {
	u, err := r.take(q)
	if err != nil {
		return err
	}
	defer u.mu.Unlock()
	location(w, q, q.reference, u.size)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// inOrder refuses a piece that doesn't begin where the last one ended.
func inOrder(w http.ResponseWriter, req *http.Request, q request, u *upload) error {
	text := req.Header.Get("Content-Range")
	if text == "" {
		return nil
	}
	var first, last int64
	if _, err := fmt.Sscanf(strings.TrimPrefix(text, "bytes "), "%d-%d", &first, &last); err != nil || first != u.size || last-first+1 != req.ContentLength && req.ContentLength >= 0 {
		location(w, q, q.reference, u.size)
		return &refusal{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the piece %s doesn't follow: %d bytes have arrived", text, u.size)}
	}
	return nil
}

func (r *Registry) patchUpload(w http.ResponseWriter, req *http.Request, q request) error {
	u, err := r.take(q)
	if err != nil {
		return err
	}
	defer u.mu.Unlock()
	if err := inOrder(w, req, q, u); err != nil {
		return err
	}
	if err := r.add(u, bodyOf(w, req)); err != nil {
		return err
	}
	location(w, q, q.reference, u.size)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// putUpload takes the last piece, if there is one, and ends the upload.
func (r *Registry) putUpload(w http.ResponseWriter, req *http.Request, q request) error {
	d, err := parseDigest(req.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := r.take(q)
	if err != nil {
		return err
	}
	err = inOrder(w, req, q, u)
	if err == nil {
		err = r.add(u, bodyOf(w, req))
	}
	if err == nil {
		err = r.finish(req.Context(), u, d)
		defer r.drop(q.reference) // also after a wrong digest: what arrived is of no use
	}
	u.mu.Unlock()
	if err != nil {
		return err
	}
	created(w, q, d)
	return nil
}

func (r *Registry) cancelUpload(w http.ResponseWriter, _ *http.Request, q request) error {
	u, err := r.take(q)
	if err != nil {
		return err
	}
	u.mu.Unlock()
	r.drop(q.reference)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// finish checks the digest of what arrived, and moves it into the store.
func (r *Registry) finish(ctx context.Context, u *upload, d digest.Digest) error {
	f, err := os.Open(u.file)
	if err != nil {
		return fleetscore.Wrap("end upload", u.repository, err)
	}
	defer f.Close() // only read
	verifier := d.Verifier()
	if _, err := io.Copy(verifier, f); err != nil {
		return fleetscore.Wrap("end upload", u.repository, err)
	}
	if !verifier.Verified() {
		return &refusal{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("the %d bytes that arrived don't have the digest %s", u.size, d)}
	}
	// The mark is written first: GC keeps content that a young mark names.
	if err := store.WriteAll(ctx, r.bucket, memberName(u.repository, d), nil, store.PutOptions{}); err != nil {
		return err
	}
	if info, err := r.bucket.Stat(ctx, contentName(d)); err == nil && info.SizeBytes == u.size {
		return nil // another repository has it
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fleetscore.Wrap("end upload", u.repository, err)
	}
	_, err = r.bucket.Put(ctx, contentName(d), f, store.PutOptions{})
	return err
}
