package broker

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// newWorld is a world whose broker runs until the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := open(t)
	t.Cleanup(w.run(Deps{Ledger: w.ledger, Now: w.now}))
	return w
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.clock.Store(day.UnixMicro())
	l, err := ledger.Open(context.Background(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = l
	if _, err := l.PutConfig(t.Context(), time.Now(), "text", fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: 1}}}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time { return time.UnixMicro(w.clock.Load()) }

// run runs a broker until it is stopped.
func (w *world) run(deps Deps) (stop func()) {
	w.t.Helper()
	b, err := New(Config{}, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Broker = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return func() {
		cancel()
		<-done
		if err := w.ledger.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// queue queues a job of one task.
func (w *world) queue(id fleetscore.JobID) fleetscore.Job {
	w.t.Helper()
	j := fleetscore.Job{ID: id, Pipeline: "p", State: fleetscore.JobWaiting, Created: day, Interval: fleetscore.Interval{From: day, To: day.Add(time.Hour)},
		Config: fleetscore.PipelineConfig{Dataset: "readings", Fleet: "f", Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 3}}}
	if err := ledgertest.Queue(w.t.Context(), w.ledger, j, 1); err != nil {
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

// TestAnswerDoesntWaitForTheStore: a node that reports a damaged file is answered while
// the store doesn't answer who looks at that file; so are all the others, however many
// files they report.
func TestAnswerDoesntWaitForTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looked := make(chan string, 2*maxDamaged)
		w := open(t)
		defer w.run(Deps{Ledger: w.ledger, Now: w.now, Examine: func(ctx context.Context, blob string) {
			looked <- blob
			<-ctx.Done() // as a store that never answers
		}})()
		began := time.Now()
		for n := range 2 * maxDamaged {
			w.queue(fleetscore.JobID(fmt.Sprint("j", n)))
			l := w.lease("n1")
			if err := w.Complete(t.Context(), l.ID, dispatch.Result{Error: "it is damaged", Kind: "corrupt", Damaged: fmt.Sprint("data/d/", n)}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Heartbeat(t.Context(), "n1", dispatch.HeartbeatRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 { // of the bubble's clock, which stands still while anything runs
			t.Errorf("the answers took %s", took)
		}
		for n := range 2 {
			if got, want := <-looked, fmt.Sprint("data/d/", n); got != want {
				t.Errorf("looked at %s, want %s", got, want)
			}
		}
		if took := time.Since(began); took != examineWithin {
			t.Errorf("the second file was looked at after %s, want %s", took, examineWithin)
		}
	})
}

// TestOutageUsesUpNoTries: a task whose attempts find the store away more often than it
// has tries waits longer and longer, and is done when the store is back.
func TestOutageUsesUpNoTries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.queue("j1")
	waited := time.Duration(0)
	for n := range 10 {
		l := w.lease("n1")
		if err := w.Complete(t.Context(), l.ID, dispatch.Result{Error: "the store answers 500", Kind: "unavailable"}); err != nil {
			t.Fatal(err)
		}
		tasks, err := w.ledger.Tasks(t.Context(), j.ID)
		if err != nil || len(tasks) != 1 {
			t.Fatalf("%d tasks, %v", len(tasks), err)
		}
		if task := tasks[0]; task.State != fleetscore.TaskQueued || task.Failures != 0 || task.Outages != n+1 || !strings.Contains(task.Reason, "500") {
			t.Fatalf("after %d outages: %+v", n+1, task)
		}
		early, err := w.ledger.LeaseTasks(t.Context(), "cpu", "n1", 1, w.now().Add(waited/2), time.Minute)
		if err != nil || len(early) > 0 {
			t.Fatalf("after %d outages the task is given out at once: %v", n+1, err)
		}
		waited = dispatch.OutageAfter(n+1, 1)
		w.clock.Add(waited.Microseconds())
	}
	l := w.lease("n1")
	if err := w.Complete(t.Context(), l.ID, dispatch.Result{Outcomes: fleetscore.Counts{}}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ledger.Job(t.Context(), j.ID); err != nil || got.State != fleetscore.JobCommitting {
		t.Errorf("the job is %s, %v", got.State, err)
	}
}

// counting counts who looks at the queue.
type counting struct {
	ledger.Ledger
	looks atomic.Int64
}

func (c *counting) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, most int, now time.Time, ttl time.Duration) ([]ledger.Leased, error) {
	c.looks.Add(1)
	return c.Ledger.LeaseTasks(ctx, pool, node, most, now, ttl)
}

// TestCallsNoMoreNodesThanTasks: of many nodes that wait, only as many look at the queue as
// there are tasks, and each of these gets one. A task that is to be retried later calls a
// node when its time has come.
func TestCallsNoMoreNodesThanTasks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes, tasks = 30, 3
		w := open(t)
		c := &counting{Ledger: w.ledger}
		defer w.run(Deps{Ledger: c, Now: time.Now})()
		type answer struct {
			node fleetscore.NodeID
			dispatch.LeaseReply
		}
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan answer, nodes)
		var asked sync.WaitGroup
		for n := range nodes {
			id := fleetscore.NodeID(fmt.Sprint("n", n))
			if _, err := w.Register(t.Context(), dispatch.Hello{Node: id, Pool: "cpu", Slots: 1}); err != nil {
				t.Fatal(err)
			}
			asked.Go(func() {
				if r, err := w.Lease(ctx, id, dispatch.LeaseRequest{Free: 1, Wait: fleetscore.Duration(5 * time.Second)}); err == nil && len(r.Leases) > 0 {
					answers <- answer{id, r}
				}
			})
		}
		synctest.Wait()
		if n := c.looks.Swap(0); n != nodes {
			t.Fatalf("%d nodes looked at the queue when they came, want all %d", n, nodes)
		}
		for n := range tasks {
			w.queue(fleetscore.JobID(fmt.Sprint("j", n)))
		}
		var last answer
		for range tasks {
			last = <-answers
		}
		synctest.Wait()
		if n := c.looks.Swap(0); n > 2*tasks { // a task that comes while another one is given out may call one more
			t.Errorf("%d nodes looked at the queue for %d tasks", n, tasks)
		}
		begun := time.Now()
		if err := w.Complete(ctx, last.Leases[0].ID, dispatch.Result{Error: "it failed"}); err != nil {
			t.Fatal(err)
		}
		again := <-answers
		if wait := time.Since(begun); again.Leases[0].Task != last.Leases[0].Task || wait < 100*time.Millisecond || wait > 5*time.Second {
			t.Errorf("the task that failed was given to %s after %s", again.node, wait)
		}
		cancel()
		asked.Wait()
	})
}

