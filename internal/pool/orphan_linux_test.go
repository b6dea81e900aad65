package pool

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// waiting is a process that ends when it is asked to.
func waiting(t *testing.T, env ...string) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	cmd = exec.Command("sleep", "600")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return cmd, ended
}

// remember puts a node of an earlier server into the ledger.
func remember(t *testing.T, l ledger.Ledger, id fleetscore.NodeID, pid int) {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	if _, err := l.UpdateNode(t.Context(), id, func(n *fleetscore.Node) error {
		*n = fleetscore.Node{ID: id, Pool: "cpu", Slots: 1, State: fleetscore.NodeIdle, Host: host, PID: pid, Started: now, Heartbeat: now, IdleSince: now}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyOursAreSignalled: of the processes whose numbers the ledger has from an
// earlier server, only that one is signalled which proves to be the node.
func TestOnlyOursAreSignalled(t *testing.T) {
	p, l, _ := world(t, fleetscore.ScaleConfig{})
	proof, err := p.providers["local"].(*Local).proof("cpu-ours")
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.providers["local"].(*Local).proof("cpu-other")
	if err != nil {
		t.Fatal(err)
	}
	foreign := map[fleetscore.NodeID]*exec.Cmd{}
	var ends []chan error
	for id, env := range map[fleetscore.NodeID][]string{
		"cpu-reused":  os.Environ(), // the number went to a program of somebody else
		"cpu-empty":   {},
		"cpu-crossed": {other}, // a node, yet another one than recorded
		"cpu-named":   {"X=" + strings.TrimPrefix(proof, "FLEETSCORE_NODE_PROOF="), "A" + proof},
	} {
		cmd, ended := waiting(t, env...)
		remember(t, l, id, cmd.Process.Pid)
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil { // so that a signal stays to be seen
			t.Fatal(err)
		}
		for status(t, cmd.Process.Pid, "State") != "T (stopped)" {
			runtime.Gosched()
		}
		foreign[id], ends = cmd, append(ends, ended)
	}
	cmd, ended := waiting(t, "A=b", proof, "C=d")
	remember(t, l, "cpu-ours", cmd.Process.Pid)
	remember(t, l, "cpu-gone", 1<<22-1) // nobody has that number, most likely
	p.stopEarlier()
	select {
	case err := <-ended:
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
			t.Errorf("the node ended with %v, want SIGTERM", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the node wasn't stopped")
		_ = cmd.Process.Kill() // it may have ended
	}
	for id, c := range foreign {
		if pending := status(t, c.Process.Pid, "ShdPnd"); pending != "0000000000000000" {
			t.Errorf("%s: a foreign process was signalled: %s is pending", id, pending)
		}
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	for _, ended := range ends {
		<-ended
	}
}

// status is a field of what the kernel says of a process.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+field+":\t")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}
