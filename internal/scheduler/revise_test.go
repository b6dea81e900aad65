package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// revise replaces a row, as a query does when a late reading came.
func (w *world) revise(key fleetscore.Key, stamp time.Time, value float64) {
	w.t.Helper()
	w.reviseOrRemove(key, stamp, value, false)
}

func (w *world) reviseOrRemove(key fleetscore.Key, stamp time.Time, value float64, gone bool) {
	w.t.Helper()
	at := fleetscore.MicrosOf(stamp)
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{key},
		KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Values: [][]float64{{value}}}
	d := table.OpenDelta(store.Sub(w.bucket(), "data/readings"))
	if _, err := d.Revise(w.t.Context(), rows, []bool{gone}, func(*table.Snapshot) (table.Commit, error) {
		return table.Commit{Operation: "MERGE", Info: map[string]any{table.RevisedInfo: []table.Revised{{From: at - 600e6, To: at, Rows: 1}}}}, nil
	}); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Put(ledger.DatasetTopic("readings"))
}

// TestRevisedRowsAreScoredAgain: where late readings changed rows of an interval that was
// scored, one job of low priority scores the interval again, also if the rows changed while
// it was scored, and wherever the server is killed.
func TestRevisedRowsAreScoredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.applyConfig(func(c *fleetscore.Config) {
		c.Queries = map[string]fleetscore.QueryConfig{"readings": {Late: fleetscore.LateRevise}}
	})
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	w.rows(hour(8))
	w.rows(hour(9))
	w.looked()
	eight, nine := w.carryOut(hour(8)), w.carryOut(hour(9))

	w.revise("0", hour(8), 5)
	again := w.jobs("p", 3)[0]
	if again.Interval != eight.Interval || again.Priority != fleetscore.PriorityLow || !strings.HasPrefix(again.Backfill, lateName) {
		t.Fatalf("the job over revised rows is %+v", again)
	}
	l := w.lease("n1")
	if l.Job != again.ID || l.Earlier.Job != eight.ID {
		t.Errorf("the lease is of job %s and compares with job %s, want %s and %s", l.Job, l.Earlier.Job, again.ID, eight.ID)
	}
	w.revise("1", hour(8), 6) // while it is scored
	last := w.jobs("p", 4)[0]
	w.wait(last.ID, func(j fleetscore.Job) bool { return strings.Contains(j.Reason, string(again.ID)) })
	w.stop()
	w.start(w.bucket())
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	w.wait(again.ID, ended)
	w.completeNext("n1")
	if got := w.wait(last.ID, ended); got.State != fleetscore.JobSucceeded || got.Interval != eight.Interval {
		t.Errorf("the last job is %+v", got)
	}

	w.rows(hour(10)) // revises nothing
	if looked, err := w.rescore(t.Context(), "p", again.Config); err != nil || !looked {
		t.Fatal(err)
	}
	if jobs := w.jobs("p", 4); len(jobs) != 4 {
		t.Errorf("there are %d jobs, want 4: %+v", len(jobs), jobs)
	}
	if d := cmp.Diff([]string{"0: 0", "0: 0", "0: 1", "0: 1", "1: 0", "1: 0", "1: 1", "1: 1", "2: 0", "2: 1"}, w.by(last.ID, nine.ID)); d != "" {
		t.Errorf("whose the rows and outcomes are (-want +got):\n%s", d)
	}
}

// TestVanishedRows: where late readings made rows vanish, the predictions of these rows vanish too, also
// if the sensor, or all of them, have no other row in the interval; coverage says no_data.
func TestVanishedRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.applyConfig(func(c *fleetscore.Config) {
		c.Queries = map[string]fleetscore.QueryConfig{"readings": {Late: fleetscore.LateRevise}}
	})
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	w.rows(hour(8))
	w.rows(hour(9))
	w.looked()
	w.carryOut(hour(8))
	w.carryOut(hour(9))
	nine := []string{"09:00 0 1", "09:00 0 scored", "09:00 1 1", "09:00 1 scored", "09:00 2 no_data"}
	for i, eight := range [][]string{{"08:00 0 no_data", "08:00 1 1", "08:00 1 scored", "08:00 2 no_data"}, {"08:00 0 no_data", "08:00 1 no_data", "08:00 2 no_data"}} {
		w.reviseOrRemove(fleetscore.Key(fmt.Sprint(i)), hour(8), 0, true)
		again := w.jobs("p", 3+i)[0]
		w.completeNext("n1")
		w.wait(again.ID, ended)
		if d := cmp.Diff(append(eight, nine...), w.visible()); d != "" {
			t.Errorf("after %d rows vanished, what readers see is (-want +got):\n%s", i+1, d)
		}
	}
}

// revising is a world with a query that revises rows, in which revisions are looked for.
func revising(t *testing.T, stamps ...time.Time) *world {
	t.Helper()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.revising(stamps...)
	return w
}

