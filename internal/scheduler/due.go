package scheduler

import (
	"context"
	"crypto/rand"
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

// due decides the due times of a pipeline that have come. The decision is taken
// inside the transaction that writes it, from the state as it is there: whatever
// was submitted or decided meanwhile has been written before or comes after.
func (s *Scheduler) due(ctx context.Context, name string) (next, error) {
	cfg, err := s.config(ctx)
	if err != nil {
		return next{}, err
	}
	p, ok := cfg.Pipelines[name]
	if ok {
		if err := s.recall(ctx, name, p); err != nil {
			return next{}, err
		}
	}
	if ok && p.Schedule.RunAfter != "" {
		return s.dueAfter(ctx, name, p)
	}
	if !ok || !p.Schedule.IsSet() {
		return next{Topics: scheduleTopics(name, "")}, nil
	}
	now := s.now()
	view, err := s.ledger.Schedule(ctx, name)
	if err != nil {
		return next{}, err
	}
	decision, wake, err := decideDue(name, p, view, now)
	if err != nil || len(decision.Occurrences) == 0 && decision.State == view.State {
		return next{Wake: wake, Topics: scheduleTopics(name, "")}, err // nothing to write
	}
	decision, err = s.ledger.DecideSchedule(ctx, name, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		d, w, err := decideDue(name, p, v, now)
		wake = w
		return d, err
	})
	for range decision.Cancel {
		s.metrics.ended(p, fleetscore.JobCanceled)
	}
	if err == nil && decision.Job != nil {
		s.log.Info("job is due", "job", decision.Job.ID, "interval", decision.Job.Interval.String(), "coalesced", len(decision.Occurrences)-1)
	}
	return next{Wake: wake, Topics: scheduleTopics(name, "")}, err
}

// ahead is how far a decided due time may lie after now, as clocks are never the
// same, before it is held to be an error.
const ahead = time.Minute

// decideDue decides which due times have come by now, beside the jobs of the schedule
// that haven't ended.
func decideDue(name string, p fleetscore.PipelineConfig, v ledger.ScheduleView, now time.Time) (ledger.ScheduleDecision, time.Time, error) {
	return decideBy(schedule.Decide, name, p, v, now)
}

// decideBy takes a decision from what is in the ledger, and returns what to write there.
func decideBy(decide func(fleetscore.ScheduleConfig, string, schedule.State, []fleetscore.Job, time.Time) (schedule.Decision, error),
	name string, p fleetscore.PipelineConfig, v ledger.ScheduleView, now time.Time) (out ledger.ScheduleDecision, wake time.Time, err error) {
	out.State = v.State
	if out.State.Created.IsZero() {
		out.State.Created = now.UTC()
	}
	if v.State.LastDue.After(now.Add(ahead)) {
		return out, wake, fleetscore.Errorf(fleetscore.Unavailable, "decide due times", name,
			"the due time %s was decided already, and it is only %s: this server's clock is behind, or was ahead then", v.State.LastDue.Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("set the clock; if it is right, the schedule goes on at that time by itself, and until then job submit with --from and --to scores what came in")
	}
	scheduled := slices.DeleteFunc(slices.Clone(v.Active), func(j fleetscore.Job) bool { return j.Due == nil })
	st := out.State
	d, err := decide(p.Schedule, name, schedule.State{Created: st.Created, LastDue: st.LastDue, NextFrom: st.NextFrom, Queued: st.Queued, CatchUp: st.CatchUp, Paused: st.Paused}, scheduled, now)
	if err != nil {
		return out, d.Wake, err
	}
	out.State.LastDue, out.State.NextFrom, out.State.Queued, out.State.CatchUp = d.Next.LastDue, d.Next.NextFrom, d.Next.Queued, d.Next.CatchUp
	out.Occurrences = d.Occurrences
	if d.Interval == nil {
		return out, d.Wake, nil
	}
	due := d.Interval.To.UTC()
	j := newJob(name, p, *d.Interval, now)
	j.Due = &due
	out.Job = &j
	out.Cancel, out.Canceled, out.At = d.Cancel, "replaced by job "+string(j.ID)+", which covers its interval too", now
	for i, o := range out.Occurrences {
		if o.State == fleetscore.OccurrenceRan || o.State == fleetscore.OccurrenceCoalesced {
			out.Occurrences[i].Job = j.ID // the others are coalesced into it
		}
	}
	return out, d.Wake, nil
}

func newJob(pipeline string, p fleetscore.PipelineConfig, iv fleetscore.Interval, now time.Time) fleetscore.Job {
	iv = fleetscore.Interval{From: iv.From.UTC(), To: iv.To.UTC()}
	id := fmt.Sprintf("%s-%s-%s", pipeline, iv.To.Format("20060102T1504Z"), strings.ToLower(rand.Text()[:6]))
	return fleetscore.Job{ID: fleetscore.JobID(id), Pipeline: pipeline, Interval: iv, State: fleetscore.JobWaiting, Config: p, Priority: p.Priority, Created: now.UTC()}
}

// Wish is what somebody who asks for a job wants of it.
type Wish func(*fleetscore.Job)

// Again wishes that every sensor is scored, also those for which nothing has changed.
func Again(j *fleetscore.Job) { j.Again = true }

// Submit makes a job by hand. Without an interval it covers what no job of the
// pipeline has covered yet, as far as the dataset is complete, and the schedule
// goes on after it. Kind NotFound if there is no such pipeline, Conflict if there
// is nothing new to score, or if a job over the same interval hasn't ended.
func (s *Scheduler) Submit(ctx context.Context, pipeline string, iv *fleetscore.Interval, wishes ...Wish) (fleetscore.Job, error) {
	const op = "submit job"
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return fleetscore.Job{}, err
	}
	p, ok := cfg.Pipelines[pipeline]
	if !ok {
		return fleetscore.Job{}, noPipeline(op, pipeline)
	}
	if err := s.recall(ctx, pipeline, p); err != nil {
		return fleetscore.Job{}, err
	}
	now := s.now()
	decide := func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		return decideAgain(pipeline, p, *iv, v, now)
	}
	if iv == nil {
		snap, err := s.catalog.Dataset(p.Dataset).Snapshot(ctx)
		if fleetscore.NotFound.Is(err) {
			return fleetscore.Job{}, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "dataset %s has no rows yet", p.Dataset)
		} else if err != nil {
			return fleetscore.Job{}, err
		}
		whole := coverable(snap, now)
		decide = func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			return decideNext(pipeline, p, whole, v, now)
		}
	} else if err := iv.Validate(); err != nil {
		return fleetscore.Job{}, err
	}
	d, err := s.ledger.DecideSchedule(ctx, pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		d, err := decide(v)
		if d.Job != nil {
			for _, wish := range wishes {
				wish(d.Job)
			}
		}
		return d, err
	})
	if err != nil {
		return fleetscore.Job{}, err
	}
	s.log.Info("job was submitted", "job", d.Job.ID, "interval", d.Job.Interval.String())
	return s.stillThere(ctx, *d.Job)
}

