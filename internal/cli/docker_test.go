package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// pushAgentImage makes an image without any program and pushes it to the server. Its
// variable makes the test's own program behave as fleetscore.
func (p *process) pushAgentImage(d *testkit.Docker, image, content string) {
	p.t.Helper()
	push := p.imageToken("image-push", "builder-"+content)
	d.Input(p.t, rootOf(p.t, "etc/hello.txt", content), "import", "--change", "ENV "+asCommand+"=1", "-", image)
	d.Login(p.t, p.addr, push)
	d.Run(p.t, "push", image)
	d.Run(p.t, "rmi", image)
	d.Run(p.t, "logout", p.addr)
}

// TestDockerPool: the reference fleet is scored in containers of an image that the server's
// own registry serves. The pool goes from no node to some and back; after a kill of the
// server, the next one cleans up.
func TestDockerPool(t *testing.T) {
	t.Parallel()
	d := testkit.StartDocker(t)
	p := newServer(t, "", func(string) {})
	containers := p.scoredInContainers(d)
	p.movedTag(d, p.addr+"/team/scorer:v1")
	p.dockerKill(d, containers)
}

// TestPodmanPool: Podman's service does the same.
func TestPodmanPool(t *testing.T) {
	t.Parallel()
	p := newServer(t, "", func(string) {})
	d := testkit.StartPodman(t, p.addr)
	p.scoredInContainers(d)
	p.movedTag(d, p.addr+"/team/scorer:v1")
}

// scoredInContainers starts the server with a pool of containers, and scores the reference
// fleet there.
func (p *process) scoredInContainers(d *testkit.Docker) (containers func() int) {
	t := p.t
	t.Helper()
	image := p.addr + "/team/scorer:v1"
	text := fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: %s, model: "model_{Device}_{Tag}"}
pools:
  boxes: {provider: docker, slots: 1, scale: {min: 0, max: 2, idle_after: 1s}, docker: {image: "%s", memory_mb: 1024, cpus: 1}}
pipelines:
  reference: {dataset: history, fleet: sensors, features: [Val=Value], pool: boxes}
