package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/table"
)

// by lists the visible rows and items with the number of the job that they are of.
func (w *world) by(jobs ...fleetscore.JobID) (out []string) {
	w.t.Helper()
	ctx, c := w.t.Context(), catalog.New(w.bucket())
	for _, d := range []*table.Delta{c.Predictions("p").Delta, c.Coverage("p").Delta} {
		snap, err := d.Snapshot(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		f, s, err := d.ReadFrame(ctx, snap.Files, nil, table.ReadQuery{})
		if err != nil {
			w.t.Fatal(err)
		}
		keys, index := f.Keys(s.Key)
		of := f.Texts("Job")
		for i := range f.Len() {
			out = append(out, fmt.Sprintf("%s: %d", keys[index[i]], slices.Index(jobs, fleetscore.JobID(of(i)))))
		}
	}
	slices.Sort(out)
	return out
}

// failOne makes a job of which sensor 1 fails.
func (w *world) failOne() fleetscore.Job {
	w.t.Helper()
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(w.t.Context(), "p", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	l := w.lease("n1")
	if err := w.broker.Complete(w.t.Context(), l.ID, w.score(l, "1")); err != nil {
		w.t.Fatal(err)
	}
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobPartlyFailed || got.Outcomes[fleetscore.Failed] != 1 {
		w.t.Fatalf("job %+v", got)
	}
	return j
}

// TestRerun: only the sensors that failed are scored again. The new job takes the other
// outcomes over, so that it has one for each sensor; each sensor has one row.
func TestRerun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	first := w.failOne()
	w.set(day.Add(11 * time.Hour))
	again, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Failed: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Failed: true}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second rerun at the same time: %v, want kind conflict", err)
	}
	l := w.lease("n1")
	if d := cmp.Diff([]fleetscore.Key{"1"}, l.Keys); d != "" {
		t.Errorf("keys of the lease (-want +got):\n%s", d)
	}
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	got := w.wait(again.ID, ended)
	if d := cmp.Diff(fleetscore.Counts{fleetscore.Scored: 2, fleetscore.NoData: 1}, got.Outcomes); got.State != fleetscore.JobSucceeded || got.Rows != 2 || got.Expected != 3 || d != "" {
		t.Errorf("rerun %+v (-want +got):\n%s", got, d)
	}
	if d := cmp.Diff([]string{"0: 0", "0: 1", "1: 1", "1: 1", "2: 1"}, w.by(first.ID, again.ID)); d != "" {
		t.Errorf("rows and items by job (-want +got):\n%s", d)
	}
	if d := cmp.Diff(oneHour, w.visible()); d != "" {
		t.Errorf("visible (-want +got):\n%s", d)
	}
}

// TestRerunThatFails: a sensor that fails again keeps its outcome, also when its task
// fails as a whole, and nothing of the others is lost.
func TestRerunThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Limits: fleetscore.LimitsConfig{JobTimeout: fleetscore.Duration(time.Hour)}})
	first := w.failOne()
	again, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Cause: "broken"})
	if err != nil {
		t.Fatal(err)
	}
	w.lease("n1")
	w.set(day.Add(12 * time.Hour))
	got := w.wait(again.ID, ended)
	if d := cmp.Diff(fleetscore.Counts{fleetscore.Scored: 1, fleetscore.NoData: 1, fleetscore.TimedOut: 1}, got.Outcomes); got.State != fleetscore.JobPartlyFailed || d != "" {
		t.Errorf("rerun %+v (-want +got):\n%s", got, d)
	}
	if d := cmp.Diff([]string{"09:00 0 1", "09:00 0 scored", "09:00 1 timed_out", "09:00 2 no_data"}, w.visible()); d != "" {
		t.Errorf("visible (-want +got):\n%s", d)
	}
}

// TestRerunRefused: what can't be run again says why.
func TestRerunRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	first := w.failOne()
	for _, tt := range []struct {
		which fleetscore.Rerun
		kind  fleetscore.Kind
		want  string
	}{
		{fleetscore.Rerun{Of: "nobody", Failed: true}, fleetscore.NotFound, ""},
		{fleetscore.Rerun{Of: first.ID, Cause: "something else"}, fleetscore.Conflict, "none of its 3 sensors fits"},
		{fleetscore.Rerun{Of: first.ID, Keys: []string{"7"}}, fleetscore.Conflict, "none of its 3 sensors fits"},
	} {
		if _, err := w.Rerun(t.Context(), tt.which); fleetscore.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want kind %s with %q", tt.which, err, tt.kind, tt.want)
		}
	}
	again, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Keys: []string{"0"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: again.ID, Failed: true}); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "it is ") {
		t.Errorf("a rerun of a job that hasn't ended: %v", err)
	}
	w.completeNext("n1")
	w.wait(again.ID, ended)
	if _, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Failed: true}); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "a later job scored the same interval") {
		t.Errorf("a rerun of a job whose outcomes were taken over: %v", err)
	}
}

// TestRerunKilledWhileCommitting: a commit that is ended at any write and repeated gives
// the same outcomes.
func TestRerunKilledWhileCommitting(t *testing.T) {
	t.Parallel()
	for nth, struck := 1, true; struck; nth++ {
		w := newWorld(t, fleetscore.PipelineConfig{})
		first := w.failOne()
		again, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: first.ID, Failed: true})
		if err != nil {
			t.Fatal(err)
		}
		l := w.lease("n1")
		struck = w.crash(again.ID, l, w.score(l), "put done", nth)
		got := w.wait(again.ID, ended)
		if d := cmp.Diff(fleetscore.Counts{fleetscore.Scored: 2, fleetscore.NoData: 1}, got.Outcomes); got.State != fleetscore.JobSucceeded || d != "" {
			t.Errorf("killed at write %d: %+v (-want +got):\n%s", nth, got, d)
		}
		if d := cmp.Diff(oneHour, w.visible()); d != "" {
			t.Errorf("killed at write %d: visible (-want +got):\n%s", nth, d)
		}
		w.stop()
		w.stop = func() {}
	}
}
