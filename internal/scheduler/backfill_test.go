package scheduler

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// complete does what a node does with the next task, and says whose it was.
func (w *world) completeNext(node fleetscore.NodeID) fleetscore.JobID {
	w.t.Helper()
	l := w.lease(node)
	if err := w.broker.Complete(w.t.Context(), l.ID, w.score(l)); err != nil {
		w.t.Fatal(err)
	}
	return l.Job
}

// TestBackfill: pieces of a past interval are jobs of low priority, few at once. A
// regular job that comes later is worked on before them, and its results stay where a
// piece's come after them.
func TestBackfill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	for n := 4; n <= 9; n++ {
		w.rows(hour(n))
	}
	jobs, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(3), To: hour(9).Add(-30 * time.Minute)}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var pieces []string
	for _, j := range jobs {
		pieces = append(pieces, j.Interval.From.Format("15:04-")+j.Interval.To.Format("15:04"))
	}
	if d := cmp.Diff([]string{"03:00-04:00", "04:00-05:00", "05:00-06:00", "06:00-07:00", "07:00-08:00", "08:00-08:30"}, pieces); d != "" {
		t.Errorf("pieces (-want +got):\n%s", d)
	}
	waiting := w.wait(jobs[2].ID, func(j fleetscore.Job) bool { return j.Reason != "" })
	if waiting.State != fleetscore.JobWaiting || !strings.Contains(waiting.Reason, "turn") {
		t.Errorf("the third piece: %+v", waiting)
	}
	w.set(hour(10).Add(time.Second)) // the regular job is the later one
	live, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: hour(3), To: hour(9)})
	if err != nil {
		t.Fatal(err)
	}
	w.wait(live.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	if got := w.completeNext("n1"); got != live.ID {
		t.Errorf("the first task is of job %s, want the regular one's", got)
	}
	w.wait(live.ID, ended)
	for i, j := range jobs {
		if got := w.completeNext("n1"); got != j.ID {
			t.Errorf("task %d of the backfill is of job %s, want %s", i, got, j.ID)
		}
		if got := w.wait(j.ID, ended); i < 5 && got.State != fleetscore.JobSucceeded || got.Priority != fleetscore.PriorityLow || got.Backfill != jobs[0].Backfill {
			t.Errorf("piece %d: %+v", i, got)
		}
	}
	d := catalog.New(w.bucket()).Predictions("p")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := d.ReadFrame(t.Context(), snap.Files, []string{"Job"}, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if by := f.Texts("Job"); f.Len() != 12 || slices.ContainsFunc(make([]int, f.Len()), func(i int) bool { return by(i) != string(live.ID) }) {
		t.Errorf("%d rows are visible, want 12, all of job %s", f.Len(), live.ID)
	}
	if v, err := w.ledger.Schedule(t.Context(), "p"); err != nil || !v.State.NextFrom.IsZero() {
		t.Errorf("the schedule goes on from %s, %v; want it unchanged", v.State.NextFrom, err)
	}
}

// TestBackfillRefused: what the schedule is still to score, the future, too many pieces,
// and pieces that are all on their way.
func TestBackfillRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	for _, tt := range []struct {
		pipeline string
		iv       fleetscore.Interval
		every    time.Duration
		kind     fleetscore.Kind
		want     string
	}{
		{"q", fleetscore.Interval{From: hour(1), To: hour(2)}, time.Hour, fleetscore.NotFound, "no such pipeline"},
		{"p", fleetscore.Interval{From: hour(2), To: hour(1)}, time.Hour, fleetscore.Invalid, ""},
		{"p", fleetscore.Interval{From: hour(1), To: hour(2)}, 0, fleetscore.Invalid, "at least 1s"},
		{"p", fleetscore.Interval{From: hour(1), To: hour(4)}, time.Second, fleetscore.Invalid, "at most 10000 pieces"},
		{"p", fleetscore.Interval{From: hour(1), To: hour(11)}, time.Hour, fleetscore.Conflict, "it is only 2026-11-23T10:00:00Z"},
	} {
		if _, err := w.Backfill(t.Context(), tt.pipeline, tt.iv, tt.every); fleetscore.KindOf(err) != tt.kind || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s by %s: %v, want kind %s with %q", tt.iv, tt.every, err, tt.kind, tt.want)
		}
	}
	w.nextFrom(hour(9))
	if _, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(1), To: hour(10)}, time.Hour); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "--to 2026-11-23T09:00:00Z") {
		t.Errorf("a backfill of what the schedule is to score: %v", err)
	}
	iv := fleetscore.Interval{From: hour(1), To: hour(3)}
	if jobs, err := w.Backfill(t.Context(), "p", iv, time.Hour); err != nil || len(jobs) != 2 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	if _, err := w.Backfill(t.Context(), "p", iv, time.Hour); !fleetscore.Conflict.Is(err) {
		t.Errorf("the same again: %v, want kind conflict", err)
	}
}