func noPipeline(op, pipeline string) error {
	return fleetscore.Errorf(fleetscore.NotFound, op, pipeline, "there is no such pipeline").WithHint("fleetscore schedule list shows the pipelines; fleetscore apply adds one")
}

// stillThere ends a new job whose pipeline was taken out of the configuration while
// it was made: the pipeline's loops may have ended before they saw the job. A
// configuration that is applied after this look finds the job itself.
func (s *Scheduler) stillThere(ctx context.Context, j fleetscore.Job) (fleetscore.Job, error) {
	cfg, err := s.config(ctx)
	if err != nil {
		return j, nil // the job is made; a start looks for jobs without a pipeline too
	}
	if gone := followConfig(cfg, &j); gone != "" {
		if _, err := s.cancel(ctx, j.ID, gone); err != nil && !fleetscore.Conflict.Is(err) {
			return j, err
		}
		return j, fleetscore.Errorf(fleetscore.NotFound, "submit job", j.Pipeline, "the pipeline was taken out of the configuration meanwhile")
	}
	return j, nil
}

// decideAgain makes a job over an interval that somebody names.
func decideAgain(pipeline string, p fleetscore.PipelineConfig, iv fleetscore.Interval, v ledger.ScheduleView, now time.Time) (ledger.ScheduleDecision, error) {
	if j := covering(v.Active, iv); j != nil {
		return ledger.ScheduleDecision{}, fleetscore.Errorf(fleetscore.Conflict, "submit job", pipeline, "job %s covers the same interval and is %s", j.ID, j.State).
			WithHint("wait for it: fleetscore job wait %s; or cancel it", j.ID)
	}
	j := newJob(pipeline, p, iv, now)
	return ledger.ScheduleDecision{State: v.State, Job: &j}, nil
}

// decideNext makes a job over what the pipeline's jobs haven't covered of the
// rows there are.
func decideNext(pipeline string, p fleetscore.PipelineConfig, whole fleetscore.Interval, v ledger.ScheduleView, now time.Time) (ledger.ScheduleDecision, error) {
	iv := whole
	if !v.State.NextFrom.IsZero() {
		iv.From = v.State.NextFrom
	}
	if iv.From.IsZero() || !iv.To.After(iv.From) {
		why := fmt.Sprintf("dataset %s has no complete rows", p.Dataset)
		if !v.State.NextFrom.IsZero() {
			why += " after " + iv.From.UTC().Format(time.RFC3339) + ", where the intervals of this pipeline's jobs end"
			if i := slices.IndexFunc(v.Active, func(j fleetscore.Job) bool { return j.Interval.To.Equal(iv.From) }); i >= 0 {
				why += fmt.Sprintf(", the last of them is %s, which is %s", v.Active[i].ID, v.Active[i].State)
			}
		}
		return ledger.ScheduleDecision{}, fleetscore.Errorf(fleetscore.Conflict, "submit job", pipeline, "%s", why).
			WithHint("give --from and --to to score an interval again, or rows in it that came after its job")
	}
	d := ledger.ScheduleDecision{State: v.State}
	if d.State.Created.IsZero() {
		d.State.Created = now.UTC()
	}
	d.State.NextFrom = iv.To.UTC()
	j := newJob(pipeline, p, iv, now)
	d.Job = &j
	return d, nil
}

// coverable is from before a dataset's first row until it is complete; an end
// that isn't known is zero.
func coverable(snap *table.Snapshot, now time.Time) (iv fleetscore.Interval) {
	for _, f := range snap.Files {
		if before := f.First.Time().Add(-time.Microsecond); iv.From.IsZero() || before.Before(iv.From) {
			iv.From = before
		}
	}
	if until, complete := catalog.CompleteUntil(snap, now); complete {
		iv.To = until.Time()
	}
	return iv
}

// Cancel ends a job that has not begun to commit.
func (s *Scheduler) Cancel(ctx context.Context, id fleetscore.JobID) (fleetscore.Job, error) {
	return s.cancel(ctx, id, "canceled by request")
}

func (s *Scheduler) cancel(ctx context.Context, id fleetscore.JobID, reason string) (fleetscore.Job, error) {
	j, err := s.ledger.CancelJob(ctx, id, reason, s.now())
	if err == nil {
		s.metrics.ended(j.Config, j.State)
		s.log.Info("job ended", "job", id, "state", j.State, "reason", reason)
	}
	return j, err
}
