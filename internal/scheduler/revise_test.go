package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
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
	if err := w.rescore(t.Context(), "p", again.Config); err != nil {
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
