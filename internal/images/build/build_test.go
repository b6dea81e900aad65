package build

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file is an entry of a root file system: a folder if its name ends so, a link if its text
// begins with an arrow.
type file struct{ name, text string }

// rootfs writes an archive of a root file system.
func rootfs(t *testing.T, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if to, link := strings.CutPrefix(f.text, "->"); link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		} else if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, f.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, "root.tar", b.String())
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// debian has /lib as a link, and its own Python, whose packages of others belong elsewhere.
func debian(t *testing.T) string {
	return rootfs(t, file{"lib", "->usr/lib"}, file{"bin", "->usr/bin"}, file{"usr/bin/", ""}, file{"usr/bin/python3", "->python3.11"}, file{"usr/bin/python3.11", "ELF"},
		file{"usr/lib/python3/dist-packages/", ""}, file{"usr/lib/python3/dist-packages/numpy-2.0.0.dist-info/", ""}, file{"usr/lib/python3.11/os.py", "pass"})
}

// wheelOf makes a wheel.
func wheelOf(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dist, rest, _ := strings.Cut(name, "-")
	release, _, _ := strings.Cut(rest, "-")
	all := map[string]string{}
	for n, text := range files {
		all[strings.NewReplacer("INFO/", dist+"-"+release+".dist-info/", "DATA/", dist+"-"+release+".data/").Replace(n)] = text
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for n, text := range all {
		w, err := z.Create(n)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, name, b.String())
}

func acme(t *testing.T) string {
	return wheelOf(t, "acme_tools-1.2-py3-none-any.whl", map[string]string{
		"acme/__init__.py": "x = 1\n", "INFO/METADATA": "Metadata-Version: 2.1\nName: acme-tools\nRequires-Dist: numpy>1\nRequires-Dist: scikit_learn\nRequires-Dist: old; python_version < '3'\n\nRequires-Dist: text\n",
		"INFO/RECORD": "lies", "INFO/entry_points.txt": "[console_scripts]\nacme = acme.main:run [all]\n[other]\nno = thing\n",
		"DATA/scripts/acme-old": "#!python -u\nprint()\n", "DATA/data/share/acme.txt": "hello", "DATA/platlib/acme/fast.py": "y = 2\n",
	})
}

// contents are the files of an image: text, or what a link points to.
func contents(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	out := map[string]string{}
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			text = []byte("a folder")
		case tar.TypeSymlink:
			text = []byte("->" + h.Linkname)
		}
		out[strings.Trim(h.Name, "/")] = string(text)
	}
}

