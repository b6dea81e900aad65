package scheduler

import (
	"context"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// SetPaused pauses the schedule of a pipeline or lets it go on, and returns since when
// it is paused; zero if it isn't. Jobs that were made go on. Kind NotFound if there is
// no such pipeline, Conflict if it has no schedule. Doing what is done already changes
// nothing.
func (s *Scheduler) SetPaused(ctx context.Context, pipeline string, paused bool) (time.Time, error) {
	op := "resume schedule"
	if paused {
		op = "pause schedule"
	}
	if _, err := s.scheduled(ctx, op, pipeline); err != nil {
		return time.Time{}, err
	}
	now := s.now().UTC().Truncate(time.Microsecond)
	d, err := s.ledger.DecideSchedule(ctx, pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		if v.State.Created.IsZero() {
			v.State.Created = now
		}
		if !paused {
			v.State.Paused = time.Time{}
		} else if v.State.Paused.IsZero() {
			v.State.Paused = now
		}
		return ledger.ScheduleDecision{State: v.State}, nil
	})
	if err != nil {
		return time.Time{}, err
	}
	s.log.Info("schedule changed", "pipeline", pipeline, "paused", paused)
	return d.State.Paused, nil
}

// Trigger makes a pipeline's schedule due now, also while it is paused: it makes a job
// that covers what no job has covered yet. Kind NotFound if there is no such pipeline,
// Conflict if it has no schedule, or if a job of the schedule hasn't ended and the
// schedule doesn't allow or replace it.
func (s *Scheduler) Trigger(ctx context.Context, pipeline string) (fleetscore.Job, error) {
	p, err := s.scheduled(ctx, "trigger schedule", pipeline)
	if err != nil {
		return fleetscore.Job{}, err
	}
	if p.Schedule.RunAfter != "" {
		return fleetscore.Job{}, fleetscore.Errorf(fleetscore.Conflict, "trigger schedule", pipeline, "its jobs follow those of %s", p.Schedule.RunAfter).
			WithHint("fleetscore schedule trigger %s, or fleetscore job submit %s", p.Schedule.RunAfter, pipeline)
	}
	now := s.now()
	d, err := s.ledger.DecideSchedule(ctx, pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		out, _, err := decideBy(schedule.Trigger, pipeline, p, v, now)
		return out, err
	})
	if err != nil {
		return fleetscore.Job{}, err
	}
	s.log.Info("schedule was triggered", "job", d.Job.ID, "interval", d.Job.Interval.String())
	return s.stillThere(ctx, *d.Job)
}

// scheduled is a pipeline that has a schedule.
func (s *Scheduler) scheduled(ctx context.Context, op, pipeline string) (fleetscore.PipelineConfig, error) {
	cfg, err := s.config(ctx)
	if err != nil {
		return fleetscore.PipelineConfig{}, err
	}
	p, ok := cfg.Pipelines[pipeline]
	if !ok {
		return p, fleetscore.Errorf(fleetscore.NotFound, op, pipeline, "there is no such pipeline").WithHint("fleetscore schedule list shows all pipelines with their schedules")
	}
	if !p.Schedule.IsSet() && p.Schedule.RunAfter == "" {
		return p, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "the pipeline has no schedule").WithHint("fleetscore job submit %s makes a job", pipeline)
	}
	return p, nil
}
