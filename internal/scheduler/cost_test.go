package scheduler

import (
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// TestTasksByMeasuredCost: three sensors are one task as long as nobody knows what their
// models cost. After a job in which each took ten seconds they are three, also after a
// restart, and a job of another runtime is one again.
func TestTasksByMeasuredCost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	iv := &fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
	job := func(tasks int) {
		t.Helper()
		j, err := w.Submit(t.Context(), "p", iv)
		if err != nil {
			t.Fatal(err)
		}
		for range tasks {
			l := w.lease("n1")
			r := w.score(l)
			for s := int(l.Shards.First); s <= int(l.Shards.Last); s++ {
				for _, k := range []fleetscore.Key{"0", "1", "2"} {
					if int(k.Shard()) == s {
						r.Cost = append(r.Cost, dispatch.Cost{Shard: k.Shard(), Keys: 1, Load: time.Second, Score: 9 * time.Second})
					}
				}
			}
			if err := w.broker.Complete(t.Context(), l.ID, r); err != nil {
				t.Fatal(err)
			}
		}
		if j = w.wait(j.ID, ended); j.Tasks != tasks || j.State != fleetscore.JobSucceeded {
			t.Errorf("%s has %d tasks and is %s, want %d tasks", j.ID, j.Tasks, j.State, tasks)
		}
	}
	job(1)
	job(3)
	w.stop()
	w.start(w.bucket())
	job(3)
	w.apply(func(p *fleetscore.PipelineConfig) { p.Runtime = fleetscore.RuntimeAuto })
	job(1)
}

// TestEarlierOutcomes: a job may keep the outcomes of the latest job over exactly the same
// interval, unless another job has touched a part of the interval since or has still to do
// so, or predictions were removed. A rerun keeps none.
func TestEarlierOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	whole := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
	part := fleetscore.Interval{From: day.Add(8*time.Hour + time.Minute), To: day.Add(9 * time.Hour)}
	submit := func(iv fleetscore.Interval) fleetscore.JobID {
		t.Helper()
		j, err := w.Submit(t.Context(), "p", &iv)
		if err != nil {
			t.Fatal(err)
		}
		return j.ID
	}
	carryOut := func(what string, id, want fleetscore.JobID) fleetscore.JobID {
		t.Helper()
		l := w.lease("n1")
		if got := l.Earlier.Job; l.Job != id || got != want || (len(l.Earlier.Files) > 0) != (want != "") {
			t.Errorf("%s: job %s keeps outcomes of %q in %d files, want of %q", what, l.Job, got, len(l.Earlier.Files), want)
		}
		if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
			t.Fatal(err)
		}
		w.wait(id, ended)
		return id
	}
	first := carryOut("the first job", submit(whole), "")
	carryOut("the same interval", submit(whole), first)
	carryOut("a part of it", submit(part), "")
	carryOut("after a part was scored", submit(whole), "")
	carryOut("the part again", submit(part), "")
	last := carryOut("the whole again", submit(whole), "")
	j, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: last, Keys: []string{"1"}})
	if err != nil {
		t.Fatal(err)
	}
	rerun := carryOut("a rerun", j.ID, "")
	w.rows(day.Add(10 * time.Hour)) // a later hour changes nothing
	carryOut("after the rerun", submit(whole), rerun)

	// A job over a part that hasn't ended will still change what is visible.
	w.rows(day.Add(9*time.Hour + 30*time.Minute))
	waiting, late := submit(part), submit(whole)
	carryOut("the part, at last", waiting, "")
	carryOut("made while the part was to be scored", late, "")
}
