package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/pool/pooltest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.BeNode()
	switch os.Getenv(testkit.NodeVariable) {
	case "greedy":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			if len(all) == 1<<20 {
				fmt.Println("there is no limit")
				os.Exit(0)
			}
		}
	case "late": // it hears nothing in its first second
		begun, stop := time.Now(), make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		for range stop {
			if time.Since(begun) > time.Second {
				os.Exit(0)
			}
		}
	case "curious":
		curious()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// tokens are the credentials of nodes that exist.
type tokens struct {
	mu  sync.Mutex
	all map[fleetscore.NodeID]bool
}

func (k *tokens) set(id fleetscore.NodeID, there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all[id] = there; !there {
		delete(k.all, id)
	}
}

func (k *tokens) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}

// engine is an engine with one image, and a provider for it.
func provider(t *testing.T, host, behaviour string, c fleetscore.DockerConfig) (*Docker, *tokens) {
	t.Helper()
	keep := &tokens{all: map[fleetscore.NodeID]bool{}}
	socket := t.TempDir()
	if err := os.Chmod(socket, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Host: host, Folder: filepath.Join(t.TempDir(), "nodes"), Socket: socket, Owner: strings.ToLower(t.Name()), Env: []string{testkit.NodeVariable + "=" + behaviour}},
		Deps{Pool: func(context.Context, string) (fleetscore.PoolConfig, error) {
			return fleetscore.PoolConfig{Provider: "docker", Docker: &c}, nil
		},
			Token: func(_ context.Context, id fleetscore.NodeID) (string, error) {
				keep.set(id, true)
				return "secret of " + string(id), nil
			},
			Forget: func(_ context.Context, id fleetscore.NodeID) error { keep.set(id, false); return nil },
			Login:  func(context.Context, string) (Login, func(), error) { return Login{}, func() {}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, keep
}

// empty gives an engine an image without any program: the agent brings what it needs.
func empty(t *testing.T, engine *testkit.Docker) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	engine.Input(t, b.Bytes(), "import", "-", "empty:v1")
}

func node(name string) fleetscore.Node {
	return fleetscore.Node{ID: fleetscore.NodeID(name), Pool: "cpu", Slots: 1, Kind: fleetscore.Dedicated}
}

// TestDocker runs the suite of all providers, and what is special of containers, on a Docker
// engine.
func TestDocker(t *testing.T) {
	t.Parallel()
	testEngine(t, func(string) *testkit.Docker { return testkit.StartDocker(t) }, "could not select device driver")
}

// TestPodman does the same on Podman's service.
func TestPodman(t *testing.T) {
	t.Parallel()
	testEngine(t, func(registry string) *testkit.Docker { return testkit.StartPodman(t, registry) }, "Podman doesn't hand on")
}

// testEngine tests an engine that may ask a registry without TLS, and says what noGPU is if
// GPUs are wanted from a machine that has none.
func testEngine(t *testing.T, start func(registry string) *testkit.Docker, noGPU string) {
	private := httptest.NewUnstartedServer(nil)
	defer private.Close()
	engine := start(private.Listener.Addr().String())
	empty(t, engine)
	image := fleetscore.DockerConfig{Image: "empty:v1"}
	t.Run("provider", func(t *testing.T) {
		pooltest.Run(t, func(t *testing.T, b pooltest.Behaviour) pool.Provider {
			host := engine.Host
			if b == pooltest.Missing {
				host = "unix:///nowhere/docker.sock"
			}
			d, keep := provider(t, host, string(b), image)
			t.Cleanup(func() {
				if n := keep.count(); n > 0 {
					t.Errorf("%d credentials are left", n)
				}
			})
			return d
		})
	})
	if left := strings.TrimSpace(engine.Run(t, "ps", "-aq")); left != "" {
		t.Errorf("containers are left: %s", left)
	}
	t.Run("an unknown image", func(t *testing.T) {
		d, _ := provider(t, engine.Host, "obedient", fleetscore.DockerConfig{Image: "127.0.0.1:1/none:v1"})
		r, err := d.Start(t.Context(), node("cpu-1"))
		if err != nil {
			t.Fatal(err)
		}
		if e := r.Wait(); e.Err == nil || !strings.Contains(e.Err.Error(), "pull image 127.0.0.1:1/none:v1") {
			t.Errorf("%v", e.Err)
		}
	})
	t.Run("too much memory", func(t *testing.T) {
		d, _ := provider(t, engine.Host, "greedy", fleetscore.DockerConfig{Image: "empty:v1", MemoryMB: 64})
		r, err := d.Start(t.Context(), node("cpu-1"))
		if err != nil {
			t.Fatal(err)
		}
		if e := r.Wait(); e.Err == nil || !strings.Contains(e.Err.Error(), "docker.memory_mb") {
			t.Errorf("%v, %s", e.Err, e.Output)
		}
	})
	t.Run("GPUs that aren't there", func(t *testing.T) { // the request comes as far as the engine
		d, _ := provider(t, engine.Host, "obedient", fleetscore.DockerConfig{Image: "empty:v1", GPUs: 2})
		r, err := d.Start(t.Context(), node("cpu-1"))
		if err != nil {
			t.Fatal(err)
		}
		if e := r.Wait(); e.Err == nil || !strings.Contains(e.Err.Error(), noGPU) {
			t.Errorf("%v", e.Err)
		}
	})
	t.Run("a mount that can't be used", func(t *testing.T) {
		d, keep := provider(t, engine.Host, "obedient", image)
		d.deps.Mounts = func(context.Context, string) ([]fleetscore.Mount, error) {
			return []fleetscore.Mount{{Name: "in"}, {Name: "away"}}, nil
		}
		d.deps.CheckMount = func(_ context.Context, m fleetscore.Mount) error {
			if m.Name == "away" {
				return errors.New("its file server is away")
			}
			return nil
		}
		r, err := d.Start(t.Context(), node("cpu-1"))
		if err != nil {
			t.Fatal(err)
		}
		if e := r.Wait(); !e.Unusable || fmt.Sprint(e.Err) != "its file server is away" || keep.count() != 0 {
			t.Errorf("%+v, %d credentials", e, keep.count())
		}
	})
	t.Run("a signal that comes too early", func(t *testing.T) {
		d, _ := provider(t, engine.Host, "late", fleetscore.DockerConfig{Image: "empty:v1"})
		d.settled = 3 * time.Second
		r, err := d.Start(t.Context(), node("cpu-1"))
		if err != nil {
			t.Fatal(err)
		}
		r.Stop()
		hurry := time.AfterFunc(30*time.Second, r.Kill)
		defer hurry.Stop()
		if e := r.Wait(); errors.Is(e.Err, errKilled) { // another error is that it ended before it knew how to
			t.Error("it ran on")
		}
	})
	t.Run("leftovers", func(t *testing.T) { testLeftovers(t, engine, image) })
	t.Run("a private registry", func(t *testing.T) { testPrivate(t, engine, private) })
	t.Run("isolation", func(t *testing.T) { testIsolation(t, engine) })
}

// testLeftovers: what a killed server left is found by its labels; a node that still works
// is kept, what belongs to others isn't touched.
func testLeftovers(t *testing.T, engine *testkit.Docker, image fleetscore.DockerConfig) {
	former, keep := provider(t, engine.Host, "deaf", image)
	var all []pool.Running
	for _, name := range []string{"cpu-works", "cpu-lost"} {
		r, err := former.Start(t.Context(), node(name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	t.Cleanup(func() {
		for _, r := range all {
			r.Kill()
			if e := r.Wait(); t.Failed() {
				t.Logf("%v %s", e.Err, e.Output)
			}
		}
	})
	engine.Run(t, "create", "--name", "alien", "--label", nodeLabel+"=cpu-lost", "empty:v1", "/nothing")
	running := func() string {
		names := strings.Fields(engine.Run(t, "ps", "-a", "--filter", "status=running", "--format", "{{.Names}}"))
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	for end := time.Now().Add(30 * time.Second); running() != "fleetscore-cpu-lost fleetscore-cpu-works"; time.Sleep(20 * time.Millisecond) { // the engine is asked again
		if time.Now().After(end) {
			t.Fatalf("running: %s", running())
		}
	}
	next := &Docker{cfg: former.cfg, deps: former.deps, log: former.log, api: former.api, nodes: map[fleetscore.NodeID]bool{}}
	if err := next.Sweep(t.Context(), func(_ context.Context, id fleetscore.NodeID) (bool, error) { return id == "cpu-works", nil }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(engine.Run(t, "ps", "-a", "--format", "{{.Names}}")); !slices.Contains(got, "alien") || !slices.Contains(got, "fleetscore-cpu-works") || slices.Contains(got, "fleetscore-cpu-lost") {
		t.Errorf("left: %q", got)
	}
	if keep.count() != 1 {
		t.Errorf("%d credentials", keep.count())
	}
	if err := next.StopEarlier(t.Context(), node("cpu-works")); err != nil { // it is deaf
		t.Error(err)
	}
	if err := next.StopEarlier(t.Context(), node("cpu-lost")); !fleetscore.NotFound.Is(err) {
		t.Errorf("%v", err)
	}
	engine.Run(t, "rm", "alien")
}

// TestRequest: what the engine is asked for, also what the machine of the test doesn't
// have.
func TestRequest(t *testing.T) {
	t.Parallel()
	d := &Docker{cfg: Config{Executable: "/bin/agent", Folder: "/run/nodes", Socket: "/run/server", Owner: "me"}}
	o := d.options(node("cpu-1"), fleetscore.DockerConfig{Image: "some:v1", CPUs: 1.5, MemoryMB: 512, Processes: 100, GPUs: -1, User: "1000:1000"}, false)
	h := o.HostConfig
	if len(h.DeviceRequests) != 1 || h.DeviceRequests[0].Count != -1 || fmt.Sprint(h.DeviceRequests[0].Capabilities) != "[[gpu]]" {
		t.Errorf("GPUs: %+v", h.DeviceRequests)
	}
	if h.NanoCPUs != 15e8 || h.Memory != 512<<20 || h.MemorySwap != h.Memory || *h.PidsLimit != 100 || o.Config.User != "1000:1000" {
		t.Errorf("limits: %+v, user %s", h.Resources, o.Config.User)
	}
	if !h.ReadonlyRootfs || h.NetworkMode != "none" || fmt.Sprint(h.CapDrop, h.SecurityOpt) != "[ALL] [no-new-privileges]" || h.Privileged {
		t.Errorf("isolation: %+v", h)
	}
	for _, m := range h.Mounts {
		if !m.ReadOnly {
			t.Errorf("%s can be written to", m.Target)
		}
	}
	if o = d.options(node("cpu-1"), fleetscore.DockerConfig{Image: "some:v1"}, false); len(o.HostConfig.DeviceRequests) != 0 || o.Config.User != defaultUser || *o.HostConfig.PidsLimit != defaultProcesses {
		t.Errorf("defaults: %+v", o)
	}
	writable := false
	o = d.options(node("cpu-1"), fleetscore.DockerConfig{Image: "some:v1"}, false, fleetscore.Mount{MountConfig: fleetscore.MountConfig{Path: "/mnt/in"}}, fleetscore.Mount{MountConfig: fleetscore.MountConfig{Path: "/mnt/out", ReadOnly: &writable}})
	if m := o.HostConfig.Mounts[len(o.HostConfig.Mounts)-2:]; m[0].Source != "/mnt/in" || m[0].Target != "/mnt/in" || !m[0].ReadOnly || m[1].Source != "/mnt/out" || m[1].ReadOnly {
		t.Errorf("mounts: %+v", m)
	}
	for _, v := range o.Config.Env {
		if strings.Contains(v, "secret") {
			t.Errorf("environment: %s", v)
		}
	}
	_ = client.ContainerCreateOptions(o)
}
