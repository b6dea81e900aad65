package scheduler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// TestWaitingJobFollows: a job that waits for a dataset takes the configuration
// that names the right one, and says until when it waits.
func TestWaitingJobFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Deadline: fleetscore.Duration(10 * time.Minute)}})
	w.rows(day.Add(9 * time.Hour))
	w.apply(func(p *fleetscore.PipelineConfig) { p.Dataset = "wrong" })
	iv := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
	j, err := w.Submit(t.Context(), "p", &iv)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool {
		return strings.HasPrefix(j.Reason, "waits for dataset wrong, which has no rows yet; no query writes it: 'fleetscore dataset upload wrong FILE'") &&
			strings.HasSuffix(j.Reason, "; at 2026-11-23T10:10:00Z it runs with what there is")
	})
	w.apply(func(p *fleetscore.PipelineConfig) { p.Dataset, p.Limits.Tries = "readings", 7 })
	l := w.lease("n1")
	if l.Dataset != "readings" {
		t.Errorf("the task reads %s", l.Dataset)
	}
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded || got.Config.Limits.Tries != 7 {
		t.Errorf("job %+v", got)
	}
}

// TestDeadline: at the deadline a job runs with what there is.
func TestDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Deadline: fleetscore.Duration(10 * time.Minute)}})
	w.rows(day.Add(9 * time.Hour))
	iv := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(10 * time.Hour)}
	j, err := w.Submit(t.Context(), "p", &iv)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool {
		return strings.HasSuffix(j.Reason, "; at 2026-11-23T10:10:00Z it runs with what there is")
	})
	w.set(day.Add(10*time.Hour + 10*time.Minute))
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued && j.Reason == "" })
}

// TestJobEndsWithItsPipeline: a waiting job whose pipeline is taken out of the
// configuration is canceled, also when nobody looked at it meanwhile.
func TestJobEndsWithItsPipeline(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		w := newWorld(t, fleetscore.PipelineConfig{})
		iv := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
		j, err := w.Submit(t.Context(), "p", &iv)
		if err != nil {
			t.Fatal(err)
		}
		w.wait(j.ID, func(j fleetscore.Job) bool {
			return strings.HasPrefix(j.Reason, "waits for dataset readings, which has no rows yet; ") &&
				strings.HasSuffix(j.Reason, "; it waits without limit, as the pipeline has no schedule.deadline")
		})
		if restart {
			w.stop()
			w.open()
		}
		w.applyConfig(func(cfg *fleetscore.Config) { delete(cfg.Pipelines, "p") })
		if restart {
			w.run(w.bucket())
		}
		if got := w.wait(j.ID, ended); got.State != fleetscore.JobCanceled || !strings.Contains(got.Reason, "no pipeline p any more") {
			t.Errorf("restart %t: job %+v", restart, got)
		}
	}
}

// TestPlannedJobMovesToAnotherPool: the tasks of a job whose pool is gone go to
// the pool that the pipeline names now, and end with the pipeline if both are gone.
func TestPlannedJobMovesToAnotherPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	w.applyConfig(func(cfg *fleetscore.Config) {
		p := cfg.Pipelines["p"]
		p.Pool = "big"
		cfg.Pipelines["p"] = p
		cfg.Pools = map[string]fleetscore.PoolConfig{"big": {Provider: "local", Slots: 1}}
	})
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.Config.Pool == "big" && j.Reason == "" })
	if q, _, err := w.ledger.QueueDepth(t.Context(), "big"); q == 0 || err != nil {
		t.Errorf("pool big has %d tasks, %v", q, err)
	}
	w.applyConfig(func(cfg *fleetscore.Config) { cfg.Pipelines, cfg.Pools = nil, nil })
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobCanceled || !strings.Contains(got.Reason, "neither pipeline p nor its pool big") {
		t.Errorf("job %+v", got)
	}
}

// TestNothingScoredIsNotGreen: a job over an interval without rows fails and says
// why; with the limit written out it succeeds.
func TestNothingScoredIsNotGreen(t *testing.T) {
	t.Parallel()
	for want, limit := range map[fleetscore.JobState]*fleetscore.Allowance{fleetscore.JobFailed: nil, fleetscore.JobSucceeded: fleetscore.AllowShare(100)} {
		w := newWorld(t, fleetscore.PipelineConfig{Limits: fleetscore.LimitsConfig{NoData: limit}})
		w.rows(day.Add(9 * time.Hour))
		iv := fleetscore.Interval{From: day.Add(6 * time.Hour), To: day.Add(7 * time.Hour)}
		j, err := w.Submit(t.Context(), "p", &iv)
		if err != nil {
			t.Fatal(err)
		}
		l := w.lease("n1")
		if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
			t.Fatal(err)
		}
		got := w.wait(j.ID, ended)
		if got.State != want || got.Outcomes[fleetscore.NoData] != 3 || (want == fleetscore.JobFailed) != strings.Contains(got.Reason, "none of 3 sensors has readings") {
			t.Errorf("job %+v, want %s", got, want)
		}
	}
}

// gone takes the pipeline out of the configuration in the midst of a submission, and
// lets it go on when the scheduler has looked which pipelines there are.
type gone struct {
	ledger.Ledger
	take   func()
	looked chan struct{}
}

func (g *gone) Jobs(ctx context.Context, f ledger.JobFilter) ([]fleetscore.Job, error) {
	jobs, err := g.Ledger.Jobs(ctx, f)
	if f.Pipeline == "" {
		select {
		case g.looked <- struct{}{}:
		default:
		}
	}
	return jobs, err
}

func (g *gone) DecideSchedule(ctx context.Context, pipeline string, decide func(ledger.ScheduleView) (ledger.ScheduleDecision, error)) (ledger.ScheduleDecision, error) {
	select {
	case <-g.looked: // at the start
	case <-time.After(20 * time.Second):
		return ledger.ScheduleDecision{}, errors.New("nobody looks")
	}
	g.take()
	select {
	case <-g.looked:
	case <-time.After(20 * time.Second):
		return ledger.ScheduleDecision{}, errors.New("nobody looks again")
	}
	return g.Ledger.DecideSchedule(ctx, pipeline, decide)
}

// TestSubmitWhilePipelineGoes: a job that is submitted while its pipeline is taken
// out of the configuration doesn't wait for ever.
func TestSubmitWhilePipelineGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.stop()
	w.wrap = func(l ledger.Ledger) ledger.Ledger {
		return &gone{Ledger: l, looked: make(chan struct{}, 1), take: func() {
			w.applyConfig(func(cfg *fleetscore.Config) { delete(cfg.Pipelines, "p") })
		}}
	}
	w.start(w.bucket())
	iv := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
	if j, err := w.Submit(t.Context(), "p", &iv); !fleetscore.NotFound.Is(err) {
		t.Errorf("got job %+v, %v; want kind not found", j, err)
	}
	jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
	if err != nil || len(jobs) != 1 || jobs[0].State != fleetscore.JobCanceled {
		t.Errorf("jobs %+v, %v; want one that is canceled", jobs, err)
	}
}
