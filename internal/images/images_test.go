package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a registry that listens, whose clock a test can set forward.
type world struct {
	*Registry
	host  string
	store store.Bucket
	ahead atomic.Int64
}

func start(t *testing.T, may func(repository string, r Right) bool) *world {
	t.Helper()
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: dir}
	w.Registry, err = New(Config{TempDir: filepath.Join(t.TempDir(), "uploads"), MaxBlobBytes: 8 << 20, MaxUploads: 8},
		Deps{Store: dir, Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
			May: func(_ context.Context, repository string, r Right) bool { return may == nil || may(repository, r) }})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w.Registry)
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	w.host = strings.TrimPrefix(s.URL, "http://")
	return w
}

func (w *world) ref(t *testing.T, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(w.host+"/"+text, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// transport is the clients' own, so that its connections end with the test.
func transport(t *testing.T) remote.Option {
	tr := remote.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(tr.CloseIdleConnections)
	return remote.WithTransport(tr)
}

func (w *world) push(t *testing.T, text string, image v1.Image) string {
	t.Helper()
	if err := remote.Write(w.ref(t, text), image, transport(t)); err != nil {
		t.Fatal(err)
	}
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func randomImage(t *testing.T, layers int) v1.Image {
	t.Helper()
	image, err := random.Image(2000, int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestConformance runs the distribution specification's own tests.
func TestConformance(t *testing.T) {
	t.Parallel()
	program := testkit.GoProgram(t, "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111")
	w := start(t, nil)
	cmd := testkit.Command(t, program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+w.host, "OCI_TLS=disabled", "OCI_RESULTS_DIR="+cmd.Dir, "OCI_VERSION=1.1",
		"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true")
	out, err := cmd.CombinedOutput()
	// Two are skipped: to mount a blob without saying from which repository isn't offered.
	counts := regexp.MustCompile(`Result: Pass\n +Disabled\.*: +0\n +Skip\.*: +2\n +Pass\.*: +(\d+)\n`).FindSubmatch(out)
	if err != nil || counts == nil || len(counts[1]) < 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

// do sends a request and returns the answer's status, headers and body.
func (w *world) do(t *testing.T, method, path string, body io.Reader, header ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// TestPushPull: what crane's library pushes it pulls again, also what another repository
// has already, and an index of several images.
func TestPushPull(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	image := randomImage(t, 3)
	d := w.push(t, "team/scorer:v1", image)
	w.push(t, "other:latest", image)
	for _, ref := range []string{"team/scorer:v1", "team/scorer@" + d, "other:latest"} {
		got, err := remote.Image(w.ref(t, ref), transport(t))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := got.Layers()
		if err != nil || len(layers) != 3 {
			t.Fatalf("%s: %d layers, %v", ref, len(layers), err)
		}
		for i, l := range layers {
			want, _ := image.Layers()
			a, b := uncompressed(t, l), uncompressed(t, want[i])
			if !bytes.Equal(a, b) {
				t.Errorf("%s: layer %d differs", ref, i)
			}
		}
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image}, mutate.IndexAddendum{Add: randomImage(t, 1)})
	if err := remote.WriteIndex(w.ref(t, "team/scorer:both"), index, transport(t)); err != nil {
		t.Fatal(err)
	}
	repo, err := name.NewRepository(w.host+"/team/scorer", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	tags, err := remote.List(repo, transport(t))
	if err != nil || fmt.Sprint(tags) != "[both v1]" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if all, err := w.List(t.Context()); err != nil || len(all) != 4 || all[0].Repository != "other" || all[0].SizeBytes < 6000 {
		t.Errorf("list: %+v, %v", all, err)
	}
	if _, _, text := w.do(t, http.MethodGet, "/v2/_catalog?n=1", nil); text != `{"repositories":["other"]}`+"\n" {
		t.Errorf("catalog: %s", text)
	}
	status, header, text := w.do(t, http.MethodGet, "/v2/team/scorer/manifests/v1", nil)
	if status != http.StatusOK || header.Get("Docker-Content-Digest") != d || digest.FromString(text).String() != d {
		t.Errorf("manifest: %d %v %s", status, header, text)
	}
}

func uncompressed(t *testing.T, l v1.Layer) []byte {
	t.Helper()
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestErrors: faults get the status and code of the specification.
func TestErrors(t *testing.T) {
	t.Parallel()
	w := start(t, func(repository string, r Right) bool {
		return repository != "secret" && !(repository == "fixed" && r != Pull)
	})
	d := w.push(t, "some:v1", randomImage(t, 1))
	good := digest.FromString("good")
	none := digest.FromString("nothing").String()
	begin := func() string {
		t.Helper()
		status, header, text := w.do(t, http.MethodPost, "/v2/some/blobs/uploads/", nil)
		if status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
		return header.Get("Location")
	}
	image := func(config string) string {
		return `{"schemaVersion": 2, "mediaType": "` + typeImage + `", "config": {"mediaType": "a/b", "digest": "` + config + `", "size": 1}, "layers": []}`
	}
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		code               string
	}{
		{"GET", "/v2/some/manifests/v2", "", nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/some/manifests/" + none, "", nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/other/manifests/v1", "", nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/other/tags/list", "", nil, 404, "NAME_UNKNOWN"},
		{"GET", "/v2/some/blobs/" + none, "", nil, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/some/blobs/sha256:12", "", nil, 400, "DIGEST_INVALID"},
		{"GET", "/v2/some/blobs/" + d, "", nil, 404, "BLOB_UNKNOWN"}, // a manifest
		{"GET", "/v2/Some/manifests/v1", "", nil, 400, "NAME_INVALID"},
		{"GET", "/v2/a/" + strings.Repeat("x", 300) + "/manifests/v1", "", nil, 400, "NAME_INVALID"},
		{"GET", "/v2/elsewhere", "", nil, 404, "NAME_UNKNOWN"},
		{"GET", "/v2/some/tags/list?n=many", "", nil, 400, "UNSUPPORTED"},
		{"POST", "/v2/some/manifests/v1", "", nil, 405, "UNSUPPORTED"},
		{"GET", "/v2/secret/manifests/v1", "", nil, 403, "DENIED"},
		{"POST", "/v2/fixed/blobs/uploads/", "", nil, 403, "DENIED"},
		{"DELETE", "/v2/fixed/manifests/v1", "", nil, 403, "DENIED"},
		{"PUT", begin() + "?digest=" + none, "good", nil, 400, "DIGEST_INVALID"},
		{"PUT", begin(), "good", nil, 400, "DIGEST_INVALID"},
		{"PUT", begin() + "?digest=" + good.String(), "good", []string{"Content-Range", "3-6"}, 416, "BLOB_UPLOAD_INVALID"},
		{"PATCH", begin(), "good", []string{"Content-Range", "2-5"}, 416, "BLOB_UPLOAD_INVALID"},
		{"PATCH", strings.Replace(begin(), "/some/", "/other/", 1), "good", nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"PATCH", "/v2/some/blobs/uploads/none", "good", nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"POST", "/v2/some/blobs/uploads/?digest=" + none, "good", nil, 400, "DIGEST_INVALID"},
		{"POST", "/v2/some/blobs/uploads/?digest=" + good.String(), strings.Repeat("x", 9<<20), nil, 413, "SIZE_INVALID"},
		{"PUT", "/v2/some/manifests/v2", "no JSON", nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/some/manifests/v2", `{}`, []string{"Content-Type", "text/plain"}, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/some/manifests/v2", `{"mediaType": "` + typeImage + `"}`, nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/some/manifests/v2", image("sha256:5"), nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/some/manifests/v2", image(none), nil, 404, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/some/manifests/v2", image(none), []string{"Content-Type", typeIndex}, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/some/manifests/" + none, image(none), nil, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/some/manifests/.v2", image(none), nil, 400, "TAG_INVALID"},
		{"PUT", "/v2/some/manifests/v2", strings.Repeat(" ", maxManifest+1), nil, 413, "SIZE_INVALID"},
		{"DELETE", "/v2/some/manifests/v2", "", nil, 404, "MANIFEST_UNKNOWN"},
		{"DELETE", "/v2/some/blobs/" + none, "", nil, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/some/referrers/none", "", nil, 400, "DIGEST_INVALID"},
	} {
		status, _, text := w.do(t, c.method, c.path, strings.NewReader(c.body), c.header...)
		if status != c.status || !strings.Contains(text, `"code":"`+c.code+`"`) {
			t.Errorf("%s %.80s: %d %s, want %d %s", c.method, c.path, status, text, c.status, c.code)
		}
		for _, u := range w.unfinished() { // so that not too many are unfinished
			w.drop(u)
		}
	}
}

func (w *world) unfinished() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.uploads) < 6 {
		return nil
	}
	for id := range w.uploads {
		out = append(out, id)
	}
	return out
}

// TestBrokenUpload: a piece that breaks off is taken back, and the upload goes on where it
// was; nothing of it is seen before its digest is checked.
func TestBrokenUpload(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	_, header, _ := w.do(t, http.MethodPost, "/v2/some/blobs/uploads/", nil)
	at := header.Get("Location")
	if status, _, text := w.do(t, http.MethodPatch, at, strings.NewReader("hello "), "Content-Range", "0-5"); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+w.host+at, io.MultiReader(strings.NewReader("wor"), broken{}))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 5
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("the broken piece was sent whole")
	}
	status, header, _ := w.do(t, http.MethodGet, at, nil)
	if status != http.StatusNoContent || header.Get("Range") != "0-5" {
		t.Errorf("after a broken piece: %d %v", status, header)
	}
	d := digest.FromString("hello world")
	if status, _, text := w.do(t, http.MethodHead, "/v2/some/blobs/"+d.String(), nil); status != http.StatusNotFound {
		t.Errorf("before the end: %d %s", status, text)
	}
	if status, _, text := w.do(t, http.MethodPut, at+"?digest="+d.String(), strings.NewReader("world"), "Content-Range", "6-10"); status != http.StatusCreated {
		t.Errorf("the last piece: %d %s", status, text)
	}
	if status, _, text := w.do(t, http.MethodGet, "/v2/some/blobs/"+d.String(), nil, "Range", "bytes=6-"); status != http.StatusPartialContent || text != "world" {
		t.Errorf("a part of the blob: %d %s", status, text)
	}
	for range 8 {
		w.do(t, http.MethodPost, "/v2/some/blobs/uploads/", nil)
	}
	if status, _, text := w.do(t, http.MethodPost, "/v2/some/blobs/uploads/", nil); status != http.StatusTooManyRequests || !strings.Contains(text, "TOOMANYREQUESTS") {
		t.Errorf("a ninth upload: %d %s", status, text)
	}
	w.ahead.Store(int64(2 * uploadLimit))
	if status, _, text := w.do(t, http.MethodPost, "/v2/some/blobs/uploads/", nil); status != http.StatusAccepted {
		t.Errorf("after the others stood still for too long: %d %s", status, text)
	}
}

// broken fails once it is read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestLock: a locked tag and its image stay what they are until it is unlocked.
func TestLock(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	d := w.push(t, "some:v1", randomImage(t, 1))
	if err := w.Lock(t.Context(), "some", "v1", true); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(w.ref(t, "some:v1"), randomImage(t, 1), transport(t)); err == nil || !strings.Contains(err.Error(), "DENIED") {
		t.Errorf("another image under a locked tag: %v", err)
	}
	for _, ref := range []string{"v1", d} {
		if err := w.Remove(t.Context(), "some", ref); !fleetscore.Conflict.Is(err) {
			t.Errorf("rm %s: %v", ref, err)
		}
	}
	if got, err := w.Resolve(t.Context(), "some", "v1"); got != d || err != nil {
		t.Errorf("v1 is %s, %v", got, err)
	}
	if err := w.Lock(t.Context(), "some", "v1", false); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(t.Context(), "some", "v1"); err != nil {
		t.Error(err)
	}
	if _, err := w.Resolve(t.Context(), "some", "v1"); !fleetscore.NotFound.Is(err) {
		t.Errorf("a removed tag: %v", err)
	}
	if got, err := w.Resolve(t.Context(), "some", d); got != d || err != nil {
		t.Errorf("the image of a removed tag is %s, %v", got, err)
	}
	if err := w.Lock(t.Context(), "some", "none", true); !fleetscore.NotFound.Is(err) {
		t.Errorf("lock of an unknown tag: %v", err)
	}
}

// TestGC: what has no tag is removed once it is old, unless results cite it; layers that
// other images share stay.
func TestGC(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	base := randomImage(t, 2)
	extended, err := mutate.AppendLayers(base, layerOf(t))
	if err != nil {
		t.Fatal(err)
	}
	d1 := w.push(t, "some:v1", base)
	d2 := w.push(t, "some:v1", extended) // moves the tag
	d3 := w.push(t, "some:cited", randomImage(t, 1))
	d4 := w.push(t, "other:gone", randomImage(t, 1))
	for repo, tag := range map[string]string{"some": "cited", "other": "gone"} {
		if err := w.Remove(t.Context(), repo, tag); err != nil {
			t.Fatal(err)
		}
	}
	cited := map[string]string{d3: "a pool names it"}
	if c, err := w.GC(t.Context(), cited, false); err != nil || len(c.Images) != 0 || c.Blobs != 0 {
		t.Fatalf("young images: %+v, %v", c, err)
	}
	w.ahead.Store(int64(2 * Grace))
	before := blobs(t, w.store)
	c, err := w.GC(t.Context(), cited, true)
	if err != nil || len(c.Images) != 2 || c.Kept != 1 || blobs(t, w.store) != before {
		t.Errorf("dry run: %+v, %v", c, err)
	}
	// Manifest and configuration of the first image; manifest, configuration and layer of the last.
	c, err = w.GC(t.Context(), cited, false)
	if err != nil || len(c.Images) != 2 || c.Blobs != 5 || c.SizeBytes < 2000 {
		t.Errorf("%+v, %v", c, err)
	}
	for ref, there := range map[string]bool{"some@" + d1: false, "some@" + d2: true, "some:v1": true, "some@" + d3: true, "other@" + d4: false} {
		image, err := remote.Image(w.ref(t, ref), transport(t))
		if err == nil {
			var layers []v1.Layer
			if layers, err = image.Layers(); err == nil {
				for _, l := range layers {
					uncompressed(t, l)
				}
			}
		}
		if (err == nil) != there {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if c, err := w.GC(t.Context(), nil, false); err != nil || len(c.Images) != 1 || c.Images[0].Digest != d3 {
		t.Errorf("once nobody cites it: %+v, %v", c, err)
	}
	if c, err := w.GC(t.Context(), nil, false); err != nil || len(c.Images)+c.Blobs != 0 {
		t.Errorf("again: %+v, %v", c, err)
	}
}

func layerOf(t *testing.T) v1.Layer {
	t.Helper()
	l, err := random.Layer(1000, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func blobs(t *testing.T, b store.Bucket) (n int) {
	t.Helper()
	for _, err := range b.List(t.Context(), Area, store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// FuzzManifest: a manifest that is taken names blobs with valid digests only, and one that isn't is refused as the client's fault.
func FuzzManifest(f *testing.F) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, s := range []string{"", "{}", `{"schemaVersion":2,"mediaType":"` + typeImage + `","config":{"digest":"` + sum + `"},"layers":[{"digest":"` + sum + `"}]}`,
		`{"mediaType":"` + typeIndex + `","manifests":[{"digest":"` + sum + `"}],"subject":{"digest":"sha256:../x"}}`} {
		f.Add([]byte(s), "")
		f.Add([]byte(s), typeImage)
	}
	f.Fuzz(func(t *testing.T, text []byte, contentType string) {
		m, err := readManifest(text, contentType)
		if _, ours := err.(*refusal); err != nil && !ours {
			t.Fatalf("%T: %v", err, err)
		}
		if err != nil {
			return
		}
		for _, d := range m.blobs() {
			if err := d.Validate(); err != nil {
				t.Errorf("%q: %v", d, err)
			}
		}
	})
}
