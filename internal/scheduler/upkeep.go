package scheduler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// What is kept of the past, besides what the configuration says.
const (
	goneHistory = 30 * 24 * time.Hour  // of pipelines that are configured no more
	maxHistory  = 50_000               // ended jobs of a pipeline, unless retention.history.jobs says another number
	forgetAtOne = 50                   // jobs in a transaction, as leases wait for it
	keptAudit   = 366 * 24 * time.Hour // and at most
	maxAudit    = 100_000              // entries
	maxConfigs  = 1000                 // configurations
	strayEvery  = 24 * time.Hour       // listing all logs takes time
	logsEvery   = time.Hour            // the same, for bounds of age and size
)

// Maintain keeps the tables, the logs and the ledger small: see catalog.Maintain for
// the tables. Jobs that ended longer ago than their pipeline's history are forgotten
// with their logs. What m asks for may be less.
//
// Each step may be repeated, so Maintain may be killed anywhere.
func (s *Scheduler) Maintain(ctx context.Context, m catalog.Maintenance) ([]catalog.Maintained, error) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	cfg, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	u := catalog.Upkeep{Maintenance: m, Use: s.inUse, Datasets: map[string]time.Duration{}, Pipelines: map[string]time.Duration{}, Late: goneHistory,
		ResultsBytes: int64(cfg.Retention.Predictions.Size)}
	for name, d := range cfg.Datasets {
		u.Datasets[name] = d.Retention.D()
	}
	for name, p := range cfg.Pipelines {
		u.Pipelines[name] = p.Retention.D()
	}
	done, err := s.catalog.Maintain(ctx, now, u)
	if err != nil || m.Dataset != "" {
		return done, err
	}
	kept, err := s.keepLogs(ctx, cfg, now, m.Dry)
	past, problem := s.forget(ctx, cfg, now, m.Dry)
	return append(append(done, kept...), past), errors.Join(err, problem)
}

// keepLogs deletes the logs of ended jobs that are beyond the bounds of their age and
// size, if there are bounds, from time to time.
func (s *Scheduler) keepLogs(ctx context.Context, cfg fleetscore.Config, now time.Time, dry bool) ([]catalog.Maintained, error) {
	c := cfg.Retention.Logs
	if c.Age == 0 && c.Size == 0 || !dry && now.Sub(s.upkeep.loggedAt).Abs() < logsEvery {
		return nil, nil
	}
	k := catalog.LogsKept{Bytes: int64(c.Size), Dry: dry, InUse: map[fleetscore.JobID]bool{}}
	if c.Age > 0 {
		k.Before = now.Add(-c.Age.D())
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		k.InUse[j.ID] = true
	}
	done, err := s.catalog.KeepLogs(ctx, k)
	if err == nil && !dry {
		s.upkeep.loggedAt = now
	}
	return []catalog.Maintained{done}, err
}