`, filepath.Join(testkit.Reference(t), "models"), image)
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = []string{"--docker", d.Host}
	p.start()
	p.pushAgentImage(d, image, "first")
	p.uploadReference()
	server := "--server=http://" + p.addr
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--wait", server); code != 0 || !strings.Contains(stdout, "17,768  6,757") {
		t.Fatalf("job: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
	p.scoredReference("reference")
	containers = func() int { return len(strings.Fields(d.Run(t, "ps", "-aq"))) }
	eventually(t, "the containers are gone", func() bool { return containers() == 0 })
	eventually(t, "their folders and tokens are gone", func() bool {
		left, err := os.ReadDir(filepath.Join(p.dir, "data", "containers", "nodes"))
		var tokens struct{ Items []struct{ Name string } }
		return err == nil && len(left) == 0 && p.Get(t.Context(), "/tokens", nil, &tokens) == nil && len(tokens.Items) == 1
	})
	return containers
}

// movedTag: a job after the tag has moved runs in the new image. The old one is kept without
// a tag, because results were made with it.
func (p *process) movedTag(d *testkit.Docker, image string) {
	t := p.t
	t.Helper()
	last := func() (j fleetscore.Job) {
		t.Helper()
		var jobs struct{ Items []fleetscore.Job }
		if err := p.Get(t.Context(), "/jobs", nil, &jobs); err != nil || len(jobs.Items) == 0 {
			t.Fatal(jobs, err)
		}
		return jobs.Items[0]
	}
	first := last()
	p.pushAgentImage(d, image, "second")
	server := "--server=http://" + p.addr
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--again", "--wait", server, "--from", first.Interval.From.Format(time.RFC3339Nano), "--to", first.Interval.To.Format(time.RFC3339Nano)); code != 0 {
		t.Fatalf("job: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
	second := last()
	name := strings.TrimSuffix(image, ":v1")
	if !strings.HasPrefix(first.Image, name+"@sha256:") || !strings.HasPrefix(second.Image, name+"@sha256:") || first.Image == second.Image {
		t.Errorf("the images are %q and %q", first.Image, second.Image)
	}
	if code, stdout, _ := command(t, "job", "show", string(first.ID), server); code != 0 || !strings.Contains(stdout, first.Image) {
		t.Errorf("job show: %d\n%s", code, stdout)
	}
	if _, page := p.page("/jobs/" + string(first.ID)); !strings.Contains(page, first.Image) {
		t.Errorf("the portal's page of the job lacks its image:\n%s", page)
	}
	_, old, _ := strings.Cut(first.Image, "@")
	if code, _, stderr := command(t, "image", "rm", "team/scorer@"+old, server); code != 13 || !strings.Contains(stderr, "the results of job "+string(first.ID)+" were made with it") {
		t.Errorf("rm: %d %s", code, stderr)
	}
	p.imagesAge(old, strings.TrimPrefix(second.Image, name+"@"))
}

// imagesAge: an image is kept for as long as results that were made with it, and is removed
// after their retention.
func (p *process) imagesAge(old, tagged string) {
	t := p.t
	t.Helper()
	server := "--server=http://" + p.addr
	collected := func() string {
		t.Helper()
		// What is younger than a day is kept anyway: it may be part of a push, or of a commit.
		before := time.Now().Add(-30 * time.Hour)
		for _, area := range []string{"images", "predictions"} {
			if err := filepath.WalkDir(filepath.Join(p.dir, "data", "store", area), func(file string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return os.Chtimes(file, before, before)
			}); err != nil {
				t.Fatal(err)
			}
		}
		if code, stdout, stderr := command(t, "dataset", "maintain", server); code != 0 {
			t.Fatalf("maintain: exit %d\n%s%s", code, stdout, stderr)
		}
		code, stdout, stderr := command(t, "image", "gc", "-o", "json", server)
		if code != 0 {
			t.Fatalf("gc: exit %d %s", code, stderr)
		}
		return stdout
	}
	if got := collected(); !strings.Contains(got, `"kept": 1`) || strings.Contains(got, old) {
		t.Errorf("gc while results are kept: %s", got)
	}
	text := fileText(t, p.file)
	if err := os.WriteFile(p.file, []byte(strings.Replace(text, "pool: boxes}", "pool: boxes, retention: 1h}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "apply", p.file, server); code != 0 {
		t.Fatal(stderr)
	}
	if got := collected(); !strings.Contains(got, `"kept": 0`) || !strings.Contains(got, old) || strings.Contains(got, tagged) {
		t.Errorf("gc after the retention of results: %s", got)
	}
	if code, stdout, stderr := command(t, "image", "ls", "-o", "json", server); code != 0 || strings.Contains(stdout, old) || !strings.Contains(stdout, tagged) {
		t.Errorf("image ls: exit %d %s%s", code, stdout, stderr)
	}
}

// dockerKill kills the server while containers run, and starts it without the pool.
func (p *process) dockerKill(d *testkit.Docker, containers func() int) {
	t := p.t
	t.Helper()
	raw, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file, []byte(strings.Replace(string(raw), "min: 0, max: 2", "min: 2, max: 2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "apply", p.file, "--server=http://"+p.addr); code != 0 {
		t.Fatal(stderr)
	}
	ready := func() (n int) {
		var nodes struct{ Items []fleetscore.Node }
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			return 0
		}
		for _, x := range nodes.Items {
			if x.State == fleetscore.NodeIdle {
				n++
			}
		}
		return n
	}
	eventually(t, "two nodes wait for work", func() bool { return ready() == 2 })
	p.kill()
	if n := containers(); n != 2 {
		t.Errorf("%d containers after the kill", n)
	}
	if err := os.WriteFile(p.file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.start()
	eventually(t, "the containers of the killed server are gone", func() bool { return containers() == 0 })
	t.Logf("cleaned up after %s", time.Since(began).Round(time.Second))
}

// TestDockerRefused: a server that may not use an engine refuses pools of containers, with
// the way out; what can't be a container is refused with its line.
func TestDockerRefused(t *testing.T) {
	t.Parallel()
	p := startServer(t, imageYAML)
	for text, want := range map[string]string{
		"{provider: docker, docker: {image: some:v1}}":                     "--docker",
		"{provider: docker}":                                               "needs an image",
		"{provider: local, docker: {image: some:v1}}":                      "belongs to the provider docker",
		"{provider: docker, docker: {image: some:v1, user: root}}":         "isn't root",
		"{provider: docker, docker: {image: some:v1, user: \"0:5\"}}":      "isn't root",
		"{provider: docker, docker: {image: some:v1, memory_mb: 5}}":       "at least 64",
		"{provider: docker, docker: {image: some:v1, python: bin/python}}": "absolute path",
		"{provider: docker, docker: {image: some:v1, environments: opt}}":  "absolute path",
		"{provider: docker, docker: {image: some:v1, cpus: -1}}":           "from 0 to 1024",
		"{provider: docker, docker: {image: some:v1, gpus: -2}}":           "-1 for all",
	} {
		file := filepath.Join(t.TempDir(), "fleet.yaml")
		if err := os.WriteFile(file, []byte(strings.Replace(imageYAML, "{provider: local}", text, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := command(t, "apply", file, "--server=http://"+p.addr); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", text, code, stderr)
		}
	}
}
