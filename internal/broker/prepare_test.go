package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
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

// TestPreempted: a node of low priority that is gone without a word, or that its machine
// told to end, was preempted; a dedicated node never is, nor one that the pool drained. Its
// task is queued again and has used up no try.
func TestPreempted(t *testing.T) {
	t.Parallel()
	w := open(t)
	t.Cleanup(func() {
		if err := w.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	b, err := New(Config{LostAfter: time.Minute}, Deps{Ledger: w.ledger, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for id, kind := range map[fleetscore.NodeID]fleetscore.NodeKind{"silent": fleetscore.LowPriority, "told": fleetscore.LowPriority, "drained": fleetscore.LowPriority, "dedicated": ""} {
		if _, err := b.Register(ctx, dispatch.Hello{Node: id, Pool: "cpu", Slots: 1, PID: 7, Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Register(ctx, dispatch.Hello{Node: "odd", Pool: "cpu", Slots: 1, Kind: "spot"}); !fleetscore.Invalid.Is(err) {
		t.Errorf("a node of another kind: %v, want kind invalid", err)
	}
	if err := ledgertest.Queue(ctx, w.ledger, fleetscore.Job{ID: "j", Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 1}}}, 1); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Lease(ctx, "silent", dispatch.LeaseRequest{Free: 1}); err != nil || len(got.Leases) != 1 {
		t.Fatalf("leases %+v, %v", got, err)
	}
	if err := w.ledger.SetNodeState(ctx, "drained", fleetscore.NodeDraining); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Heartbeat(ctx, "told", dispatch.HeartbeatRequest{Ending: true}); err != nil {
		t.Fatal(err)
	}
	w.clock.Add((2 * time.Minute).Microseconds())
	if _, err := b.tend(ctx); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[fleetscore.NodeID]bool{"silent": true, "told": true, "drained": false, "dedicated": false} {
		n, err := w.ledger.Node(ctx, id)
		if err != nil || n.State != fleetscore.NodeLost || n.Preempted() != want {
			t.Errorf("%s is %s, reason %q, %v; preempted should be %v", id, n.State, n.Reason, err, want)
		}
	}
	tasks, err := w.ledger.Tasks(ctx, "j")
	if err != nil || len(tasks) != 1 || tasks[0].State != fleetscore.TaskQueued || tasks[0].Failures != 0 || tasks[0].NodeKind != fleetscore.LowPriority {
		t.Errorf("the task is %+v, %v; want it queued again, with its only try left", tasks, err)
	}
}
