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
	maxHistory  = 50_000               // ended jobs of a pipeline
	forgetAtOne = 50                   // jobs in a transaction, as leases wait for it
	keptAudit   = 366 * 24 * time.Hour // and at most
	maxAudit    = 100_000              // entries
	maxConfigs  = 1000                 // configurations
	strayEvery  = 24 * time.Hour       // listing all logs takes time
)

// Maintain keeps the tables, the logs and the ledger small: see catalog.Maintain for
// the tables. Jobs that ended longer ago than their pipeline's history are forgotten
// with their logs. A dataset, if named, is the only thing maintained.
//
// Each step may be repeated, so Maintain may be killed anywhere.
func (s *Scheduler) Maintain(ctx context.Context, dataset string) ([]catalog.Maintained, error) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	cfg, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	u := catalog.Upkeep{Dataset: dataset, Use: s.inUse, Datasets: map[string]time.Duration{}, Pipelines: map[string]time.Duration{}, Late: goneHistory}
	for name, d := range cfg.Datasets {
		u.Datasets[name] = d.Retention.D()
	}
	for name, p := range cfg.Pipelines {
		u.Pipelines[name] = p.Retention.D()
	}
	done, err := s.catalog.Maintain(ctx, now, u)
	if err != nil || dataset != "" {
		return done, err
	}
	return done, s.forget(ctx, cfg, now)
}

// inUse is what the jobs that haven't ended, and the next ones, need of the store.
func (s *Scheduler) inUse(ctx context.Context) (catalog.InUse, error) {
	use := catalog.InUse{Jobs: map[fleetscore.JobID]bool{}, Files: map[string]map[string]bool{}, Since: map[string]time.Time{}}
	since := func(dataset string, at time.Time) {
		if have, ok := use.Since[dataset]; !at.IsZero() && (!ok || at.Before(have)) {
			use.Since[dataset] = at
		}
	}
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
// keeps of the past.
func (s *Scheduler) forget(ctx context.Context, cfg fleetscore.Config, now time.Time) error {
	pipelines, err := s.ledger.HistoryPipelines(ctx)
	if err != nil {
		return err
	}
	bounds := ledger.Bounds{Occurrences: map[string]time.Time{}, Audit: now.Add(-keptAudit), Entries: maxAudit, Configs: maxConfigs}
	var problems []error
	for _, name := range pipelines {
		before := now.Add(-history(cfg, name))
		bounds.Occurrences[name] = before
		problems = append(problems, s.forgetJobs(ctx, name, before)) // the others are forgotten all the same
	}
	problems = append(problems, s.ledger.Trim(ctx, bounds))
	if now.Sub(s.upkeep.strayed).Abs() >= strayEvery {
		_, err := s.catalog.DeleteStrayLogs(ctx, now.Add(-goneHistory), s.ledger.UnknownJobs)
		if problems = append(problems, err); err == nil {
			s.upkeep.strayed = now
		}
	}
	return errors.Join(problems...)
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

// forgetJobs deletes the logs of a pipeline's old jobs, then the jobs: what is killed
// in between is found again.
func (s *Scheduler) forgetJobs(ctx context.Context, pipeline string, before time.Time) error {
	for {
		ids, err := s.ledger.OldJobs(ctx, ledger.OldJobs{Pipeline: pipeline, Before: before, Keep: maxHistory, Limit: forgetAtOne})
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if _, err := s.catalog.DeleteJobLogs(ctx, pipeline, id); err != nil {
				return err
			}
		}
		if err := s.ledger.ForgetJobs(ctx, ids); err != nil {
			return err
		}
		s.log.Info("old jobs were forgotten", "pipeline", pipeline, "jobs", len(ids), "first", ids[0])
		if len(ids) < forgetAtOne {
			return nil
		}
	}
}
