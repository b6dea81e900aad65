package images

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/fleetscore/fleetscore"
)

// Prefix is the path below which a registry answers.
const Prefix = "/v2/"

// refusal is an answer that the specification gives a code.
type refusal struct {
	status  int
	code    string
	message string
}

// Error implements error.
func (e *refusal) Error() string { return e.message }

// WriteError answers with an error in the form of the specification.
func WriteError(w http.ResponseWriter, status int, code, message string) {
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]problem{"errors": {{code, message}}}) // the client may be gone
}

// fail answers with an error of ours.
func fail(w http.ResponseWriter, err error) {
	var r *refusal
	switch {
	case errors.As(err, &r):
		WriteError(w, r.status, r.code, r.message)
	case isLocked(err):
		WriteError(w, http.StatusForbidden, "DENIED", err.Error())
	default:
		WriteError(w, fleetscore.KindOf(err).HTTPStatus(), "UNKNOWN", err.Error())
	}
}

// request is a request that was taken apart.
type request struct {
	repository string
	what       string // manifests, blobs, uploads, tags or referrers
	reference  string // a tag, a digest, or the name of an upload
}

// parse takes the path of a request apart; ok is false if it isn't one of the
// specification's.
func parse(path string) (q request, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, Prefix), "/")
	n := len(parts)
	name := func(k int) string { return strings.Join(parts[:max(0, n-k)], "/") }
	switch {
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		return request{name(3), "uploads", parts[n-1]}, true
	case n >= 3 && parts[n-2] == "blobs" && parts[n-1] == "uploads":
		return request{name(2), "uploads", ""}, true
	case n >= 3 && parts[n-2] == "tags" && parts[n-1] == "list":
		return request{name(2), "tags", ""}, true
	case n >= 3 && slices.Contains([]string{"manifests", "blobs", "referrers"}, parts[n-2]):
		return request{name(2), parts[n-2], parts[n-1]}, true
	}
	return q, false
}

// rightOf is what a request needs.
func rightOf(method string, q request) Right {
	switch {
	case method == http.MethodGet || method == http.MethodHead:
		return Pull
	case method == http.MethodDelete && q.what != "uploads":
		return Delete
	}
	return Push
}

// ServeHTTP answers the requests below Prefix.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	reading := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch req.URL.Path {
	case Prefix:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}") // the client may be gone
		return
	case Prefix + "_catalog":
		if reading {
			r.catalog(w, req)
			return
		}
	}
	q, ok := parse(req.URL.Path)
	if !ok {
		WriteError(w, http.StatusNotFound, "NAME_UNKNOWN", "the path "+req.URL.Path+" isn't one of the distribution specification")
		return
	}
	if err := checkRepository(q.repository); err != nil {
		WriteError(w, http.StatusBadRequest, "NAME_INVALID", err.Error())
		return
	}
	if right := rightOf(req.Method, q); !r.may(req.Context(), q.repository, right) {
		WriteError(w, http.StatusForbidden, "DENIED", "your token doesn't allow to "+string(right)+" in the repository "+q.repository)
		return
	}
	serve := map[string]func(http.ResponseWriter, *http.Request, request) error{
		"GET manifests": r.getManifest, "HEAD manifests": r.getManifest, "PUT manifests": r.putManifest, "DELETE manifests": r.deleteManifest,
		"GET blobs": r.getBlob, "HEAD blobs": r.getBlob, "DELETE blobs": r.deleteBlob,
		"POST uploads": r.beginUpload, "GET uploads": r.getUpload, "PATCH uploads": r.patchUpload, "PUT uploads": r.putUpload, "DELETE uploads": r.cancelUpload,
		"GET tags": r.listTags, "GET referrers": r.listReferrers,
	}[req.Method+" "+q.what]
	if serve == nil {
		WriteError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", req.Method+" isn't possible for "+q.what)
		return
	}
	if err := serve(w, req, q); err != nil {
		fail(w, err)
	}
}

// parseDigest reads a digest that a client sent.
func parseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", &refusal{http.StatusBadRequest, "DIGEST_INVALID", "the digest " + strconv.Quote(text) + ": " + err.Error()}
	}
	return d, nil
}

func unknownBlob(d digest.Digest) error {
	return &refusal{http.StatusNotFound, "BLOB_UNKNOWN", "this repository has no blob " + d.String()}
}

