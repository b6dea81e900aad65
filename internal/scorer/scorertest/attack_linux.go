package scorertest

import (
	"encoding/json"
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

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// Attacks are what testdata/hostile.py of package scorer/python tries.
var Attacks = []string{"data", "token", "write", "environment", "loopback", "outside", "unix", "trace", "kill", "kernel", "outlive", "disk", "memory"}

// Target is what hostile.py attacks: files, sockets and processes of a test.
type Target struct {
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

	victims []*exec.Cmd
}

// NewTarget makes what is attacked.
func NewTarget(t *testing.T) *Target {
	t.Helper()
	dir := t.TempDir()
	a := &Target{Secret: "s3cret-" + strconv.FormatInt(time.Now().UnixNano(), 36), Data: filepath.Join(dir, "data"), Token: filepath.Join(dir, "token"), Unix: filepath.Join(dir, "socket"),
		Loopback: addressOf(Listener(t, "tcp4", "127.0.0.1:0")), Outside: addressOf(Listener(t, "tcp", net.JoinHostPort(ownAddress(t), "0"))), Disk: 20 << 20}
	Listener(t, "unix", a.Unix)
	a.Marker = "outlives-" + a.Secret
	for file, mode := range map[string]os.FileMode{a.Data: 0o644, a.Token: 0o600} {
		if err := os.WriteFile(file, []byte(a.Secret), mode); err != nil {
			t.Fatal(err)
		}
	}
	a.victims = []*exec.Cmd{victim(t, a.Secret), victim(t, a.Secret)}
	a.Traced, a.Killed = a.victims[0].Process.Pid, a.victims[1].Process.Pid
	return a
}

// JSON is the value of the script's variable ATTACK.
func (a *Target) JSON(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Judge tells of attacks whether they worked, whatever the script believes. It is called once,
// after the processes that attacked were ended.
func (a *Target) Judge(t *testing.T, worked map[string]bool) {
	t.Helper()
	ended(a.victims[0])
	worked["kill"] = ended(a.victims[1])
	outlived := running(t, a.Marker)
	worked["outlive"] = len(outlived) > 0
	for _, pid := range outlived {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Hardened tells of an attack that it fails on this machine whatever we do.
func Hardened(attack string) bool {
	var out []string
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(scope)) != "0" && os.Getuid() != 0 {
		out = append(out, "trace")
	}
	if _, err := unix.AddKey("user", "fleetscore-test", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING); err != nil { // as in many containers
		out = append(out, "kernel")
	}
	return slices.Contains(out, attack)
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

// Listener listens for as long as the test runs.
func Listener(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

// addressOf is the address of a listener for Python.
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

// running are the processes whose arguments hold a text.
func running(t *testing.T, text string) (out []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if args, err := os.ReadFile(f); err == nil && strings.Contains(string(args), text) { // a process may end meanwhile
			pid, err := strconv.Atoi(strings.Split(f, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, pid)
		}
	}
	return out
}
