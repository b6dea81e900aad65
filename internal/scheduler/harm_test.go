package scheduler

import (
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// TestHarmInOnePipeline: what a model does in one pipeline neither takes it out of another one
// over the same fleet, nor is forgotten because that one scores it.
func TestHarmInOnePipeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.applyConfig(func(cfg *fleetscore.Config) {
		q := cfg.Pipelines["p"]
		q.Limits.QuarantineAfter = 2
		cfg.Pipelines["q"] = q
	})
	w.rows(day.Add(10 * time.Hour))
	job := func(pipeline string, hour int, harmful ...fleetscore.Key) (quarantined int) {
		t.Helper()
		from := day.Add(time.Duration(hour) * time.Hour)
		j, err := w.Submit(t.Context(), pipeline, &fleetscore.Interval{From: from, To: from.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		l := w.lease("n1")
		unscored := harmful
		for _, h := range l.Quarantined {
			unscored = append(unscored, h.Key)
		}
		r := w.score(l, unscored...)
		for _, k := range harmful {
			r.Harm = append(r.Harm, fleetscore.Harm{Key: k, Reason: "it crashed"})
		}
		if err := w.broker.Complete(t.Context(), l.ID, r); err != nil {
			t.Fatal(err)
		}
		w.wait(j.ID, func(j fleetscore.Job) bool { return j.State.Ended() })
		return len(l.Quarantined)
	}
	for hour := 7; hour < 9; hour++ {
		if n := job("q", hour, "0"); n != 0 {
			t.Errorf("q: %d models are in quarantine before the second job has ended", n)
		}
		if n := job("p", hour); n != 0 {
			t.Errorf("p: %d models are in quarantine because of another pipeline", n)
		}
	}
	if n := job("q", 9); n != 1 {
		t.Errorf("q: %d models are in quarantine after two jobs with harm, want 1", n)
	}
	if n := job("p", 9); n != 0 {
		t.Errorf("p: %d models are in quarantine because of another pipeline", n)
	}
	released, err := w.Release(t.Context(), "f", []string{"0"})
	if err != nil || len(released) != 1 || released[0].Pipeline != "q" {
		t.Errorf("released %+v, %v", released, err)
	}
}