// getBlob answers HEAD too. A part of the blob can be asked for.
func (r *Registry) getBlob(w http.ResponseWriter, req *http.Request, q request) error {
	d, err := parseDigest(q.reference)
	if err != nil {
		return err
	}
	ctx := req.Context()
	if _, err := r.bucket.Stat(ctx, memberName(q.repository, d)); err != nil {
		if fleetscore.NotFound.Is(err) {
			err = unknownBlob(d)
		}
		return err
	}
	info, err := r.bucket.Stat(ctx, contentName(d))
	if err != nil {
		if fleetscore.NotFound.Is(err) {
			err = unknownBlob(d)
		}
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("ETag", `"`+d.String()+`"`)
	content := &seeker{r: r, req: req, name: contentName(d), size: info.SizeBytes}
	defer content.Close()
	http.ServeContent(&steady{w, http.NewResponseController(w)}, req, "", time.Time{}, content)
	return nil
}

// seeker reads a blob of the store as net/http wants it.
type seeker struct {
	r    *Registry
	req  *http.Request
	name fleetscore.BlobName
	size int64
	at   int64
	body io.ReadCloser // nil until it is read
}

// Seek implements io.Seeker.
func (s *seeker) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.size
	}
	s.Close()
	s.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (s *seeker) Read(p []byte) (int, error) {
	if s.body == nil {
		var err error
		if s.body, err = s.r.bucket.Get(s.req.Context(), s.name, s.at, -1); err != nil {
			return 0, err
		}
	}
	n, err := s.body.Read(p)
	s.at += int64(n)
	return n, err
}

// Close lets go of the store's reader.
func (s *seeker) Close() {
	if s.body != nil {
		s.body.Close() // only read
		s.body = nil
	}
}

// pieceLimit bounds the time for each piece of a body, so that a client that stands still
// doesn't hold a connection for ever.
const pieceLimit = time.Minute

// steady limits the time in which the client takes each piece of an answer.
type steady struct {
	http.ResponseWriter
	answer *http.ResponseController
}

// Write implements io.Writer.
func (s *steady) Write(p []byte) (int, error) {
	_ = s.answer.SetWriteDeadline(time.Now().Add(pieceLimit)) // not every writer supports deadlines
	n, err := s.ResponseWriter.Write(p)
	_ = s.answer.SetWriteDeadline(time.Time{})
	return n, err
}

// arriving limits the time in which a client sends each piece of a body.
type arriving struct {
	body   io.Reader
	answer *http.ResponseController
}

func bodyOf(w http.ResponseWriter, req *http.Request) io.Reader {
	return &arriving{req.Body, http.NewResponseController(w)}
}

// Read implements io.Reader.
func (a *arriving) Read(p []byte) (int, error) {
	_ = a.answer.SetReadDeadline(time.Now().Add(pieceLimit)) // not every writer supports deadlines
	n, err := a.body.Read(p)
	_ = a.answer.SetReadDeadline(time.Time{})
	return n, err
}

func (r *Registry) deleteBlob(w http.ResponseWriter, req *http.Request, q request) error {
	d, err := parseDigest(q.reference)
	if err != nil {
		return err
	}
	if _, err := r.bucket.Stat(req.Context(), memberName(q.repository, d)); fleetscore.NotFound.Is(err) {
		return unknownBlob(d)
	} else if err != nil {
		return err
	}
	// Other repositories may have it: GC removes the content itself.
	if err := r.bucket.Delete(req.Context(), memberName(q.repository, d)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// page cuts a sorted list as the parameters n and last say, and links to the next page.
func page(w http.ResponseWriter, req *http.Request, all []string) ([]string, error) {
	last := req.URL.Query().Get("last")
	i, found := slices.BinarySearch(all, last)
	if found {
		i++
	}
	all = all[i:]
	if text := req.URL.Query().Get("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, &refusal{http.StatusBadRequest, "UNSUPPORTED", "n=" + text + " isn't a number of entries"}
		}
		if n < len(all) {
			all = all[:n]
			if n > 0 {
				w.Header().Set("Link", "<"+req.URL.Path+"?n="+text+"&last="+all[n-1]+`>; rel="next"`)
			}
		}
	}
	return all, nil
}

func answer(w http.ResponseWriter, contentType string, v any) error {
	w.Header().Set("Content-Type", contentType)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
	return nil
}

// catalog lists the repositories that the caller may pull from.
func (r *Registry) catalog(w http.ResponseWriter, req *http.Request) {
	all, err := r.repositories(req.Context())
	if err == nil {
		all = slices.DeleteFunc(all, func(name string) bool { return !r.may(req.Context(), name, Pull) })
		slices.Sort(all)
		all, err = page(w, req, all)
	}
	if err != nil {
		fail(w, err)
		return
	}
	_ = answer(w, "application/json", map[string][]string{"repositories": append([]string{}, all...)}) // it has no error
}

func (r *Registry) listTags(w http.ResponseWriter, req *http.Request, q request) error {
	tags, err := r.members(req.Context(), folderOf(q.repository)+tagsFolder)
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		left, err := r.members(req.Context(), folderOf(q.repository)+manifestsFolder)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return &refusal{http.StatusNotFound, "NAME_UNKNOWN", "this registry has no repository " + q.repository}
		}
	}
	names := make([]string, len(tags))
	for i, t := range tags {
		names[i] = string(t.Name)
	}
	slices.Sort(names)
	if names, err = page(w, req, names); err != nil {
		return err
	}
	return answer(w, "application/json", map[string]any{"name": q.repository, "tags": append([]string{}, names...)})
}