func made(t *testing.T, opt Options) *Image {
	t.Helper()
	i, err := Build(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestSameInputSameDigest: the image doesn't depend on the day, on the times, the owner and
// the rights of its files, on their folder, or on the order of wheels.
func TestSameInputSameDigest(t *testing.T) {
	t.Parallel()
	base, tools := debian(t), acme(t)
	other := wheelOf(t, "beta-1-py3-none-any.whl", map[string]string{"beta.py": "", "INFO/METADATA": "Name: beta\n"})
	folder := func(text string, mode os.FileMode, at time.Time) string {
		dir := t.TempDir()
		for _, n := range []string{"run.py", "sub/z.txt", "sub/a.txt"} {
			p := filepath.Join(dir, n)
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(p, at, at); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	options := func(dir string, wheels ...string) Options {
		return Options{Base: base, Copies: []string{dir + ":/app"}, Wheels: wheels, Entrypoint: []string{"python3"}, Labels: map[string]string{"b": "2", "a": "1"}, Env: []string{"A=1"}}
	}
	day := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	first := made(t, options(folder("same", 0o600, day), tools, other))
	second := made(t, options(folder("same", 0o644, day.AddDate(0, 0, 1)), other, tools))
	if first.Digest != second.Digest {
		t.Errorf("%s on the first day, %s on the second", first.Digest, second.Digest)
	}
	for what, opt := range map[string]Options{
		"another file":     options(folder("different", 0o600, day), tools, other),
		"a program":        options(folder("same", 0o700, day), tools, other),
		"a wheel less":     options(folder("same", 0o600, day), tools),
		"another variable": {Base: base, Copies: options(folder("same", 0o600, day)).Copies, Wheels: []string{tools, other}, Entrypoint: []string{"python3"}, Labels: map[string]string{"b": "2", "a": "1"}, Env: []string{"A=2"}},
	} {
		if made(t, opt).Digest == first.Digest {
			t.Errorf("%s: the digest is the same", what)
		}
	}
}

// TestWheels: wheels lie where pip puts them; what they need is named if nobody brings it.
func TestWheels(t *testing.T) {
	t.Parallel()
	i := made(t, Options{Base: debian(t), Wheels: []string{acme(t)}})
	got := contents(t, i.Image)
	const site = "usr/local/lib/python3.11/dist-packages/"
	for name, want := range map[string]string{
		site + "acme/__init__.py": "x = 1\n", site + "acme/fast.py": "y = 2\n", "usr/share/acme.txt": "hello",
		site + "acme_tools-1.2.dist-info/INSTALLER": "fleetscore\n",
		"usr/bin/acme-old":                          "#!/usr/bin/python3\nprint()\n",
		"usr/bin/acme":                              "#!/usr/bin/python3\nimport sys\nfrom acme.main import run\nif __name__ == '__main__':\n    sys.exit(run())\n",
		"lib":                                       "->usr/lib", "usr/lib/python3.11/os.py": "pass",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	record := got[site+"acme_tools-1.2.dist-info/RECORD"]
	for _, want := range []string{"acme/__init__.py,sha256=", "../../../../bin/acme,sha256=", "acme_tools-1.2.dist-info/RECORD,,\n", ",6\n"} {
		if !strings.Contains(record, want) {
			t.Errorf("RECORD without %q:\n%s", want, record)
		}
	}
	if want := []string{"acme_tools-1.2-py3-none-any.whl needs scikit_learn, which is neither in the base nor among the wheels"}; !cmp.Equal(i.Warnings, want) {
		t.Errorf("warnings: %q", i.Warnings)
	}
	venv := rootfs(t, file{"opt/venv/bin/python3", "->/usr/local/bin/python3.12"}, file{"usr/local/bin/python3.12", "ELF"}, file{"opt/venv/lib/python3.12/site-packages/", ""}, file{"lib/ld-musl-x86_64.so.1", "ELF"})
	got = contents(t, made(t, Options{Base: venv, Wheels: []string{acme(t)}, Python: "/opt/venv/bin/python3"}).Image)
	if got["opt/venv/lib/python3.12/site-packages/acme/__init__.py"] == "" || !strings.HasPrefix(got["opt/venv/bin/acme"], "#!/opt/venv/bin/python3\n") {
		t.Errorf("a virtual environment: %q", got)
	}
}

// TestLinks: what is copied below a link of the base lies where the link leads to, and the
// link stays.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n, text := range map[string]string{"a.txt": "a", "sub/b.txt": "b"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, n)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got := contents(t, made(t, Options{Base: debian(t), Copies: []string{dir + ":/lib/mine/", dir + "/sub:/", dir + "/a.txt:/bin/", dir + "/a.txt:/new/deep/x"}}).Image)
	want := map[string]string{"usr/lib/mine/a.txt": "a", "usr/lib/mine/sub/b.txt": "b", "usr/lib/mine/link": "->a.txt", "usr/bin/a.txt": "a", "b.txt": "b", "new/deep/x": "a", "new/deep": "a folder", "lib": "->usr/lib", "bin": "->usr/bin"}
	for n, text := range want {
		if got[n] != text {
			t.Errorf("%s: %q, want %q", n, got[n], text)
		}
	}
}

// TestBases: the same files come from each kind of base, and settings change what is there.
func TestBases(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	root := debian(t)
	raw, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err = z.Write(raw); err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	first := made(t, Options{Base: root, Env: []string{"PATH=/bin", "A=1"}, Command: []string{"serve"}, WorkDir: "/srv", User: "1000"})
	dir := t.TempDir()
	if err := first.Write(filepath.Join(dir, "layout"), "team/base:v1"); err != nil {
		t.Fatal(err)
	}
	if err := first.Write(filepath.Join(dir, "image.tar"), "team/base:v1"); err != nil {
		t.Fatal(err)
	}
	if err := first.Write(filepath.Join(dir, "layout"), "team/base:v1"); !fleetscore.Conflict.Is(err) {
		t.Errorf("a folder that isn't empty: %v", err)
	}
	server := Server{Host: strings.TrimPrefix(s.URL, "http://"), Transport: http.DefaultTransport}
	if err := first.Push(t.Context(), server, "team/base:v1"); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{root, write(t, "root.tar.gz", zipped.String()), filepath.Join(dir, "layout"), filepath.Join(dir, "image.tar"), server.Host + "/team/base:v1", server.Host + "/team/base@" + first.Digest} {
		i := made(t, Options{Base: base, Copies: []string{root + ":/more/root.tar"}, Entrypoint: []string{"/bin/python3"}, Env: []string{"A=2"}, Server: server})
		got := contents(t, i.Image)
		cfg, err := i.Image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got["usr/lib/python3.11/os.py"] != "pass" || got["more/root.tar"] != string(raw) || len(cfg.Config.Cmd) != 0 || !slices.Contains(cfg.Config.Env, "A=2") || slices.Contains(cfg.Config.Env, "A=1") {
			t.Errorf("%s: %+v, %d files", base, cfg.Config, len(got))
		}
		if base != root && !strings.HasSuffix(base, ".gz") && (cfg.Config.User != "1000" || cfg.Config.WorkingDir != "/srv") {
			t.Errorf("%s: the base's settings are lost: %+v", base, cfg.Config)
		}
		if err := i.Push(t.Context(), server, "team/next:v1"); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	ref, err := name.ParseReference(server.Host + "/team/next:v1")
	if err != nil {
		t.Fatal(err)
	}
	if img, err := remote.Image(ref); err != nil {
		t.Error(err)
	} else if got := contents(t, img); got["more/root.tar"] != string(raw) {
		t.Errorf("what was pushed has %d files", len(got))
	}
}

// TestPushRefused: a registry that refuses an image is told from one that is away.
func TestPushRefused(t *testing.T) {
	t.Parallel()
	i := &Image{Image: empty.Image}
	status := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"errors": [{"code": "DENIED", "message": "the tag is locked"}]}`)
	}))
	defer s.Close()
	server := Server{Host: strings.TrimPrefix(s.URL, "http://"), Transport: http.DefaultTransport}
	for _, c := range []struct {
		status int
		image  string
		want   fleetscore.Kind
		text   string
	}{
		{http.StatusForbidden, "team/next:v1", fleetscore.Conflict, "the tag is locked"},
		{http.StatusBadRequest, "team/next:v1", fleetscore.Invalid, "the tag is locked"},
		{http.StatusNotImplemented, "team/next:v1", fleetscore.Unavailable, ""},
		{http.StatusForbidden, "../next:v1", fleetscore.Invalid, "one that is . or .."},
		{http.StatusForbidden, "team//next:v1", fleetscore.Invalid, "an empty part"},
	} {
		status = c.status
		if err := i.Push(t.Context(), server, c.image); !c.want.Is(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s, status %d: %v, want %s, %q", c.image, c.status, err, c.want, c.text)
		}
	}
}

// TestRefused: what can't be built is refused with the file and the reason.
func TestRefused(t *testing.T) {
	t.Parallel()
	root, tools := debian(t), acme(t)
	named := func(name string) []string {
		return []string{wheelOf(t, name, map[string]string{"INFO/METADATA": "Name: x\n"})}
	}
	for what, c := range map[string]struct {
		opt  Options
		want string
	}{
		"no such file":              {Options{Base: "./nowhere.tar"}, "no such file"},
		"not a name":                {Options{Base: "Not A Name"}, "neither a file nor the name of an image"},
		"an archive of nothing":     {Options{Base: tools}, "isn't a tar archive"},
		"a folder of nothing":       {Options{Base: t.TempDir()}, "isn't in OCI's image layout"},
		"a platform":                {Options{Base: root, Platform: "arm64/x/y/z"}, "isn't a platform"},
		"a copy without a target":   {Options{Base: root, Copies: []string{root}}, "its path in the image"},
		"a relative target":         {Options{Base: root, Copies: []string{root + ":app/x"}}, "absolute path"},
		"a file over a folder":      {Options{Base: root, Copies: []string{root + ":/usr/lib"}}, "the base has a folder there"},
		"a file below a file":       {Options{Base: root, Copies: []string{root + ":/usr/bin/python3.11/x"}}, "is a file in the base"},
		"a file and a folder":       {Options{Base: root, Copies: []string{root + ":/new", tools + ":/new/x"}}, "both a file and a folder"},
		"no python":                 {Options{Base: "scratch", Wheels: []string{tools}}, "no python3 in its PATH"},
		"another interpreter":       {Options{Base: root, Wheels: []string{tools}, Python: "/opt/python3"}, "has no /opt/python3"},
		"a Python without packages": {Options{Base: rootfs(t, file{"usr/bin/python3", "->python3.12"}, file{"usr/bin/python3.12", "ELF"}), Wheels: []string{tools}}, "no folder /usr/lib/python3.12/site-packages"},
		"an older Python's":         {Options{Base: root, Wheels: named("x-1-cp310-cp310-manylinux2014_x86_64.whl"), Platform: "linux/amd64"}, "Python 3.11"},
		"a newer Python's":          {Options{Base: root, Wheels: named("x-1-py312-none-any.whl")}, "Python 3.11"},
		"another processor's":       {Options{Base: root, Wheels: named("x-1-cp311-cp311-manylinux2014_aarch64.whl"), Platform: "linux/amd64"}, "x86_64"},
		"another C library's":       {Options{Base: root, Wheels: named("x-1-cp311-cp311-musllinux_1_2_x86_64.whl"), Platform: "linux/amd64"}, "glibc"},
		"a source distribution":     {Options{Base: root, Wheels: []string{write(t, "x-1.tar.gz", "")}}, "isn't the name of a wheel"},
		"a wheel without content":   {Options{Base: root, Wheels: []string{write(t, "x-1-py3-none-any.whl", "")}}, "zip"},
		"a wheel that leads out":    {Options{Base: root, Wheels: []string{wheelOf(t, "x-1-py3-none-any.whl", map[string]string{"../../etc/passwd": "", "INFO/METADATA": "Name: x\n"})}}, "leads out"},
		"a wheel of unknown files":  {Options{Base: root, Wheels: []string{wheelOf(t, "x-1-py3-none-any.whl", map[string]string{"DATA/odd/x": "", "INFO/METADATA": "Name: x\n"})}}, "unknown kind"},
	} {
		if _, err := Build(t.Context(), c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	for _, fits := range []string{"x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "x-1-cp39-abi3-linux_x86_64.whl", "x-1-2-py2.py3-none-any.whl", "x-1-py38-none-any.whl"} {
		if _, err := Build(t.Context(), Options{Base: root, Wheels: named(fits), Platform: "linux/amd64"}); err != nil {
			t.Errorf("%s: %v", fits, err)
		}
	}
}
