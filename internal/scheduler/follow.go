package scheduler

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// follow makes the jobs of a pipeline follow a configuration that was changed
// while they wait, and returns it and the jobs that wait to be planned, oldest first.
//
// The jobs are read before the configuration, and jobs that come meanwhile are left to the
// next step: a job that was made by a newer configuration must not go back to an older one.
//
//   - A job that waits for data or models takes the pipeline's configuration as it
//     is now.
//   - A job that was planned keeps what it was planned by. If its pool is gone, its
//     tasks go to the pool that the pipeline names now.
//   - Without its pipeline, a job that nobody would ever run is canceled.
func (s *Scheduler) follow(ctx context.Context, name string) (cfg fleetscore.Config, jobs []fleetscore.Job, err error) {
	states := []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning}
	if jobs, err = s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: states}); err != nil {
		return cfg, nil, err
	}
	if cfg, err = s.config(ctx); err != nil {
		return cfg, nil, err
	}
	changed := false
	known := map[fleetscore.JobID]bool{}
	for _, j := range jobs {
		known[j.ID] = true
		followed := j
		if gone := followConfig(cfg, &followed); gone == "" {
			changed = changed || !reflect.DeepEqual(j, followed)
		} else if _, err := s.cancel(ctx, j.ID, gone); err != nil && !fleetscore.Conflict.Is(err) {
			return cfg, nil, err
		}
	}
	if changed {
		if err := s.ledger.UpdateJobs(ctx, name, states, func(j *fleetscore.Job) {
			if known[j.ID] {
				followConfig(cfg, j)
			}
		}); err != nil {
			return cfg, nil, err
		}
		if jobs, err = s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: states}); err != nil {
			return cfg, nil, err
		}
	}
	_, configured := cfg.Pipelines[name]
	jobs = slices.DeleteFunc(jobs, func(j fleetscore.Job) bool { return j.State != fleetscore.JobWaiting || !configured || !known[j.ID] })
	slices.Reverse(jobs)
	return cfg, jobs, nil
}

// followConfig changes a job as the configuration asks. It says why the job can't
// ever run, if so.
func followConfig(cfg fleetscore.Config, j *fleetscore.Job) (gone string) {
	p, ok := cfg.Pipelines[j.Pipeline]
	if j.State == fleetscore.JobWaiting {
		if !ok {
			return fmt.Sprintf("the configuration has no pipeline %s any more, which the job was waiting for", j.Pipeline)
		}
		j.Config = p
		return ""
	}
	_, there := cfg.Pools[j.Config.Pool]
	_, other := cfg.Pools[p.Pool]
	switch {
	case there:
		j.Reason = ""
	case !ok:
		return fmt.Sprintf("the configuration has neither pipeline %s nor its pool %s any more", j.Pipeline, j.Config.Pool)
	case other:
		j.Config.Pool, j.Reason = p.Pool, ""
	default:
		j.Reason = fmt.Sprintf("waits without limit for pool %s, which the configuration has no more: put it back, name another pool in pipeline %s, or cancel the job", j.Config.Pool, j.Pipeline)
	}
	return ""
}
