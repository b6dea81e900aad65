package scheduler

import (
	"context"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// scheduleTopics are what the due times of a pipeline depend on: the configuration, its
// own jobs, and those of the pipeline that it follows, if it follows one.
func scheduleTopics(pipeline, leader string) []ledger.Topic {
	out := []ledger.Topic{ledger.ConfigTopic, ledger.JobsTopic(pipeline)}
	if leader != "" {
		out = append(out, ledger.JobsTopic(leader))
	}
	return out
}

// dueAfter decides for a pipeline that follows another one. How far the other has come
// only grows, so that it may be read before the transaction that decides.
func (s *Scheduler) dueAfter(ctx context.Context, name string, p fleetscore.PipelineConfig) (next, error) {
	n := next{Topics: scheduleTopics(name, p.Schedule.RunAfter)}
	view, err := s.ledger.Schedule(ctx, name)
	if err != nil {
		return n, err
	}
	leader, err := s.leader(ctx, p.Schedule.RunAfter, view.State.LastDue)
	if err != nil {
		return n, err
	}
	now := s.now()
	decide := func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		fresh := v.State.Created.IsZero()
		d, _, err := decideBy(func(_ fleetscore.ScheduleConfig, _ string, st schedule.State, active []fleetscore.Job, _ time.Time) (schedule.Decision, error) {
			return schedule.After(leader, st, fresh, active), nil
		}, name, p, v, now)
		return d, err
	}
	d, err := decide(view)
	if err != nil || len(d.Occurrences) == 0 && d.State == view.State {
		return n, err // nothing to write
	}
	if d, err = s.ledger.DecideSchedule(ctx, name, decide); err == nil && d.Job != nil {
		s.log.Info("job is due after another pipeline's", "job", d.Job.ID, "interval", d.Job.Interval.String(), "after", p.Schedule.RunAfter)
	}
	return n, err
}

// recentJobs is how many jobs of a pipeline are searched for the one that ended last.
const recentJobs = 200

// leader says how far a pipeline's jobs have come. Jobs over rows before since, such as
// backfills and reruns, hold nothing up.
func (s *Scheduler) leader(ctx context.Context, name string, since time.Time) (schedule.Leader, error) {
	l := schedule.Leader{Pipeline: name}
	view, err := s.ledger.Schedule(ctx, name)
	if err != nil {
		return l, err
	}
	l.Until = view.State.NextFrom
	for _, j := range view.Active {
		if j.Interval.To.After(since) && j.Interval.From.Before(l.Until) {
			l.Until = j.Interval.From
		}
	}
	if !l.Until.After(since) {
		return l, nil
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, Limit: recentJobs})
	if err != nil {
		return l, err
	}
	for _, j := range jobs {
		if j.State.Ended() && j.Interval.To.Equal(l.Until) {
			l.From, l.Ended = j.Interval.From, j.State
			break
		}
	}
	return l, nil
}
