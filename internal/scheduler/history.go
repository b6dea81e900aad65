package scheduler

import (
	"context"
	"errors"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// errKnown says that the ledger knows of a pipeline's jobs.
var errKnown = errors.New("the ledger knows of the pipeline")

// recall takes over the jobs of a pipeline that the ledger knows nothing of, from the
// outcomes in the store: the ledger was lost, and the store wasn't. The next interval
// begins where the last of them ended, so that nothing is scored again or left out, and
// due times since then are caught up with as after an outage. A ledger that knows of
// anything is left as it is.
func (s *Scheduler) recall(ctx context.Context, name string, p fleetscore.PipelineConfig) error {
	unknown := func(v ledger.ScheduleView) bool {
		v.State.Revised = 0 // it is looked for revisions meanwhile
		return v.State == ledger.ScheduleState{Pipeline: name} && len(v.Active) == 0
	}
	v, err := s.ledger.Schedule(ctx, name)
	if err != nil || !unknown(v) {
		return err
	}
	if jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, Limit: 1}); err != nil || len(jobs) > 0 {
		return err
	}
	done, err := s.catalog.Coverage(name).DoneJobs(ctx)
	if err != nil || len(done) == 0 {
		return err
	}
	jobs := make([]fleetscore.Job, len(done))
	for i, d := range done {
		jobs[i] = recalledJob(name, p, d)
	}
	until := done[len(done)-1].Interval.To.UTC()
	_, err = s.ledger.DecideSchedule(ctx, name, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		if !unknown(v) {
			return ledger.ScheduleDecision{}, errKnown
		}
		v.State.Created, v.State.NextFrom = s.now().UTC(), until
		if p.Schedule.IsSet() {
			v.State.LastDue = until
		}
		return ledger.ScheduleDecision{State: v.State, Backfill: jobs}, nil
	})
	if errors.Is(err, errKnown) || fleetscore.Conflict.Is(err) { // somebody was faster
		return nil
	}
	if err == nil {
		s.log.Warn("the ledger knew nothing of the pipeline's jobs; they were taken from the store", "pipeline", name, "jobs", len(jobs), "next_interval_from", until)
	}
	return err
}

// recalledJob is an ended job as far as its outcomes tell. When it was made and ended
// isn't known: the end of its interval stands for both.
func recalledJob(name string, p fleetscore.PipelineConfig, d catalog.DoneJob) fleetscore.Job {
	to := d.Interval.To.UTC()
	j := fleetscore.Job{ID: d.Job, Pipeline: name, Interval: fleetscore.Interval{From: d.Interval.From.UTC(), To: to}, Config: p,
		Expected: d.Outcomes.Total(), Outcomes: d.Outcomes, Rows: d.Rows, Anomalies: d.Anomalies, Created: to, Ended: &to}
	j.State, j.Reason = dispatch.Judge(p.Limits, d.Outcomes, d.Rows, dispatch.Aside{})
	return j
}
