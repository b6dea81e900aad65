package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// starts makes the test's own program start a program in a sandbox, and wait.
const starts = "FLEETSCORE_TEST_STARTS"

func TestMain(m *testing.M) {
	sandbox.Main()
	if dir := os.Getenv(starts); dir != "" {
		starter(dir)
	}
	goleak.VerifyTestMain(m)
}

// whole is how this machine isolates, which must have namespaces.
func whole(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	s := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if states := s.States(); !s.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", states[0].Detail)
	}
	return s
}

// TestPromises: all promises hold with all layers. Without namespaces all hold that
// Landlock and seccomp can keep, and without anything none holds: the probe finds what is
// possible.
func TestPromises(t *testing.T) {
	t.Parallel()
	whole(t)
	for name, c := range map[string]struct {
		without []sandbox.Layer
		broken  []sandbox.Promise
	}{
		"whole":              {nil, nil},
		"without landlock":   {[]sandbox.Layer{sandbox.Landlock}, nil},
		"without seccomp":    {[]sandbox.Layer{sandbox.Seccomp}, nil},
		"without namespaces": {[]sandbox.Layer{sandbox.Namespaces}, []sandbox.Promise{sandbox.Disk}},
		"landlock alone":     {[]sandbox.Layer{sandbox.Namespaces, sandbox.Seccomp}, []sandbox.Promise{sandbox.Network, sandbox.Lifetime, sandbox.Disk}},
		"nothing":            {sandbox.Layers, sandbox.Promises},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe", Without: c.without})
			if !slices.Contains(c.without, sandbox.Landlock) && !strings.Contains(s.States()[1].Detail, "signals") {
				testkit.Missing(t, "Landlock of Linux 6.12", s.States()[1].Detail)
			}
			found, err := s.Probe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var broken []sandbox.Promise
			for _, f := range found {
				if !f.Holds {
					broken = append(broken, f.Promise)
				}
			}
			if !slices.Equal(broken, c.broken) {
				t.Errorf("broken are %v, want %v:\n%+v", broken, c.broken, found)
			}
			for _, st := range s.States() {
				if st.InForce == slices.Contains(c.without, st.Layer) {
					t.Errorf("layer %+v, without %v", st, c.without)
				}
			}
		})
	}
}

// TestPromisesToAnOrdinaryUser: the promises hold where root has nothing to do with it. No
// other test runs beside it, whose new processes would hold the program that it writes.
func TestPromisesToAnOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user; TestPromises tries the same promises as this ordinary user")
	}
	// Another user can't reach this test's program: it gets a copy.
	dir, err := os.MkdirTemp("", "fleetscore-sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "test")
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := testkit.Command(t, program, "-test.run=^(TestPromises|TestProgram|TestLimits)$", "-test.v")
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin", "FLEETSCORE_TEST_ALL=" + os.Getenv("FLEETSCORE_TEST_ALL")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPromises/whole") && !strings.Contains(string(out), "SKIPPED") {
		t.Fatalf("as the user 65533: %v\n%s", err, out)
	}
}

// run runs a shell's command in a sandbox, and gives what it prints and how it ended.
func run(t *testing.T, s *sandbox.Sandbox, spec sandbox.Spec, command string) (string, sandbox.Exit, error) {
	t.Helper()
	var out bytes.Buffer
	spec.Path, spec.Args, spec.Stdout, spec.Stderr = "/bin/sh", []string{"sh", "-c", command}, &out, &out
	if spec.Dir == "" {
		spec.Dir = t.TempDir()
	}
	spec.WorkDir = spec.Dir
	p, err := s.Prepare(spec)
	if err != nil {
		t.Fatal(err)
	}
	err = p.Cmd.Start()
	p.Started(err)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait()
	return out.String(), exit, err
}

