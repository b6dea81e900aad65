package testkit

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Docker is a Docker engine of a test's own: its images, containers and networks are
// nobody else's.
type Docker struct {
	Host string // where it listens, as DOCKER_HOST has it
	dir  string
	cmd  *exec.Cmd
}

// StartDocker starts an engine, which ends with the test, as do its containers. It needs
// Linux and root. Without them the test is skipped, or fails with FLEETSCORE_TEST_ALL=1.
func StartDocker(t testing.TB) *Docker {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "a Docker engine", "run the test on Linux as root")
	}
	Tool(t, "dockerd", "docker.io")
	Tool(t, "iptables", "iptables")
	dir, err := os.MkdirTemp("/tmp", "fsdk") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	d := &Docker{Host: "unix://" + filepath.Join(dir, "sock"), dir: dir}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	d.cmd = exec.Command(program("dockerd"), "--host", d.Host, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--bridge", "none", "--shutdown-timeout", "2")
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
		_ = os.RemoveAll(dir)
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it has no other way to say that it listens
		if d.docker("version").Run() == nil {
			return d
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(logFile.Name())
			Missing(t, "a Docker engine", "dockerd ended: "+string(text))
		default:
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(logFile.Name())
			t.Fatalf("dockerd doesn't answer\n%s", text)
		}
	}
}

// docker is docker's own command.
func (d *Docker) docker(args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/docker", args...) // Debian's
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host, "DOCKER_CONFIG="+filepath.Join(d.dir, "config"))
	return cmd
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
