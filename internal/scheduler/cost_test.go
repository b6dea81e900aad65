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