func (w *world) revising(stamps ...time.Time) {
	w.t.Helper()
	w.applyConfig(func(c *fleetscore.Config) {
		c.Queries = map[string]fleetscore.QueryConfig{"readings": {Late: fleetscore.LateRevise}}
	})
	for _, stamp := range stamps {
		w.rows(stamp)
	}
	w.looked()
}

// submit submits a job over the hours before a time, and gives its task to a node of its own. The clock goes on, so that jobs
// are told apart by their times.
func (w *world) submit(hours int, to time.Time) dispatch.Lease {
	w.t.Helper()
	w.clock.Add(1_000_000)
	j, err := w.Submit(w.t.Context(), "p", &fleetscore.Interval{From: to.Add(-time.Duration(hours) * time.Hour), To: to})
	if err != nil {
		w.t.Fatal(err)
	}
	l := w.lease(fleetscore.NodeID("of-" + string(j.ID)))
	if l.Job != j.ID {
		w.t.Fatalf("the task is of job %s, want %s", l.Job, j.ID)
	}
	return l
}

// answer delivers the results of a task, and waits until its job has ended.
func (w *world) answer(l dispatch.Lease, r dispatch.Result) {
	w.t.Helper()
	if err := w.broker.Complete(w.t.Context(), l.ID, r); err != nil {
		w.t.Fatal(err)
	}
	w.wait(l.Job, ended)
}

// withoutZero is what readers see when the row of sensor 0 has vanished.
var withoutZero = []string{"08:00 0 no_data", "08:00 1 1", "08:00 1 scored", "08:00 2 no_data"}

// predicted lists what readers see of the predictions.
func (w *world) predicted() []string {
	w.t.Helper()
	return slices.DeleteFunc(w.visible(), func(s string) bool { return !strings.HasSuffix(s, " 1") })
}

// failing lets the scheduler's calls of an operation of the ledger fail while it is on.
func (w *world) failing(op string) (on *atomic.Bool) {
	w.t.Helper()
	on = &atomic.Bool{}
	w.stop()
	w.wrap = func(l ledger.Ledger) ledger.Ledger {
		return &ledgertest.Faulty{Ledger: l, Fail: func(_ context.Context, o, _ string) error {
			if o == op && on.Load() {
				return fleetscore.Errorf(fleetscore.Unavailable, o, "p", "the ledger is away")
			}
			return nil
		}}
	}
	w.start(w.bucket())
	return on
}

// TestVanishedRowOfOlderJob: a job has read a row that vanishes then, and ends after a newer job that found the
// row gone. The job that scores again what was revised removes the prediction, although it reads the same rows as the newer job: it isn't taken
// for unchanged, and where a sensor's results are kept, these are of the newer job alone.
func TestVanishedRowOfOlderJob(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	for _, another := range []bool{false, true} { // whether the sensor has another row, which is scored
		w := newWorld(t, fleetscore.PipelineConfig{})
		away := w.failing("DecideSchedule")
		w.revising(eight)
		old := w.submit(1, eight)
		r := w.score(old)
		nine, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: eight.Add(-time.Hour), To: eight.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		away.Store(true) // so that revisions are looked for when the newer job has read them
		w.reviseOrRemove("0", eight, 0, true)
		if w.rows(eight.Add(time.Hour)); !another {
			w.reviseOrRemove("0", eight.Add(time.Hour), 0, true)
		}
		newer := w.lease("n2")
		if newer.Job != nine.ID {
			t.Fatalf("the task is of job %s, want %s", newer.Job, nine.ID)
		}
		away.Store(false)
		late := w.jobs("p", 3)[0]
		w.answer(newer, w.score(newer))
		w.answer(old, r)
		if got := w.wait(w.completeNext("n1"), ended); got.ID != late.ID || got.Unchanged != "" {
			t.Errorf("the job over revised rows: %+v", got)
		}
		want := []string{"08:00 1 1", "09:00 0 1", "09:00 1 1"}
		if !another {
			want = slices.Delete(want, 1, 2)
		}
		if d := cmp.Diff(want, w.predicted()); d != "" {
			t.Errorf("another row %v: what readers see is (-want +got):\n%s", another, d)
		}
	}
}

// TestVanishedRowWhileJobWaits: a row vanishes while a job of a person's backfill waits that will read what is left. It doesn't stand in for the
// job that removes predictions of vanished rows, whether it is carried out or canceled.
func TestVanishedRowWhileJobWaits(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	for _, cancel := range []bool{false, true} {
		w := revising(t, eight)
		first := w.submit(1, eight)
		w.answer(first, w.score(first))
		pieces, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: eight.Add(-3 * time.Hour), To: eight}, time.Hour, Again)
		if err != nil {
			t.Fatal(err)
		}
		w.wait(pieces[2].ID, func(j fleetscore.Job) bool { return strings.Contains(j.Reason, "turn") })
		w.reviseOrRemove("0", eight, 0, true)
		late := w.jobs("p", 5)[0]
		tasks := 4
		if cancel {
			tasks--
			if _, err := w.Cancel(t.Context(), pieces[2].ID); err != nil {
				t.Fatal(err)
			}
		}
		for range tasks {
			w.wait(w.completeNext("n1"), ended)
		}
		w.wait(late.ID, ended)
		seen := slices.DeleteFunc(w.visible(), func(s string) bool { return !strings.HasPrefix(s, "08:00") })
		if d := cmp.Diff(withoutZero, seen); d != "" {
			t.Errorf("canceled %v: what readers see is (-want +got):\n%s", cancel, d)
		}
	}
}