// TestMovedJob: a job that is moved to another pool has nothing of the image that it was planned
// for, such as the interpreter in it.
func TestMovedJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := fleetscore.Job{ID: "moved", Pipeline: "p", State: fleetscore.JobWaiting, Created: day, Interval: fleetscore.Interval{From: day, To: day.Add(time.Hour)},
		Config: fleetscore.PipelineConfig{Dataset: "readings", Fleet: "f", Pool: "boxes", Limits: fleetscore.LimitsConfig{Tries: 3}}}
	if err := ledgertest.Insert(t.Context(), w.ledger, j); err != nil {
		t.Fatal(err)
	}
	j.Image, j.Environments = "new@1", []fleetscore.JobEnvironment{{Number: 1, SKLearn: "0.24", Image: "old@1"}}
	task := fleetscore.Task{ID: "moved.000", Job: j.ID, State: fleetscore.TaskQueued, Environment: 1, Image: "old@1"}
	if err := w.ledger.PlanJob(t.Context(), j, []ledger.PlannedTask{{Task: task}}); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.UpdateJobs(t.Context(), "p", nil, func(j *fleetscore.Job) { j.Config.Pool = "cpu" }); err != nil {
		t.Fatal(err)
	}
	if l := w.lease("n"); l.Image != "" || l.Environment != 0 {
		t.Errorf("the lease names image %q and environment %d", l.Image, l.Environment)
	}
}