// TestProgram: a program gets its descriptors, variables and folders; its exit code, or
// the signal that ended it, are told.
func TestProgram(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*sandbox.Sandbox{"isolated": whole(t), "plain": nil, "without namespaces": sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe", Without: []sandbox.Layer{sandbox.Namespaces}})} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Beside /tmp, where the program's own folder may hide others.
			read, err := os.MkdirTemp("/var/tmp", "fleetscore-sandbox-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(read) })
			if err := os.Chmod(read, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(read, "input"), []byte("given\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			in, far, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := far.WriteString("sent\n"); err != nil {
				t.Fatal(err)
			}
			far.Close()
			defer in.Close()
			own, err := os.MkdirTemp("/var/tmp", "fleetscore-sandbox-test-") // an own folder that isn't in /tmp
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(own) })
			spec := sandbox.Spec{Dir: own, Env: []string{"NAME=value", "PATH=/usr/bin:/bin"}, Files: []*os.File{in}, Read: []string{read}}
			out, exit, err := run(t, s, spec, "echo $NAME; cat <&3; cat "+read+"/input; echo made > own; cat own; exit 3")
			if want := "value\nsent\ngiven\nmade\n"; out != want || exit.Code != 3 || exit.Signal != 0 || err != nil {
				t.Errorf("printed %q and ended with %+v, %v; want %q and exit code 3", out, exit, err, want)
			}
			if _, exit, err := run(t, s, sandbox.Spec{}, "kill -KILL $$"); exit.Signal != syscall.SIGKILL || err != nil {
				t.Errorf("it ended with %+v, %v; want SIGKILL", exit, err)
			}
			if s == nil {
				return
			}
			if out, exit, _ := run(t, s, spec, "echo x > "+read+"/input"); exit.Code == 0 {
				t.Errorf("a file that it may read was written: %q", out)
			}
			if !s.Has(sandbox.Namespaces) {
				return // the program can't list its open files
			}
			// A file that whoever started this process left open, such as a lock of a shell.
			inherited, err := syscall.Dup(int(in.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Close(inherited)
			if out, exit, err := run(t, s, sandbox.Spec{}, "ls /proc/self/fd"); out != "0\n1\n2\n3\n" || exit.Code != 0 || err != nil { // 3 is the folder that is listed
				t.Errorf("it has the open files %q, %+v, %v", out, exit, err)
			}
		})
	}
}

func starter(dir string) {
	s := sandbox.New(context.Background(), sandbox.Config{Exe: "/proc/self/exe"})
	p, err := s.Prepare(sandbox.Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "setsid sleep 600 & echo started; sleep 600"}, Env: []string{"PATH=/usr/bin:/bin"}, WorkDir: dir, Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr})
	if err == nil {
		runtime.LockOSThread()
		err = p.Cmd.Start()
		p.Started(err)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, err = p.Wait()
	fmt.Println(err)
	os.Exit(1)
}

// TestEndsWithItsStarter: when a node is killed, nothing of what its programs started goes on.
func TestEndsWithItsStarter(t *testing.T) {
	t.Parallel()
	whole(t)
	if _, err := exec.LookPath("setsid"); err != nil {
		testkit.Missing(t, "the program setsid", "install util-linux")
	}
	held, far, err := os.Pipe() // whoever lives holds its end
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	node := testkit.Command(t, "/proc/self/exe")
	node.Env = append(os.Environ(), starts+"="+t.TempDir())
	node.Stdout, node.Stderr = far, far
	err = node.Start()
	far.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := held.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("started\n"))
	if _, err := io.ReadFull(held, line); err != nil || string(line) != "started\n" {
		t.Fatalf("it printed %q, %v", line, err)
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait() // its status is the kill's
	if rest, err := io.ReadAll(held); err != nil || len(rest) > 0 {
		t.Errorf("its programs go on: %v, %q", err, rest)
	}
}

// TestLimits: a program can't start processes without end, gets no memory beside what is
// counted, and can't show itself a folder that holds others' files.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := whole(t)
	const fork = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do sleep 100 & done; echo all"
	if out, _, err := run(t, s, sandbox.Spec{Processes: 24}, fork); err != nil || strings.Contains(out, "all") {
		t.Errorf("30 processes were started where 24 are allowed: %q, %v", out, err)
	}
	if out, _, err := run(t, s, sandbox.Spec{Processes: 60}, fork); err != nil || !strings.Contains(out, "all") {
		t.Errorf("30 processes can't be started where 60 are allowed: %q, %v", out, err)
	}
	dir := t.TempDir()
	if _, _, err := run(t, s, sandbox.Spec{Dir: dir, Read: []string{filepath.Dir(dir)}}, "true"); err == nil || !strings.Contains(err.Error(), "can't be shown") {
		t.Errorf("a folder around its own was shown: %v", err)
	}
	if _, err := exec.LookPath("unshare"); err == nil {
		if out, exit, _ := run(t, s, sandbox.Spec{}, "unshare -Ur true"); exit.Code == 0 {
			t.Errorf("it made a namespace of its own: %q", out)
		}
	}
}