// TestRevisedAfterNewerJob: rows are revised while a job over revised rows waits, and after a newer job has read them. As results of a newer
// job stay, a job is needed that is newer still.
func TestRevisedAfterNewerJob(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	w := revising(t, eight)
	old := w.submit(2, eight)
	w.revise("1", eight, 6)
	w.jobs("p", 2)
	newer := w.submit(1, eight)
	w.answer(newer, w.score(newer))
	w.reviseOrRemove("0", eight, 0, true)
	last := w.jobs("p", 4)[0]
	w.revise("1", eight, 7) // the last job will read it too
	if looked, err := w.rescore(t.Context(), "p", last.Config); err != nil || !looked {
		t.Fatal(err)
	}
	w.answer(old, w.score(old))
	for range 2 {
		w.wait(w.completeNext("n1"), ended)
	}
	w.wait(last.ID, ended)
	if d := cmp.Diff([]string{"08:00 1 1"}, w.predicted()); d != "" {
		t.Errorf("what readers see is (-want +got):\n%s", d)
	}
	if got := w.jobs("p", 4); got[0].ID != last.ID {
		t.Errorf("the newest job is %s, want %s", got[0].ID, last.ID)
	}
}

// TestRevisedAfterFailedJob: an interval whose job failed, because no sensor had a row, is scored again when late
// readings bring rows.
func TestRevisedAfterFailedJob(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	w := revising(t, eight)
	seven := w.submit(1, eight.Add(-time.Hour))
	w.answer(seven, w.score(seven))
	if j := w.wait(seven.Job, ended); j.State != fleetscore.JobFailed {
		t.Fatalf("the job without rows is %s", j.State)
	}
	w.revise("0", eight.Add(-time.Hour), 5)
	late := w.jobs("p", 2)[0]
	w.completeNext("n1")
	if got := w.wait(late.ID, ended); got.State != fleetscore.JobSucceeded || got.Rows != 1 {
		t.Errorf("the job over revised rows: %+v", got)
	}
}

// TestNoJobBeforeFirstLook: while it can't be noted from which commit on revisions are looked for, no job is planned, whose
// rows could be revised unseen.
func TestNoJobBeforeFirstLook(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	w := newWorld(t, fleetscore.PipelineConfig{})
	away := w.failing("DecideSchedule")
	w.rows(eight)
	first := w.submit(1, eight)
	w.answer(first, w.score(first))
	j, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: eight, To: eight.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	away.Store(true)
	w.applyConfig(func(c *fleetscore.Config) {
		c.Queries = map[string]fleetscore.QueryConfig{"readings": {Late: fleetscore.LateRevise}}
	})
	w.waitProblem("pipeline p", "the ledger is away")
	w.rows(eight.Add(time.Hour))
	if _, err := w.planAll(t.Context(), "p"); !fleetscore.Unavailable.Is(err) {
		t.Errorf("planning: %v, want kind unavailable", err)
	}
	if j = w.wait(j.ID, func(fleetscore.Job) bool { return true }); j.State != fleetscore.JobWaiting {
		t.Errorf("the job is %s before the first look", j.State)
	}
	away.Store(false)
	w.completeNext("n1")
	w.wait(j.ID, ended)
}

// TestDatasetMadeAnew: after a dataset was removed and made again, whose commits have small numbers again, revisions are found.
func TestDatasetMadeAnew(t *testing.T) {
	t.Parallel()
	eight := day.Add(8 * time.Hour)
	w := revising(t, eight)
	if _, err := w.ledger.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Revised = 500 // as it was before
		return ledger.ScheduleDecision{State: v.State}, nil
	}); err != nil {
		t.Fatal(err)
	}
	l := w.submit(1, eight)
	w.answer(l, w.score(l))
	w.reviseOrRemove("0", eight, 0, true)
	late := w.jobs("p", 2)[0]
	w.completeNext("n1")
	w.wait(late.ID, ended)
	if d := cmp.Diff(withoutZero, w.visible()); d != "" {
		t.Errorf("what readers see is (-want +got):\n%s", d)
	}
}

// looked waits until revisions are looked for.
func (w *world) looked() {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobsTopic("p"))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		v, err := w.ledger.Schedule(w.t.Context(), "p")
		if err != nil {
			w.t.Fatal(err)
		}
		if v.State.Revised > 0 {
			return
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatal("nothing looks for revisions")
		}
	}
}
