package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	registry "github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

const imageYAML = `
hub: {key: [Device, Tag], time: TS}
fleets: {sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}}
pools: {cpu: {provider: local}}
pipelines: {p: {dataset: d, fleet: sensors, features: [Value], pool: cpu}}
`

// rootOf is an archive with one file.
func rootOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *process) imageToken(role, name string, more ...string) string {
	p.t.Helper()
	code, out, errs := command(p.t, append([]string{"token", "create", role, name, "--server", "http://" + p.addr}, more...)...)
	if code != 0 {
		p.t.Fatalf("token create: %d %s", code, errs)
	}
	return strings.TrimSpace(out)
}

// TestRegistry: docker and crane push to the server and pull from it, as far as their
// tokens allow; wrong tokens are refused as the specification asks for.
func TestRegistry(t *testing.T) {
	t.Parallel()
	p := startServer(t, imageYAML)
	for _, c := range []struct {
		path, token string
		status      int
		code        string
	}{
		{"/v2/", "", http.StatusUnauthorized, "UNAUTHORIZED"},
		{"/v2/", "fst_abcdefghijkl_wrong", http.StatusUnauthorized, "UNAUTHORIZED"},
		{"/v2/", p.token(), http.StatusOK, ""},
		{"/v2/some/manifests/v1", "", http.StatusUnauthorized, "UNAUTHORIZED"},
		{"/v2/some/manifests/v1", p.token(), http.StatusNotFound, "MANIFEST_UNKNOWN"},
		{"/v2/some/manifests/v1", p.imageToken("device", "press"), http.StatusForbidden, "DENIED"},
		{"/v2/some/manifests/v1", p.imageToken("image-pull", "other", "--repository", "team/*"), http.StatusForbidden, "DENIED"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			req.SetBasicAuth("anybody", c.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Errors []struct{ Code, Message string }
		}
		_ = json.NewDecoder(resp.Body).Decode(&body) // the check below shows what came
		resp.Body.Close()
		challenge := resp.Header.Get("WWW-Authenticate")
		if resp.StatusCode != c.status || c.code != "" && (len(body.Errors) != 1 || body.Errors[0].Code != c.code) || (c.status == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Basic ") {
			t.Errorf("%s with %.8s: %d, %+v, %q", c.path, c.token, resp.StatusCode, body, challenge)
		}
	}
	if code, _, errs := command(t, "token", "create", "viewer", "v", "--repository", "team/*", "--server", "http://"+p.addr); code != exitUsage || !strings.Contains(errs, "image-pull") {
		t.Errorf("a viewer of repositories: %d %s", code, errs)
	}
	push, pull := p.imageToken("image-push", "pusher", "--repository", "team/*"), p.imageToken("image-pull", "puller", "--repository", "team/scorer")

	d := testkit.StartDocker(t)
	d.Input(t, rootOf(t, "hello.txt", "hello"), "import", "-", p.addr+"/team/scorer:v1")
	d.Input(t, []byte(push), "login", "-u", "pusher", "--password-stdin", p.addr)
	d.Run(t, "push", p.addr+"/team/scorer:v1")
	d.Run(t, "tag", p.addr+"/team/scorer:v1", p.addr+"/alien:v1")
	if out := d.Fails(t, "push", p.addr+"/alien:v1"); !strings.Contains(out, "denied") {
		t.Errorf("push to a repository of others: %s", out)
	}
	d.Input(t, []byte(pull), "login", "-u", "puller", "--password-stdin", p.addr)
	if out := d.Fails(t, "push", p.addr+"/team/scorer:v1"); !strings.Contains(out, "denied") {
		t.Errorf("push with a token that pulls: %s", out)
	}
	d.Run(t, "rmi", p.addr+"/team/scorer:v1", p.addr+"/alien:v1")
	if out := d.Run(t, "pull", p.addr+"/team/scorer:v1"); !strings.Contains(out, "Downloaded newer image") {
		t.Errorf("pull: %s", out)
	}
	d.Run(t, "logout", p.addr)
	if out := d.Fails(t, "pull", p.addr+"/team/scorer:v1"); !strings.Contains(out, "unauthorized") && !strings.Contains(out, "no basic auth credentials") {
		t.Errorf("pull without a token: %s", out)
	}
	p.crane(push, "team/scorer:v1")
	p.imageCommands()
}

// TestImageOfPool: an image that a pool names by its digest can't be removed and is kept
// without a tag. No engine is needed for that.
func TestImageOfPool(t *testing.T) {
	t.Parallel()
	p := newServer(t, imageYAML, func(string) {})
	p.args = []string{"--docker", "unix:///nowhere/docker.sock"}
	p.start()
	image, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(p.addr+"/team/scorer:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.Write(ref, image, registry.WithAuth(&authn.Basic{Username: "me", Password: p.token()})); err != nil {
		t.Fatal(err)
	}
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(imageYAML, "{provider: local}", fmt.Sprintf("{provider: docker, docker: {image: \"%s/team/scorer@%s\"}}", p.addr, d), 1)
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := "--server=http://" + p.addr
	if code, _, stderr := command(t, "apply", p.file, server); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := command(t, "image", "rm", "team/scorer@"+d.String(), server); code != 13 || !strings.Contains(stderr, "pool cpu of the configuration in force names it") {
		t.Errorf("rm: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, "image", "rm", "team/scorer:v1", server); code != 0 {
		t.Errorf("rm of its tag: %d %s", code, stderr)
	}
	if code, stdout, stderr := command(t, "image", "gc", "-o", "json", server); code != 0 || !strings.Contains(stdout, `"kept": 1`) {
		t.Errorf("gc: %d %s%s", code, stdout, stderr)
	}
}

// TestImageBuild: an image that is built of a root file system, a wheel and a script without
// any engine has the same digest on another day; docker and crane pull it, and it runs.
func TestImageBuild(t *testing.T) {
	t.Parallel()
	p := startServer(t, imageYAML)
	engine := testkit.StartDocker(t)
	root, wheels := testkit.PythonRoot(t), testkit.Wheels(t, "six==1.17.0")
	script := filepath.Join(p.dir, "hello.py")
	built := func(at time.Time, image string) (digest string) {
		t.Helper()
		if err := os.WriteFile(script, []byte("import os, sys, six\nprint('hello from six', six.__version__, sys.argv[1:], os.getuid(), os.getcwd(), os.environ['COLOUR'])\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(script, at, at); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := command(t, append([]string{"image", "build", image, "--base", root, "--copy", script + ":/app/", "--entrypoint", "python3 /app/hello.py", "--cmd", `["a b"]`,
			"--env", "COLOUR=blue", "--user", "1000:1000", "--workdir", "/app", "--label", "team=red", "-o", "json", "--server", "http://" + p.addr, "--wheel"}, wheels...)...)
		var i struct{ Digest string }
		if err := json.Unmarshal([]byte(stdout), &i); code != 0 || err != nil || stderr != "" {
			t.Fatalf("build: %d, %v\n%s%s", code, err, stdout, stderr)
		}
		return i.Digest
	}
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first, second := built(day, "team/hello:v1"), built(day.AddDate(0, 0, 1), "team/hello:v2")
	if first != second {
		t.Errorf("the digests are %s and %s", first, second)
	}
	engine.Input(t, []byte(p.imageToken("image-pull", "puller")), "login", "-u", "puller", "--password-stdin", p.addr)
	image := p.addr + "/team/hello@" + first
	engine.Run(t, "pull", image)
	if out := engine.Run(t, "run", "--rm", "--network", "none", image); out != "hello from six 1.17.0 ['a b'] 1000 /app blue\n" {
		t.Errorf("it says %q", out)
	}
	p.crane(p.imageToken("image-push", "pusher"), "team/hello:v1")
	server := "--server=http://" + p.addr
	if code, _, stderr := command(t, "image", "lock", "team/hello:v1", server); code != 0 {
		t.Fatal(stderr)
	}
	for want, args := range map[string][]string{
		"the tag is locked":               {"team/hello:v1", "--base", "scratch"},
		"a repository and a tag":          {"Team/Hello", "--base", "scratch"},
		"one image is expected":           {"team/hello:v3", "team/hello:v4", "--base", "scratch"},
		"flags are needed too: --base":    {"team/hello:v3"},
		"this registry has no such image": {"team/hello:v3", "--base", p.addr + "/team/none:v1"},
	} {
		if code, _, stderr := command(t, append([]string{"image", "build", server}, args...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %s", args, code, stderr)
		}
	}
	file := filepath.Join(p.dir, "image.tar")
	if code, _, stderr := command(t, "image", "build", "team/more:v1", "--base", image, "--cmd", "again", "--to", file, server); code != 0 {
		t.Fatal(stderr)
	}
	engine.Run(t, "load", "-i", file)
	if out := engine.Run(t, "run", "--rm", "--network", "none", "team/more:v1"); !strings.Contains(out, "['again'] 1000 /app blue") {
		t.Errorf("the next one says %q", out)
	}
}

// crane pulls the image, and pushes it under another tag.
func (p *process) crane(push, image string) {
	p.t.Helper()
	program := testkit.GoProgram(p.t, "github.com/google/go-containerregistry/cmd/crane@v0.22.1")
	home := p.t.TempDir()
	crane := func(in string, args ...string) {
		p.t.Helper()
		cmd := testkit.Command(p.t, program, args...)
		cmd.Env, cmd.Stdin = append(os.Environ(), "DOCKER_CONFIG="+home), strings.NewReader(in)
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Fatalf("crane %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	crane(push, "auth", "login", p.addr, "-u", "crane", "--password-stdin")
	file := filepath.Join(home, "image.tar")
	crane("", "validate", "--remote", p.addr+"/"+image)
	crane("", "pull", p.addr+"/"+image, file)
	crane("", "push", file, p.addr+"/team/scorer:v2")
	crane("", "copy", p.addr+"/team/scorer:v2", p.addr+"/team/copy:v2")
	crane("", "digest", p.addr+"/team/copy:v2")
}

// imageCommands locks, lists and removes images.
func (p *process) imageCommands() {
	p.t.Helper()
	run := func(want int, args ...string) string {
		p.t.Helper()
		code, out, errs := command(p.t, append(append([]string{"image"}, args...), "--server", "http://"+p.addr)...)
		if code != want {
			p.t.Fatalf("image %s: %d %s", strings.Join(args, " "), code, errs)
		}
		return out + errs
	}
	run(0, "lock", "team/scorer:v1")
	if out := run(13, "rm", "team/scorer:v1"); !strings.Contains(out, "fleetscore image unlock team/scorer:v1") {
		p.t.Errorf("rm of a locked tag: %s", out)
	}
	run(12, "lock", "team/scorer:v9")
	var all []images.Image
	if err := json.Unmarshal([]byte(run(0, "ls", "-o", "json")), &all); err != nil {
		p.t.Fatal(err)
	}
	seen := map[string]string{}
	for _, i := range all {
		for _, tag := range i.Tags {
			seen[i.Repository+":"+tag] = strings.Join(i.Locked, " ")
		}
	}
	if len(seen) != 3 || seen["team/scorer:v1"] != "v1" || seen["team/copy:v2"] != "" {
		p.t.Errorf("ls: %+v", all)
	}
	run(0, "unlock", "team/scorer:v1")
	run(0, "rm", "team/scorer:v1")
	run(0, "gc", "--dry-run")
	run(0, "gc")
}