// inUse is what the jobs that haven't ended, and the next ones, need of the store.
func (s *Scheduler) inUse(ctx context.Context) (catalog.InUse, error) {
	use := catalog.InUse{Jobs: map[fleetscore.JobID]bool{}, Files: map[string]map[string]bool{}, Since: map[string]time.Time{}, Results: map[string]time.Time{}}
	earliest := func(of map[string]time.Time, name string, at time.Time) {
		if have, ok := of[name]; !at.IsZero() && (!ok || at.Before(have)) {
			of[name] = at
		}
	}
	since := func(dataset string, at time.Time) { earliest(use.Since, dataset, at) }
	cfg, err := s.config(ctx)
	if err != nil {
		return use, err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		p := cfg.Pipelines[name]
		v, err := s.ledger.Schedule(ctx, name)
		if err != nil {
			return use, err
		}
		switch {
		case !p.Schedule.IsSet() && p.Schedule.RunAfter == "":
		case v.State.NextFrom.IsZero(): // where its first interval begins isn't decided yet
			since(p.Dataset, time.UnixMicro(1))
		default:
			since(p.Dataset, v.State.NextFrom)
		}
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil {
		return use, err
	}
	for _, j := range jobs {
		use.Jobs[j.ID] = true
		earliest(use.Results, j.Pipeline, j.Interval.From)
		if j.State == fleetscore.JobWaiting {
			since(j.Config.Dataset, j.Interval.From)
		}
		inputs, err := s.ledger.Inputs(ctx, j.ID)
		if err != nil {
			return use, err
		}
		files := use.Files[j.Config.Dataset]
		if files == nil {
			files = map[string]bool{}
			use.Files[j.Config.Dataset] = files
		}
		for _, in := range inputs {
			for _, f := range in.Files {
				files[f.Path] = true
			}
		}
	}
	return use, nil
}

// forget lets go of jobs that ended long ago, their logs, and of what else the ledger
// keeps of the past. If dry is set, it only counts the jobs.
func (s *Scheduler) forget(ctx context.Context, cfg fleetscore.Config, now time.Time, dry bool) (catalog.Maintained, error) {
	done := catalog.Maintained{Table: "history"}
	pipelines, err := s.ledger.HistoryPipelines(ctx)
	if err != nil {
		return done, err
	}
	keep := cfg.Retention.History.Jobs
	if keep == 0 {
		keep = maxHistory
	}
	bounds := ledger.Bounds{Occurrences: map[string]time.Time{}, Audit: now.Add(-keptAudit), Entries: maxAudit, Configs: maxConfigs}
	var problems []error
	gone := map[fleetscore.JobID]bool{}
	for _, name := range pipelines {
		before := now.Add(-history(cfg, name))
		bounds.Occurrences[name] = before
		problems = append(problems, s.forgetJobs(ctx, ledger.OldJobs{Pipeline: name, Before: before, Keep: keep, Limit: forgetAtOne}, dry, gone)) // the others are forgotten all the same
	}
	if size := int64(cfg.Retention.History.Size); size > 0 {
		problems = append(problems, s.forgetJobs(ctx, ledger.OldJobs{Bytes: size, Limit: forgetAtOne}, dry, gone))
	}
	done.Expired = len(gone)
	if dry {
		return done, errors.Join(problems...)
	}
	problems = append(problems, s.ledger.Trim(ctx, bounds))
	if now.Sub(s.upkeep.strayed).Abs() >= strayEvery {
		n, err := s.catalog.DeleteStrayLogs(ctx, now.Add(-goneHistory), s.ledger.UnknownJobs)
		done.Deleted = n
		if problems = append(problems, err); err == nil {
			s.upkeep.strayed = now
		}
	}
	return done, errors.Join(problems...)
}

// history is how long jobs of a pipeline are kept: no longer than its results, as
// nobody can ask for an explanation of rows that are gone.
func history(cfg fleetscore.Config, pipeline string) time.Duration {
	p, ok := cfg.Pipelines[pipeline]
	keep := p.History.D()
	if !ok || keep <= 0 {
		keep = goneHistory
	}
	if r := p.Retention.D(); r > 0 {
		keep = min(keep, r)
	}
	return keep
}

// countAtOnce is how many old jobs a dry run counts of a pipeline at most, and of all
// pipelines by their size.
const countAtOnce = 1_000_000

// forgetJobs deletes the logs of old jobs, then the jobs: what is killed in between is found
// again. It notes which jobs these were, or would be.
func (s *Scheduler) forgetJobs(ctx context.Context, which ledger.OldJobs, dry bool, gone map[fleetscore.JobID]bool) error {
	if dry {
		which.Limit = countAtOnce
	}
	for {
		ids, err := s.ledger.OldJobs(ctx, which)
		for _, id := range ids {
			gone[id] = true
		}
		if err != nil || len(ids) == 0 || dry {
			return err
		}
		for _, id := range ids {
			pipeline := which.Pipeline
			if pipeline == "" {
				j, err := s.ledger.Job(ctx, id)
				if err != nil {
					return err
				}
				pipeline = j.Pipeline
			}
			if _, err := s.catalog.DeleteJobLogs(ctx, pipeline, id); err != nil {
				return err
			}
		}
		if err := s.ledger.ForgetJobs(ctx, ids); err != nil {
			return err
		}
		s.log.Info("old jobs were forgotten", "pipeline", which.Pipeline, "jobs", len(ids), "first", ids[0])
		if len(ids) < which.Limit {
			return nil
		}
	}
}
