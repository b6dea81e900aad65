package python_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// attacked is what hostile.py attacks.
type attacked struct {
	Secret   string `json:"secret"`
	Data     string `json:"data"`  // of another job; everybody may read it
	Token    string `json:"token"` // of the node; only its user may read it
	Loopback []any  `json:"loopback"`
	Outside  []any  `json:"outside"` // an address that other machines reach
	Unix     string `json:"unix"`
	Traced   int    `json:"traced"`
	Killed   int    `json:"killed"`
	Marker   string `json:"marker"` // in what outlives
	Disk     int    `json:"disk"`   // bytes that may be written
}

// victim starts a process with a secret in its environment.
func victim(t *testing.T, secret string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Env = []string{"NODE_SECRET=" + secret}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// ended ends a process and tells whether it had been killed before.
func ended(cmd *exec.Cmd) bool {
	_ = cmd.Process.Signal(syscall.SIGTERM) // an error says that it was ended and waited for
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// listener listens, and gives its address for Python.
func listener(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

func addressOf(l net.Listener) []any {
	a := l.Addr().(*net.TCPAddr)
	return []any{a.IP.String(), a.Port}
}

// ownAddress is an address of this machine that others reach.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	testkit.Missing(t, "a network", "this machine has no address that others reach")
	return ""
}

// left are the processes whose arguments hold a text.
func left(t *testing.T, text string) (out []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if args, err := os.ReadFile(f); err == nil && strings.Contains(string(args), text) { // a process may end meanwhile
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}

// hardened are attacks that fail on this machine whatever we do.
func hardened() (out []fleetscore.Key) {
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(scope)) != "0" && os.Getuid() != 0 {
		out = append(out, "trace")
	}
	if _, err := unix.AddKey("user", "fleetscore-test", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING); err != nil { // as in many containers
		out = append(out, "kernel")
	}
	return out
}

// TestHostileScripts: what scripts and models try against other jobs, the node and the
// machine fails in an isolated process, and works in one that isn't.
func TestHostileScripts(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	attacks := []fleetscore.Key{"data", "token", "write", "environment", "loopback", "outside", "unix", "trace", "kill", "kernel", "outlive", "disk", "memory"}
	for name, isolated := range map[string]bool{"isolated": true, "not isolated": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a := attacked{Secret: "s3cret-" + strconv.FormatInt(time.Now().UnixNano(), 36), Data: filepath.Join(dir, "data"), Token: filepath.Join(dir, "token"), Unix: filepath.Join(dir, "socket"),
				Loopback: addressOf(listener(t, "tcp4", "127.0.0.1:0")), Outside: addressOf(listener(t, "tcp", net.JoinHostPort(ownAddress(t), "0"))), Disk: 20 << 20}
			listener(t, "unix", a.Unix)
			a.Marker = "outlives-" + a.Secret
			for file, mode := range map[string]os.FileMode{a.Data: 0o644, a.Token: 0o600} {
				if err := os.WriteFile(file, []byte(a.Secret), mode); err != nil {
					t.Fatal(err)
				}
			}
			traced, killed := victim(t, a.Secret), victim(t, a.Secret)
			a.Traced, a.Killed = traced.Process.Pid, killed.Process.Pid
			target, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			script, err := filepath.Abs(filepath.Join("testdata", "hostile.py"))
			if err != nil {
				t.Fatal(err)
			}
			cfg := python.Config{Python: interpreter, Script: script, Env: []string{"ATTACK=" + string(target)}, DiskBytes: int64(a.Disk)}
			if isolated {
				cfg.Sandbox = box
			}
			pool, err := python.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var log journal
			spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool, Log: log.printf}
			got, err := scorer.Score(t.Context(), spec, rowsOf(attacks, [][]float64{{1, 2}}), attacks, nothing{})
			if err != nil {
				t.Fatal(err)
			}
			if err := pool.Close(); err != nil {
				t.Fatal(err)
			}
			worked := map[fleetscore.Key]bool{}
			for i, k := range got.Predictions.KeyIndex {
				worked[got.Predictions.Keys[k]] = got.Predictions.Prediction[i] == 1
			}
			ended(traced)
			worked["kill"] = ended(killed) // whatever the script believes
			outlived := left(t, a.Marker)
			worked["outlive"] = len(outlived) > 0
			for _, pid := range outlived {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			for _, it := range got.Items {
				if it.Outcome != fleetscore.Scored {
					t.Errorf("%s ended %s: %s", it.Key, it.Outcome, it.Reason)
				}
				if !isolated && slices.Contains(hardened(), it.Key) {
					continue
				}
				if worked[it.Key] == isolated {
					t.Errorf("attack %s: worked is %v\n%s", it.Key, worked[it.Key], log.String())
				}
			}
		})
	}
}

// TestHostileModels: a pickle whose code runs while it is loaded reaches neither the network
// nor other files from an isolated process, and does from one that isn't.
func TestHostileModels(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	for name, use := range map[string]*sandbox.Sandbox{"isolated": box, "not isolated": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, models, stolen := listener(t, "tcp4", "127.0.0.1:0"), t.TempDir(), filepath.Join(t.TempDir(), "stolen")
			for sensor, code := range map[string]string{
				"network": fmt.Sprintf("import socket; socket.create_connection(('127.0.0.1', %d)).close()", l.Addr().(*net.TCPAddr).Port),
				"file":    fmt.Sprintf("open(%q, 'w').close()", stolen),
			} {
				size := binary.LittleEndian.AppendUint32(nil, uint32(len(code)))
				pickle := "\x80\x02cbuiltins\nexec\nX" + string(size) + code + "\x85R." // exec(code), in the language of pickles
				if err := os.WriteFile(filepath.Join(models, sensor), []byte(pickle), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pool := newPool(t, python.Config{Python: interpreter, Sandbox: use})
			keys := []fleetscore.Key{"file", "network"}
			spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool}
			got, err := scorer.Score(t.Context(), spec, rowsOf(keys, [][]float64{{1, 2}}), keys, folder(models))
			if err != nil {
				t.Fatal(err)
			}
			for i, why := range []string{"No such file", "PermissionError"} {
				if it := got.Items[i]; it.Outcome != fleetscore.Failed || (use != nil) != strings.Contains(it.Reason, why) {
					t.Errorf("%s ended %s: %s", it.Key, it.Outcome, it.Reason)
				}
			}
			if _, err := os.Stat(stolen); (err == nil) != (use == nil) {
				t.Errorf("the file was written: %v", err == nil)
			}
			if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if (err == nil) != (use == nil) {
				t.Errorf("it connected: %v", err == nil)
			}
			if err == nil {
				c.Close()
			}
		})
	}
}

// nothing is models that scripts don't need.
type nothing struct{ folder }

// Original implements scorer.Originals.
func (nothing) Original(_ context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	return nil, k.String(), fleetscore.Digest{}, nil
}
