package broker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
)

// TestMeasureMount: the nodes of a pool that run are told to measure once, by a sign of life,
// and their answers are collected; a node that doesn't answer is said to be unusable. A
// pool's nodes and a job's leases are told of their mounts.
func TestMeasureMount(t *testing.T) {
	t.Parallel()
	w := open(t)
	t.Cleanup(func() {
		if err := w.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	b, err := New(Config{}, Deps{Ledger: w.ledger, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	m := fleetscore.Mount{Name: "history", MountConfig: fleetscore.MountConfig{Path: "/mnt/history"}}
	cfg := fleetscore.Config{Mounts: map[string]fleetscore.MountConfig{m.Name: m.MountConfig}, Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: 1, Mounts: []string{m.Name}}, "idle": {}}}
	if _, err := w.ledger.PutConfig(ctx, day, "text", cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := b.MeasureMount(ctx, "cpu", dispatch.MountOrder{Mount: m}); !fleetscore.NotFound.Is(err) {
		t.Errorf("a pool without nodes: %v, want kind not found", err)
	}
	for _, id := range []fleetscore.NodeID{"quick", "slow", "mute"} {
		got, err := b.Register(ctx, dispatch.Hello{Node: id, Pool: "cpu", Slots: 1, PID: 7, Host: "h-" + string(id)})
		if err != nil || got.State != fleetscore.NodePreparing || len(got.Mounts) != 1 || got.Mounts[0].Path != "/mnt/history" {
			t.Fatalf("a new node of a pool with mounts: %+v, %v", got, err)
		}
		if err := b.Prepared(ctx, id, dispatch.Preparation{}); err != nil {
			t.Fatal(err)
		}
	}
	limited, cancel := context.WithCancel(ctx)
	type answer struct {
		reports []fleetscore.MountReport
		err     error
	}
	done := make(chan answer, 1)
	go func() {
		r, err := b.MeasureMount(limited, "cpu", dispatch.MountOrder{Mount: m, Files: 7})
		done <- answer{r, err}
	}()
	beat := func(id fleetscore.NodeID, say ...dispatch.MountMeasured) []dispatch.MountOrder {
		t.Helper()
		r, err := b.Heartbeat(ctx, id, dispatch.HeartbeatRequest{Measured: say})
		if err != nil {
			t.Fatal(err)
		}
		return r.Measure
	}
	var orders []dispatch.MountOrder
	for limit := time.Now().Add(10 * time.Second); len(orders) == 0 && time.Now().Before(limit); {
		orders = beat("quick")
	}
	if len(orders) != 1 || orders[0].Files != 7 || orders[0].Mount.Path != "/mnt/history" {
		t.Fatalf("the node was told %+v", orders)
	}
	if again := beat("quick"); len(again) != 0 {
		t.Errorf("the node was told again: %+v", again)
	}
	if got := beat("slow"); len(got) != 1 {
		t.Errorf("the other node was told %+v", got)
	}
	beat("quick", dispatch.MountMeasured{ID: orders[0].ID, Report: fleetscore.MountReport{Node: "slow", ReadBytes: 5, Verdict: fleetscore.MountGood}})
	beat("mute", dispatch.MountMeasured{ID: "unknown"}, dispatch.MountMeasured{ID: orders[0].ID, Report: fleetscore.MountReport{ReadBytes: 9}}) // it was told by this very heartbeat, not before
	cancel()
	got := <-done
	if got.err != nil || len(got.reports) != 3 {
		t.Fatalf("the answer is %+v, %v", got.reports, got.err)
	}
	if r := got.reports[1]; r.Node != "quick" || r.Host != "h-quick" || r.Mount != "history" || r.ReadBytes != 5 || r.Verdict != fleetscore.MountGood {
		t.Errorf("the node that answered: %+v", r)
	}
	for _, r := range []fleetscore.MountReport{got.reports[0], got.reports[2]} {
		if r.Verdict != fleetscore.MountUnusable || !strings.Contains(r.Advice, "hasn't answered in time") || r.ReadBytes != 0 {
			t.Errorf("a node that didn't answer: %+v", r)
		}
	}

	for name, want := range map[string]string{"history": "", "gone": "the mount gone isn't described under mounts any more"} {
		if err := ledgertest.Queue(ctx, w.ledger, fleetscore.Job{ID: fleetscore.JobID("j-" + name), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu", Mounts: []string{name}, Limits: fleetscore.LimitsConfig{Tries: 1}}}, 1); err != nil {
			t.Fatal(err)
		}
		l, err := b.Lease(ctx, "quick", dispatch.LeaseRequest{Free: 1})
		if err != nil || len(l.Leases) != 1 || !strings.Contains(l.Leases[0].Refused, want) || (want == "") != (l.Leases[0].Refused == "") || (want == "") != (len(l.Leases[0].Mounts) == 1) {
			t.Errorf("mount %s: leases %+v, %v", name, l, err)
		}
		if err := b.Complete(ctx, l.Leases[0].ID, dispatch.Result{Error: "enough", Kind: "invalid"}); err != nil {
			t.Error(err)
		}
	}
}
