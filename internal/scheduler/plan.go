package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// plan cuts a waiting job into tasks once its data is complete, and notes what it
// waits for until then. A job that can't ever run fails with the reason.
func (s *Scheduler) plan(ctx context.Context, cfg fleetscore.Config, j fleetscore.Job, now time.Time) (planned bool, err error) {
	snap, wait, err := s.data(ctx, j, now)
	if err != nil {
		return false, err
	}
	var gen *fleet.Generation
	if wait == "" {
		gen, err = fleet.Current(ctx, s.store, j.Config.Fleet)
		if fleetscore.NotFound.Is(err) {
			wait, err = "waits for the models of fleet "+j.Config.Fleet+s.whyNoFleet(j.Config.Fleet), nil
		}
		if err != nil {
			return false, err
		}
	}
	if wait != "" {
		return false, s.note(ctx, j, wait, fleetscore.JobWaiting)
	}
	in := ledger.Input{TimeName: cfg.Hub.Time, KeyNames: gen.KeyNames}
	var values []string
	if snap != nil {
		in = ledger.Input{Version: snap.Version, TimeName: snap.Schema.Time, KeyNames: snap.Schema.Key,
			Files: table.ReadQuery{Interval: &j.Interval}.Prune(snap.Files)}
		values = snap.Schema.Values()
		if why := misfit(j, gen, snap); why != "" {
			return true, s.fail(ctx, j, why, now)
		}
	}
	if err := s.createTables(ctx, j, in, values); fleetscore.Conflict.Is(err) || fleetscore.Invalid.Is(err) {
		return true, s.fail(ctx, j, fmt.Sprintf("%v; give the changed pipeline a new name", err), now)
	} else if err != nil {
		return false, err
	}
	pool := cfg.Pools[j.Config.Pool]
	j.Generation, j.Expected, j.Reason = gen.ID, gen.Members, ""
	var tasks []fleetscore.Task
	for i, r := range dispatch.Plan(gen.ShardKeys, max(1, pool.Slots)*max(1, pool.Scale.Max)) {
		t := fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", j.ID, i)), Job: j.ID, Index: i, Shards: r, State: fleetscore.TaskQueued}
		for shard := int(r.First); shard <= int(r.Last); shard++ {
			t.Keys += gen.ShardKeys[shard]
		}
		tasks = append(tasks, t)
	}
	err = s.ledger.PlanJob(ctx, j, tasks, in)
	if fleetscore.Conflict.Is(err) || fleetscore.NotFound.Is(err) { // canceled meanwhile
		return true, nil
	}
	if err == nil {
		s.log.Info("job planned", "job", j.ID, "tasks", len(tasks), "sensors", j.Expected, "files", len(in.Files))
	}
	return err == nil, err
}

// data is the dataset a job will read; wait says what is missing.
func (s *Scheduler) data(ctx context.Context, j fleetscore.Job, now time.Time) (snap *table.Snapshot, wait string, err error) {
	snap, err = s.catalog.Dataset(j.Config.Dataset).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		snap, err = nil, nil
	}
	if err != nil {
		return nil, "", err
	}
	if j.Config.Schedule.StartWhen == "due" {
		return snap, "", nil
	}
	since := j.Created
	if j.Due != nil {
		since = *j.Due
	}
	if d := j.Config.Schedule.Deadline.D(); d > 0 && now.Sub(since) >= d {
		return snap, "", nil
	}
	if snap == nil {
		return nil, "waits for dataset " + j.Config.Dataset + ", which has no rows yet", nil
	}
	until, ok := catalog.CompleteUntil(snap, now)
	if ok && until >= fleetscore.MicrosOf(j.Interval.To) {
		return snap, "", nil
	}
	have := "not complete at all yet"
	if ok {
		have = "complete until " + until.String()
	}
	return snap, fmt.Sprintf("waits for dataset %s to be complete until %s; it is %s", j.Config.Dataset, j.Interval.To.Format(time.RFC3339), have), nil
}

// misfit says why a job can never run on this dataset and fleet.
func misfit(j fleetscore.Job, gen *fleet.Generation, snap *table.Snapshot) string {
	if !slices.Equal(gen.KeyNames, snap.Schema.Key) {
		return fmt.Sprintf("fleet %s has the keys %s, dataset %s has %s", j.Config.Fleet, strings.Join(gen.KeyNames, ", "), j.Config.Dataset, strings.Join(snap.Schema.Key, ", "))
	}
	values := snap.Schema.Values()
	wanted := slices.Clone(j.Config.Features)
	if j.Config.Label != "" {
		wanted = append(wanted, j.Config.Label)
	}
	for _, f := range wanted {
		if _, column := fleetscore.SplitFeature(f); !slices.Contains(values, column) {
			return fmt.Sprintf("dataset %s has no column %q with numbers; it has %s", j.Config.Dataset, column, strings.Join(values, ", "))
		}
	}
	return ""
}

// createTables makes the tables of a pipeline's results, before any node writes
// files for them.
func (s *Scheduler) createTables(ctx context.Context, j fleetscore.Job, in ledger.Input, values []string) error {
	var features []string
	for _, f := range j.Config.Features {
		out, _ := fleetscore.SplitFeature(f)
		features = append(features, out)
	}
	if j.Config.Label != "" {
		features = append(features, j.Config.Label)
	}
	if len(values) > 0 {
		if err := s.catalog.Predictions(j.Pipeline).Create(ctx, table.PredictionSchema(in.TimeName, in.KeyNames, features)); err != nil {
			return err
		}
	}
	return s.catalog.Coverage(j.Pipeline).Create(ctx, table.ItemSchema(in.KeyNames))
}

// poolless notes which jobs have tasks for a pool that the configuration has no
// more: nobody will do them until it has.
func (s *Scheduler) poolless(ctx context.Context, cfg fleetscore.Config) error {
	states := []fleetscore.JobState{fleetscore.JobQueued, fleetscore.JobRunning}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: states})
	problems := []error{err}
	for _, j := range jobs {
		why := ""
		if _, ok := cfg.Pools[j.Config.Pool]; !ok {
			why = fmt.Sprintf("waits for pool %s, which the configuration has no more: put it back, or cancel the job", j.Config.Pool)
		}
		problems = append(problems, s.note(ctx, j, why, states...))
	}
	return errors.Join(problems...)
}

// note keeps why a job in one of the states waits, if that changed.
func (s *Scheduler) note(ctx context.Context, j fleetscore.Job, why string, states ...fleetscore.JobState) error {
	if j.Reason == why {
		return nil
	}
	_, err := s.ledger.UpdateJob(ctx, j.ID, func(j *fleetscore.Job) error {
		if slices.Contains(states, j.State) {
			j.Reason = why
		}
		return nil
	})
	return err
}

// fail ends a job of which nothing was committed.
func (s *Scheduler) fail(ctx context.Context, j fleetscore.Job, why string, now time.Time) error {
	ended := now.UTC()
	j, err := s.ledger.UpdateJob(ctx, j.ID, func(j *fleetscore.Job) error {
		if !j.State.Ended() {
			j.State, j.Reason, j.Ended = fleetscore.JobFailed, why, &ended
		}
		return nil
	})
	if err == nil {
		s.metrics.jobs.WithLabelValues(string(j.State)).Inc()
		s.log.Error("job ended", "job", j.ID, "state", j.State, "reason", why)
	}
	return err
}
