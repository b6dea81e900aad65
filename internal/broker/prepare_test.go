package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// TestPrepare: a node of a pool with a setup command takes tasks only after the command
// has succeeded, also if the node registers again; a node on which it failed is unusable,
// with the reason and what the command wrote, and its goodbye doesn't hide that.
func TestPrepare(t *testing.T) {
	t.Parallel()
	w := open(t)
	kept := make(chan string, 2)
	t.Cleanup(w.run(Deps{Ledger: w.ledger, Now: w.now, KeepOutput: func(_ context.Context, pool string, node fleetscore.NodeID, text []byte) error {
		kept <- fmt.Sprintf("%s/%s: %s", pool, node, text)
		return nil
	}}))
	ctx := t.Context()
	setup := &fleetscore.SetupConfig{Command: []string{"prepare"}}
	if _, err := w.ledger.PutConfig(ctx, day, "text", fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: 1, Setup: setup}}}); err != nil {
		t.Fatal(err)
	}
	hello := func(id fleetscore.NodeID, prepared bool) dispatch.Welcome {
		t.Helper()
		got, err := w.Register(ctx, dispatch.Hello{Node: id, Pool: "cpu", Slots: 1, PID: 7, Prepared: prepared})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	state := func(id fleetscore.NodeID) fleetscore.Node {
		t.Helper()
		n, err := w.ledger.Node(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := hello("good", false); got.State != fleetscore.NodePreparing || got.Setup == nil || got.Setup.Command[0] != "prepare" || !got.Ready.IsZero() {
		t.Errorf("a new node is %+v with %+v", got.Node, got.Setup)
	}
	if _, err := w.Lease(ctx, "good", dispatch.LeaseRequest{Free: 1}); !fleetscore.NotFound.Is(err) {
		t.Errorf("a node that isn't prepared asks for tasks: %v", err)
	}
	w.clock.Add(time.Minute.Microseconds())
	if _, err := w.Heartbeat(ctx, "good", dispatch.HeartbeatRequest{}); err != nil {
		t.Errorf("a sign of life while it is prepared: %v", err)
	}
	if err := w.Prepared(ctx, "good", dispatch.Preparation{Output: []byte("done")}); err != nil {
		t.Fatal(err)
	}
	if n := state("good"); n.State != fleetscore.NodeIdle || n.Ready.Sub(n.Registered) != time.Minute {
		t.Errorf("the prepared node is %+v", n)
	}
	if got := hello("good", true); got.State != fleetscore.NodeIdle || got.Setup != nil {
		t.Errorf("a prepared node that registers again is %s with %+v", got.State, got.Setup)
	}
	hello("bad", false)
	long := strings.Repeat("x", 3000) + "\nno such package\n"
	if err := w.Prepared(ctx, "bad", dispatch.Preparation{Error: "exit status 3", Output: []byte(long)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Goodbye(ctx, "bad"); err != nil {
		t.Fatal(err)
	}
	if n := state("bad"); n.State != fleetscore.NodeUnusable || n.Reason != "exit status 3" || !strings.HasSuffix(n.LogTail, "no such package\n") || len(n.LogTail) != maxLogTail {
		t.Errorf("the node whose setup failed is %+v", n)
	}
	for _, want := range []string{"cpu/good: done", "cpu/bad: " + long} {
		if got := <-kept; got != want {
			t.Errorf("%.40q was kept, want %.40q", got, want)
		}
	}
	for _, id := range []fleetscore.NodeID{"bad", "nobody"} { // it was given up; it was never there
		if err := w.Prepared(ctx, id, dispatch.Preparation{}); !fleetscore.NotFound.Is(err) {
			t.Errorf("%s is prepared: %v, want kind not found", id, err)
		}
	}
}
