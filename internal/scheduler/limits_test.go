package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// revoked waits until a lease is the node's no more.
func (w *world) revoked(l dispatch.Lease, node fleetscore.NodeID) {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.NodesTopic("cpu"))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		reply, err := w.broker.Heartbeat(w.t.Context(), node, beat(l))
		if err != nil {
			w.t.Fatal(err)
		}
		if len(reply.Revoked) == 1 {
			return
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatal("the lease is never taken back")
		}
	}
}

// TestTaskTimeout: an attempt that takes too long is taken back from its node, though
// the node's heartbeats arrive, and uses up a try. When all are used up, the task's
// sensors are timed_out.
func TestTaskTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Limits: fleetscore.LimitsConfig{TaskTimeout: fleetscore.Duration(time.Minute)}})
	now := day.Add(10 * time.Hour)
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []fleetscore.NodeID{"n1", "n2"} {
		l := w.lease(node)
		for range 6 { // it lives all the time
			now = now.Add(10 * time.Second)
			w.set(now)
			if reply, err := w.broker.Heartbeat(t.Context(), node, beat(l)); err != nil || len(reply.Revoked) > 0 {
				t.Fatalf("after less than the limit: %+v, %v", reply, err)
			}
		}
		now = now.Add(time.Second)
		w.set(now)
		w.revoked(l, node)
		if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); !fleetscore.Conflict.Is(err) {
			t.Errorf("a result that came too late: %v, want kind conflict", err)
		}
		now = now.Add(10 * time.Second) // the pause before the next attempt
		w.set(now)
	}
	got := w.wait(j.ID, ended)
	if got.State != fleetscore.JobFailed || got.Outcomes[fleetscore.TimedOut] != 3 || !strings.Contains(got.Reason, "limits.task_timeout") {
		t.Errorf("job %+v", got)
	}
	if d := cmp.Diff([]string{"09:00 0 timed_out", "09:00 1 timed_out", "09:00 2 timed_out"}, w.visible()); d != "" {
		t.Errorf("visible (-want +got):\n%s", d)
	}
}

// TestJobTimeout: when a job's time is up, its other tasks end, their sensors are
// timed_out, and the job ends by its limits.
func TestJobTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Limits: fleetscore.LimitsConfig{JobTimeout: fleetscore.Duration(time.Hour), Failed: fleetscore.AllowCount(3)}})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	now := day.Add(20 * time.Hour) // the time in the queue doesn't count
	w.set(now)
	l := w.lease("n1")
	w.set(now.Add(time.Hour - time.Second))
	if _, err := w.broker.Register(t.Context(), dispatch.Hello{Node: "n1", Pool: "cpu", Slots: 1}); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobRunning }); got.Started == nil {
		t.Errorf("job %+v", got)
	}
	w.set(now.Add(time.Hour))
	got := w.wait(j.ID, ended)
	if got.State != fleetscore.JobFailed || got.Outcomes[fleetscore.TimedOut] != 3 || got.Outcomes.Total() != 3 || !strings.Contains(got.Reason, "limits.job_timeout") {
		t.Errorf("job %+v", got)
	}
	if err := w.broker.Complete(t.Context(), l.ID, dispatch.Result{}); !fleetscore.Conflict.Is(err) {
		t.Errorf("an answer after the end: %v, want kind conflict", err)
	}
}