// nextFrom says where the next interval of the schedule starts.
func (w *world) nextFrom(at time.Time) {
	w.t.Helper()
	if _, err := w.ledger.DecideSchedule(context.Background(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.NextFrom = at, at
		return ledger.ScheduleDecision{State: v.State}, nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// TestBackfillUnchanged: a backfill over what was scored before is carried out only where
// something has changed since: rows, settings, or results that another job replaced.
func TestBackfillUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	for n := 4; n <= 7; n++ {
		w.rows(hour(n))
	}
	// again submits the backfill and carries out what is to be scored: the pieces of work.
	again := func(work ...int) []fleetscore.Job {
		t.Helper()
		jobs, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(3), To: hour(7)}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range work {
			if got := w.completeNext("n1"); got != jobs[i].ID {
				t.Fatalf("a task of job %s, want one of piece %d", got, i)
			}
			w.wait(jobs[i].ID, ended)
		}
		for i := range jobs {
			jobs[i] = w.wait(jobs[i].ID, ended)
			if scored := slices.Contains(work, i); jobs[i].State != fleetscore.JobSucceeded || jobs[i].Rows != 2 || (jobs[i].Unchanged == "") != scored {
				t.Errorf("piece %d, which was scored: %v: %+v", i, scored, jobs[i])
			}
		}
		return jobs
	}
	first := again(0, 1, 2, 3)
	if second := again(); second[1].Unchanged != first[1].ID || !strings.Contains(second[1].Reason, string(first[1].ID)) {
		t.Errorf("the second time: %+v", second[1])
	} else if items, _, err := w.catalog.Coverage("p").PageOf(t.Context(), second[1], catalog.ItemPage{Limit: 10}); err != nil || int64(len(items)) != second[1].Kept || len(items) == 0 || items[0].Kept != first[1].ID {
		t.Errorf("the coverage of %s, which keeps %d: %+v, %v", second[1].ID, second[1].Kept, items, err)
	}
	anew, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(6), To: hour(7)}, time.Hour, Again)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.wait(w.completeNext("n1"), ended); got.ID != anew[0].ID || got.Unchanged != "" || got.Kept != 0 {
		t.Errorf("a backfill that is to score all again: %+v", got)
	}
	if third := again(); third[2].ResultsOf() != first[2].ID {
		t.Errorf("the third time the results are those of %s, want %s", third[2].ResultsOf(), first[2].ID)
	}
	if _, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: hour(4), To: hour(6)}); err != nil { // replaces pieces 1 and 2
		t.Fatal(err)
	}
	w.wait(w.completeNext("n1"), ended)
	again(1, 2)
	w.rows(hour(7).Add(-time.Minute)) // belongs to piece 3
	w.rows(hour(8))                   // completes the dataset again
	jobs, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(6), To: hour(7)}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.completeNext("n1"); got != jobs[0].ID {
		t.Errorf("a task of job %s, want that of the piece with new rows", got)
	}
	if got := w.wait(jobs[0].ID, ended); got.Rows != 4 || got.Unchanged != "" {
		t.Errorf("the piece with new rows: %+v", got)
	}
	w.apply(func(p *fleetscore.PipelineConfig) { p.Missing = fleetscore.MissingSkip })
	changed, err := w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(3), To: hour(4)}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.completeNext("n1"); got != changed[0].ID {
		t.Errorf("a task of job %s, want that of the piece whose settings changed", got)
	}
	w.apply(func(p *fleetscore.PipelineConfig) { p.Mounts = []string{"history"} })
	for range 2 { // nobody can tell whether what lies there has changed
		w.wait(changed[0].ID, ended)
		if changed, err = w.Backfill(t.Context(), "p", fleetscore.Interval{From: hour(3), To: hour(4)}, time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := w.completeNext("n1"); got != changed[0].ID {
			t.Errorf("a task of job %s, want that of the piece whose pipeline has mounts", got)
		}
	}
}
