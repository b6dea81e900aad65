package broker

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// world is a ledger with a pool, and a broker over it that runs.
type world struct {
	*Broker
	t      *testing.T
	ledger ledger.Ledger
	clock  atomic.Int64 // microseconds
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.clock.Store(day.UnixMicro())
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = l
	if _, err := l.PutConfig(t.Context(), "text", fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: 1}}}); err != nil {
		t.Fatal(err)
	}
	w.run(Deps{Ledger: l, Now: func() time.Time { return time.UnixMicro(w.clock.Load()) }})
	return w
}

// run runs a broker until the test ends.
func (w *world) run(deps Deps) {
	w.t.Helper()
	b, err := New(Config{}, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Broker = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		<-done
		if err := w.ledger.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

// queue queues a job of one task.
func (w *world) queue(id fleetscore.JobID) fleetscore.Job {
	w.t.Helper()
	j := fleetscore.Job{ID: id, Pipeline: "p", State: fleetscore.JobWaiting, Created: day, Interval: fleetscore.Interval{From: day, To: day.Add(time.Hour)},
		Config: fleetscore.PipelineConfig{Dataset: "readings", Fleet: "f", Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 3}}}
	if err := ledgertest.Insert(w.t.Context(), w.ledger, j); err != nil {
		w.t.Fatal(err)
	}
	task := fleetscore.Task{ID: fleetscore.TaskID(id + ".000"), Job: id, Shards: fleetscore.AllShards, State: fleetscore.TaskQueued}
	if err := w.ledger.PlanJob(w.t.Context(), j, []ledger.PlannedTask{{Task: task}}); err != nil {
		w.t.Fatal(err)
	}
	return j
}

// lease registers a node and gets a task for it.
func (w *world) lease(node fleetscore.NodeID) dispatch.Lease {
	w.t.Helper()
	if _, err := w.Register(w.t.Context(), dispatch.Hello{Node: node, Pool: "cpu", Slots: 1}); err != nil {
		w.t.Fatal(err)
	}
	reply, err := w.Lease(w.t.Context(), node, dispatch.LeaseRequest{Free: 1, Wait: fleetscore.Duration(20 * time.Second)})
	if err != nil || len(reply.Leases) != 1 {
		w.t.Fatalf("lease: %+v, %v", reply, err)
	}
	return reply.Leases[0]
}
