package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// limitTimes ends what takes longer than limits.task_timeout and limits.job_timeout
// allow. The nodes of the leases that are taken back learn it by the answer to their
// next heartbeat and stop the work.
func (b *Broker) limitTimes(ctx context.Context, now time.Time) error {
	jobs, err := b.ledger.Jobs(ctx, ledger.JobFilter{States: []fleetscore.JobState{fleetscore.JobRunning}})
	if err != nil {
		return err
	}
	var problems []error
	for _, j := range jobs {
		if limit := j.Config.Limits.JobTimeout.D(); limit > 0 && j.Started != nil && !now.Before(j.Started.Add(limit)) {
			problems = append(problems, b.timeOut(ctx, j, limit, now))
			continue
		}
		if limit := j.Config.Limits.TaskTimeout.D(); limit > 0 {
			reason := fmt.Sprintf("not done after %s (limits.task_timeout)", limit)
			problems = append(problems, b.takeBack(ctx, ledger.LeaseFilter{Job: j.ID, StartedBefore: now.Add(-limit)}, dispatch.TimedOut, always(reason)))
		}
	}
	return errors.Join(problems...)
}

// timeOut ends what remains of a job whose time is up.
func (b *Broker) timeOut(ctx context.Context, j fleetscore.Job, limit time.Duration, now time.Time) error {
	_, err := b.ledger.TimeOutJob(ctx, j.ID, fmt.Sprintf("the job took longer than %s (limits.job_timeout)", limit), now)
	if fleetscore.Conflict.Is(err) {
		return nil // it ended meanwhile
	}
	if err == nil {
		b.log.Warn("job is out of time", "job", j.ID, "tasks", j.Tasks, "ended", j.TasksEnded, "limit", limit)
	}
	return err
}
