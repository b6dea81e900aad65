package testkit

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Docker is an engine of containers of a test's own: its images, containers and networks are
// nobody else's.
type Docker struct {
	Host string // where it listens, as DOCKER_HOST has it
	dir  string
	env  []string // more variables of the service
	cmd  *exec.Cmd
}

// StartDocker starts an engine, which ends with the test, as do its containers. It needs
// Linux and root. Without them the test is skipped, or fails with FLEETSCORE_TEST_ALL=1.
func StartDocker(t testing.TB) *Docker {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "an engine of containers", "run the test on Linux as root")
	}
	Tool(t, "dockerd", "docker.io")
	Tool(t, "iptables", "iptables")
	d := newEngine(t)
	d.start(t, "dockerd", "--host", d.Host, "--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"),
		"--bridge", "none", "--shutdown-timeout", "2")
	return d
}

// StartPodman starts Podman's service, which speaks the API of a Docker engine, with images
// and containers of its own. It asks the registries that are given without TLS, which Podman
// does with none by itself. All else is as with StartDocker.
func StartPodman(t testing.TB, registries ...string) *Docker {
	t.Helper()
	run := "runc" // as root also on a machine with both versions of cgroups, where Debian's crun starts no container
	if os.Geteuid() != 0 {
		run = "crun"
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil { // only version 2 has it there
			Missing(t, "an engine of containers", "run the test on Linux as root, or on a machine with cgroup version 2")
		}
	}
	for name, debianPackage := range map[string]string{"podman": "--no-install-recommends podman", "catatonit": "catatonit", run: run, "docker": "docker.io"} {
		Tool(t, name, debianPackage)
	}
	d := newEngine(t)
	limits := "" // by default, containers get higher ones than this process may give, where it isn't a true root
	for name, l := range map[string]struct {
		number int
		most   string
	}{"nofile": {unix.RLIMIT_NOFILE, "/proc/sys/fs/nr_open"}, "nproc": {unix.RLIMIT_NPROC, "/proc/sys/kernel/pid_max"}} {
		var have unix.Rlimit
		if err := unix.Getrlimit(l.number, &have); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(l.most) // what Podman lowers its own limit to
		if err != nil {
			t.Fatal(err)
		}
		most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		most = min(most, have.Max)
		limits += fmt.Sprintf("\"%s=%d:%d\", ", name, most, most)
	}
	plain := "unqualified-search-registries = [\"docker.io\"]\n"
	for _, r := range registries {
		plain += fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", r)
	}
	for name, text := range map[string]string{"containers.conf": "[containers]\ndefault_ulimits = [" + limits + "]\n", "registries.conf": plain} {
		file := filepath.Join(d.dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.env = append(d.env, strings.NewReplacer("containers.conf", "CONTAINERS_CONF", "registries.conf", "CONTAINERS_REGISTRIES_CONF").Replace(name)+"="+file)
	}
	storage := []string{"--runtime", run, "--root", filepath.Join(d.dir, "data"), "--runroot", filepath.Join(d.dir, "run"), "--tmpdir", filepath.Join(d.dir, "tmp"), "--events-backend", "file"}
	if os.Geteuid() == 0 { // without root, systemd gives the user's containers their own groups
		storage = append(storage, "--cgroup-manager", "cgroupfs")
	}
	t.Cleanup(func() { // after the service has ended
		_ = Command(t, "umount", filepath.Join(d.dir, "data", "overlay")).Run() // it is mounted only with some kernels
	})
	d.start(t, "podman", append(storage, "system", "service", "--time", "0", d.Host)...)
	return d
}

func newEngine(t testing.TB) *Docker {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fsdk") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Docker{Host: "unix://" + filepath.Join(dir, "sock"), dir: dir}
}

// start runs the engine's service until the test ends.
func (d *Docker) start(t testing.TB, name string, args ...string) {
	t.Helper()
	logFile, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	d.cmd = exec.Command(program(name), args...)
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = logFile, logFile
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(ended) }() // it is told to end below
	t.Cleanup(func() {
		if out, err := d.docker("ps", "-aq").Output(); err == nil {
			if ids := strings.Fields(string(out)); len(ids) > 0 {
				_ = d.docker(append([]string{"rm", "-f"}, ids...)...).Run() // some may have ended
			}
		}
		if out, err := d.docker("network", "ls", "-q", "--filter", "type=custom").Output(); err == nil {
			if ids := strings.Fields(string(out)); len(ids) > 0 {
				_ = d.docker(append([]string{"network", "rm"}, ids...)...).Run() // their interfaces would stay
			}
		}
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = d.cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it has no other way to say that it listens
		if d.docker("version").Run() == nil {
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(logFile.Name())
			Missing(t, name, "it ended: "+string(text))
		default:
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(logFile.Name())
			t.Fatalf("%s doesn't answer\n%s", name, text)
		}
	}
}

// docker is docker's own command.
func (d *Docker) docker(args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/docker", args...) // Debian's
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host, "DOCKER_CONFIG="+filepath.Join(d.dir, "config"))
	return cmd
}

// Login lets docker's own command push to a registry and pull from it. What docker login
// writes is written here, because with Podman docker login wants a registry with TLS.
func (d *Docker) Login(t testing.TB, registry, password string) {
	t.Helper()
	folder := filepath.Join(d.dir, "config")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, registry, base64.StdEncoding.EncodeToString([]byte("me:"+password)))
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Run runs docker's own command and returns what it printed.
func (d *Docker) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.docker(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Fails runs docker's own command, which has to fail, and returns what it printed.
func (d *Docker) Fails(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.docker(args...).CombinedOutput()
	if err == nil {
		t.Fatalf("docker %s succeeded: %s", strings.Join(args, " "), out)
	}
	return string(out)
}

// Input runs docker's own command with something on its standard input.
func (d *Docker) Input(t testing.TB, in []byte, args ...string) string {
	t.Helper()
	cmd := d.docker(args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
