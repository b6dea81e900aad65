package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/schedule"
	"github.com/fleetscore/fleetscore/internal/table"
)

// active are the states of jobs that haven't ended.
var active = []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning, fleetscore.JobCommitting}

// advance makes the jobs that are due and plans those whose data is complete.
func (s *Scheduler) advance(ctx context.Context) (time.Duration, error) {
	now := s.now()
	rest := maxRest
	cfg, _, _, err := s.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return rest, nil
	} else if err != nil {
		return rest, err
	}
	var problems []error
	for name, p := range cfg.Pipelines {
		if p.Schedule.Cron == "" {
			continue
		}
		wake, err := s.due(ctx, name, p, now)
		if err != nil {
			problems = append(problems, err)
		} else if !wake.IsZero() {
			rest = min(rest, wake.Sub(now))
		}
	}
	waiting, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: []fleetscore.JobState{fleetscore.JobWaiting}})
	if err != nil {
		return rest, err
	}
	left := len(waiting)
	for _, j := range slices.Backward(waiting) { // oldest first
		planned, err := s.plan(ctx, cfg, j, now)
		if fleetscore.Corrupt.Is(err) { // it waits until somebody has restored what is damaged; the others go on
			err = s.note(ctx, j, "waits: "+err.Error(), fleetscore.JobWaiting)
		}
		if planned {
			left--
		}
		problems = append(problems, err)
	}
	s.metrics.waiting.Set(float64(left))
	problems = append(problems, s.poolless(ctx, cfg))
	return rest, errors.Join(problems...)
}

// due decides a pipeline's due times.
func (s *Scheduler) due(ctx context.Context, name string, p fleetscore.PipelineConfig, now time.Time) (wake time.Time, err error) {
	state, err := s.scheduleState(ctx, name, now)
	if err != nil {
		return wake, err
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: active})
	if err != nil {
		return wake, err
	}
	if slices.ContainsFunc(jobs, func(j fleetscore.Job) bool { return j.Due != nil }) {
		return wake, nil // its end is a change of the ledger
	}
	d, err := schedule.Due(p.Schedule, name, schedule.State{Created: state.Created, LastDue: state.LastDue, NextFrom: state.NextFrom}, now)
	if err != nil || len(d.Occurrences) == 0 {
		return d.Wake, err
	}
	var job *fleetscore.Job
	if d.Interval != nil {
		due := d.Next.LastDue.UTC()
		j := newJob(name, p, *d.Interval, now)
		j.Due = &due
		d.Occurrences[len(d.Occurrences)-1].Job = j.ID
		job = &j
	}
	for i := range d.Occurrences {
		if d.Occurrences[i].State == fleetscore.OccurrenceCoalesced {
			d.Occurrences[i].Job = job.ID
		}
	}
	next := ledger.ScheduleState{Pipeline: name, Created: state.Created, LastDue: d.Next.LastDue, NextFrom: d.Next.NextFrom}
	if err := s.ledger.DecideOccurrences(ctx, next, d.Occurrences, job); err != nil {
		return wake, err
	}
	if job != nil {
		s.log.Info("job is due", "job", job.ID, "interval", job.Interval.String(), "coalesced", len(d.Occurrences)-1)
	}
	return d.Wake, nil
}

func (s *Scheduler) scheduleState(ctx context.Context, pipeline string, now time.Time) (ledger.ScheduleState, error) {
	state, err := s.ledger.Schedule(ctx, pipeline)
	if fleetscore.NotFound.Is(err) {
		state = ledger.ScheduleState{Pipeline: pipeline, Created: now.UTC()}
		err = s.ledger.PutSchedule(ctx, state)
	}
	return state, err
}

func newJob(pipeline string, p fleetscore.PipelineConfig, iv fleetscore.Interval, now time.Time) fleetscore.Job {
	iv = fleetscore.Interval{From: iv.From.UTC(), To: iv.To.UTC()}
	id := fmt.Sprintf("%s-%s-%s", pipeline, iv.To.Format("20060102T1504Z"), strings.ToLower(rand.Text()[:6]))
	return fleetscore.Job{ID: fleetscore.JobID(id), Pipeline: pipeline, Interval: iv, State: fleetscore.JobWaiting, Config: p, Created: now.UTC()}
}

// Submit makes a job by hand. Without an interval it covers what no job of the
// pipeline has covered yet, as far as the dataset is complete, and the schedule
// goes on after it. Kind NotFound if there is no such pipeline, Conflict if there
// is nothing new to score.
func (s *Scheduler) Submit(ctx context.Context, pipeline string, iv *fleetscore.Interval) (fleetscore.Job, error) {
	const op = "submit job"
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return fleetscore.Job{}, err
	}
	p, ok := cfg.Pipelines[pipeline]
	if !ok {
		return fleetscore.Job{}, fleetscore.Errorf(fleetscore.NotFound, op, pipeline, "there is no such pipeline").WithHint("fleet.yaml names the pipelines; apply it first")
	}
	now := s.now()
	if iv != nil {
		if err := iv.Validate(); err != nil {
			return fleetscore.Job{}, err
		}
		j := newJob(pipeline, p, *iv, now)
		return j, s.ledger.InsertJob(ctx, j)
	}
	state, err := s.scheduleState(ctx, pipeline, now)
	if err != nil {
		return fleetscore.Job{}, err
	}
	snap, err := s.catalog.Dataset(p.Dataset).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return fleetscore.Job{}, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "dataset %s has no rows yet", p.Dataset)
	} else if err != nil {
		return fleetscore.Job{}, err
	}
	next, ok := nextInterval(state, snap, now)
	if !ok {
		return fleetscore.Job{}, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "dataset %s has no rows that a job of this pipeline hasn't covered", p.Dataset).
			WithHint("give --from and --to to score an interval again")
	}
	j := newJob(pipeline, p, next, now)
	state.NextFrom = next.To
	return j, s.ledger.DecideOccurrences(ctx, state, nil, &j)
}

// nextInterval is what the jobs of a schedule have not covered of a dataset.
func nextInterval(state ledger.ScheduleState, snap *table.Snapshot, now time.Time) (iv fleetscore.Interval, ok bool) {
	iv.From = state.NextFrom
	if iv.From.IsZero() {
		for _, f := range snap.Files {
			if before := f.First.Time().Add(-time.Microsecond); iv.From.IsZero() || before.Before(iv.From) {
				iv.From = before
			}
		}
	}
	if until, complete := catalog.CompleteUntil(snap, now); complete {
		iv.To = until.Time()
	}
	return iv, !iv.From.IsZero() && iv.To.After(iv.From)
}

// Cancel ends a job that has not begun to commit.
func (s *Scheduler) Cancel(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error) {
	j, err := s.ledger.CancelJob(ctx, id, "canceled by request", s.now())
	if err == nil {
		s.metrics.jobs.WithLabelValues(string(j.State)).Inc()
		s.log.Info("job ended", "job", id, "state", j.State)
	}
	return j, err
}
