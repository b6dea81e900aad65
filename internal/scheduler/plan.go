package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// planAll plans the jobs of a pipeline that wait, by priority and age, and notes what the
// others wait for. The dataset and the fleet are looked at once for all of them.
func (s *Scheduler) planAll(ctx context.Context, name string) (next, error) {
	cfg, jobs, err := s.follow(ctx, name)
	if err != nil {
		return next{}, err
	}
	n := next{Topics: []ledger.Topic{ledger.ConfigTopic, ledger.JobsTopic(name)}}
	left := 0
	var problems []error
	if p, ok := cfg.Pipelines[name]; ok && revises(cfg) {
		n.Topics = append(n.Topics, ledger.DatasetTopic(p.Dataset))
		looked, err := s.rescore(ctx, name, p)
		if !looked {
			return next{}, err
		}
		problems = append(problems, err)
	}
	if len(jobs) > 0 {
		p := cfg.Pipelines[name]
		n.Topics = append(n.Topics, ledger.DatasetTopic(p.Dataset), ledger.FleetTopic(p.Fleet))
		n.Wake = s.now().Add(unannounced)
	}
	in := s.inputs(cfg, cfg.Pipelines[name])
	byPriority(jobs)
	reasons := map[fleetscore.JobID]string{}
	turns, err := s.turn(ctx, name, jobs)
	if err != nil {
		return next{}, err
	}
	for _, j := range jobs {
		if why := turns[j.ID]; why != "" {
			reasons[j.ID] = why
			left++
			continue
		}
		now := s.now()
		wait, err := s.plan(ctx, in, j, now)
		if fleetscore.Corrupt.Is(err) { // it waits until somebody has restored what is damaged; the others go on
			wait, err = "waits: "+err.Error(), nil
		}
		if wait == "" && err == nil {
			continue
		}
		left++
		problems = append(problems, err)
		if wait == "" {
			continue
		}
		limit := "it waits without limit, as the pipeline has no schedule.deadline"
		if at, ok := deadline(j); ok && now.Before(at) {
			limit = "at " + at.UTC().Format(time.RFC3339) + " it runs with what there is"
			if at.Before(n.Wake) {
				n.Wake = at
			}
		} else if ok {
			limit = "it can't run without"
		}
		reasons[j.ID] = wait + "; " + limit
	}
	s.countWaiting(name, left)
	problems = append(problems, s.note(ctx, name, jobs, reasons))
	return n, errors.Join(problems...)
}

// unannounced is how often a dataset that jobs wait for is looked at without an
// event: somebody else's program may have committed to it.
const unannounced = 10 * time.Second

func (s *Scheduler) countWaiting(pipeline string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[pipeline] = n
	total := 0
	for _, n := range s.waiting {
		total += n
	}
	s.metrics.waiting.Set(float64(total))
}

// note keeps why jobs wait, where that changed.
func (s *Scheduler) note(ctx context.Context, pipeline string, jobs []fleetscore.Job, reasons map[fleetscore.JobID]string) error {
	if !slices.ContainsFunc(jobs, func(j fleetscore.Job) bool { why, ok := reasons[j.ID]; return ok && why != j.Reason }) {
		return nil
	}
	return s.ledger.UpdateJobs(ctx, pipeline, []fleetscore.JobState{fleetscore.JobWaiting}, func(j *fleetscore.Job) {
		if why, ok := reasons[j.ID]; ok {
			j.Reason = why
		}
	})
}

// inputs is what the waiting jobs of a pipeline are planned from, read when the
// first of them needs it.
type inputs struct {
	cfg        fleetscore.Config
	snapshot   func(context.Context) (*table.Snapshot, error) // nil if the dataset isn't there yet
	generation func(context.Context) (*fleet.Generation, error)
}

func (s *Scheduler) inputs(cfg fleetscore.Config, p fleetscore.PipelineConfig) *inputs {
	return &inputs{cfg: cfg,
		snapshot: once(func(ctx context.Context) (*table.Snapshot, error) {
			snap, err := s.catalog.Dataset(p.Dataset).Snapshot(ctx)
			if fleetscore.NotFound.Is(err) {
				return nil, nil
			}
			return snap, err
		}),
		generation: once(func(ctx context.Context) (*fleet.Generation, error) { return fleet.Current(ctx, s.store, p.Fleet) })}
}

// upload says how a dataset that no query writes becomes complete.
func (in *inputs) upload(j fleetscore.Job) string {
	for _, q := range in.cfg.Queries {
		plans, _ := query.Parse(q.SQL, in.cfg.Hub.Key) // it was judged before
		if slices.ContainsFunc(plans, func(p *query.Plan) bool { return p.Into == j.Config.Dataset }) {
			return ""
		}
	}
	return fmt.Sprintf("; no query writes it: 'fleetscore dataset upload %s FILE' sends its rows, and with '--complete-until %s' says that these are all up to then",
		j.Config.Dataset, j.Interval.To.Format(time.RFC3339))
}

func once[T any](read func(context.Context) (T, error)) func(context.Context) (T, error) {
	var v T
	var err error
	done := false
	return func(ctx context.Context) (T, error) {
		if !done {
			v, err = read(ctx)
			done = true
		}
		return v, err
	}
}

// plan cuts a waiting job into tasks once its data is complete. Until then it says
// what is missing. A job that can't ever run fails with the reason.
func (s *Scheduler) plan(ctx context.Context, inputs *inputs, j fleetscore.Job, now time.Time) (wait string, err error) {
	snap, err := inputs.snapshot(ctx)
	if err != nil {
		return "", err
	}
	if wait := incomplete(j, snap, now); wait != "" {
		return wait + inputs.upload(j), nil
	}
	gen, err := inputs.generation(ctx)
	if fleetscore.NotFound.Is(err) {
		why := ", which were not read yet"
		if err := s.whyNoFleet(j.Config.Fleet); err != nil {
			why = ": " + err.Error()
		}
		return "waits for the models of fleet " + j.Config.Fleet + why, nil
	}
	if err != nil {
		return "", err
	}
	if !gen.Originals && inputs.cfg.Fleets[j.Config.Fleet].KeepFiles {
		return "waits for the models of fleet " + j.Config.Fleet + ", whose files are being packed for Python", nil
	}
	in := ledger.Input{TimeName: inputs.cfg.Hub.Time, KeyNames: gen.KeyNames}
	var values []string
	if snap != nil {
		in = ledger.Input{Version: snap.Version, TimeName: snap.Schema.Time, KeyNames: snap.Schema.Key,
			Files: table.ReadQuery{Interval: &j.Interval}.Prune(snap.Files)}
		values = snap.Schema.Values()
		if why := misfit(j, gen, snap); why != "" {
			return "", s.fail(ctx, j, why, now)
		}
	}
	if err := s.createTables(ctx, j, in, values); fleetscore.Conflict.Is(err) || fleetscore.Invalid.Is(err) {
		return "", s.fail(ctx, j, fmt.Sprintf("%v; give the changed pipeline a new name", err), now)
	} else if err != nil {
		return "", err
	}
	j.Generation, j.Expected, j.Reason = gen.ID, gen.Members, ""
	counts := gen.ShardKeys
	if j.Rerun != nil {
		items, keys, err := s.chosen(ctx, j.Pipeline, j.Interval, *j.Rerun)
		if fleetscore.Conflict.Is(err) {
			return "", s.fail(ctx, j, err.Error(), now)
		} else if err != nil {
			return "", err
		}
		j.Expected, in.Keys, counts = int64(len(items)), keys, countShards(keys)
	}
	shares, wait, err := s.pin(ctx, inputs.cfg.Pools[j.Config.Pool], &j, gen, &in)
	if wait != "" || err != nil {
		return wait, err
	}
	if j.Rerun == nil {
		j.Content = s.content(j, in)
		if same, err := s.unchanged(ctx, j); err != nil {
			return "", err
		} else if same != nil {
			return "", s.skip(ctx, j, *same, now)
		}
	}
	if in.Earlier, err = s.earlier(ctx, j); err != nil {
		return "", err
	}
	if in.Quarantined, err = s.quarantined(ctx, j); err != nil {
		return "", err
	}
	tasks, err := s.tasks(ctx, j, gen, shares, counts, in, slotsOf(inputs.cfg.Pools[j.Config.Pool]))
	if err != nil {
		return "", err
	}
	j.Planned = new(now.UTC())
	err = s.ledger.PlanJob(ctx, j, tasks)
	if fleetscore.Conflict.Is(err) || fleetscore.NotFound.Is(err) {
		return "", nil // canceled, or its configuration changed meanwhile: that is an event
	}
	if err == nil {
		s.log.Info("job planned", "job", j.ID, "tasks", len(tasks), "sensors", j.Expected, "files", len(in.Files))
	}
	return "", err
}

// pin fixes the code that a job runs and, if its pool has containers, the images that its tasks run in:
// those that the tags mean now of the pool's image and of the environments that some model needs. It divides the
// job's sensors among these images, and says what is missing if an image can't be told.
func (s *Scheduler) pin(ctx context.Context, pool fleetscore.PoolConfig, j *fleetscore.Job, gen *fleet.Generation, in *ledger.Input) (shares []dispatch.Share, wait string, err error) {
	j.Image, j.Environments = "", nil
	shares = []dispatch.Share{{Keys: in.Keys}}
	if in.Code, err = s.ship(ctx, *j); err != nil || s.image == nil {
		return shares, "", err
	}
	if j.Image, err = s.image(ctx, pool); err != nil {
		return nil, "waits for the image of pool " + j.Config.Pool + ": " + err.Error(), nil
	}
	all := j.Config.Python.Environments
	if pool.Docker == nil || !slices.ContainsFunc(all, func(e fleetscore.PythonEnvironment) bool { return e.Image != "" }) {
		return shares, "", nil
	}
	made, err := fleet.Releases(ctx, s.store, gen, j.Config.Runtime)
	if err != nil {
		return nil, "", err
	}
	shares = dispatch.Shares(made, in.Keys, gen.Members, all)
	for _, share := range shares {
		if share.Environment == 0 {
			continue
		}
		e := all[share.Environment-1]
		box := *pool.Docker
		box.Image = e.Image
		pool.Docker = &box
		image, err := s.image(ctx, pool)
		if err != nil {
			return nil, "waits for the image of the environment for models of scikit-learn " + e.SKLearn + ": " + err.Error(), nil
		}
		sensors := int64(len(share.Keys))
		if sensors == 0 { // all but those of the other images
			sensors = gen.Members - int64(len(share.Except))
		}
		j.Environments = append(j.Environments, fleetscore.JobEnvironment{Number: share.Environment, SKLearn: e.SKLearn, Image: image, Sensors: sensors})
	}
	return shares, "", nil
}

// tasks cuts a job into tasks. Sensors whose models need an image of their own get tasks of their
// own, which read the same files.
func (s *Scheduler) tasks(ctx context.Context, j fleetscore.Job, gen *fleet.Generation, shares []dispatch.Share, counts [fleetscore.Shards]int64, in ledger.Input, slots int) (out []ledger.PlannedTask, err error) {
	measured, err := s.ledger.Costs(ctx, j.Pipeline)
	if err != nil {
		return nil, err
	}
	for _, share := range shares {
		its, has, image := in, counts, ""
		its.Environment = share.Environment
		if its.Keys, its.Except = share.Keys, share.Except; len(share.Keys) > 0 {
			has = countShards(share.Keys)
		}
		for shard, n := range countShards(share.Except) {
			has[shard] -= n
		}
		for _, e := range j.Environments {
			if e.Number == share.Environment {
				image = e.Image
			}
		}
		for _, t := range cut(j, dispatch.Plan(workload(j, gen, has, its), measured, slots), has, its) {
			t.Task.Index = len(out)
			t.Task.ID = taskID(j, t.Task.Index)
			t.Task.Environment, t.Task.Image = share.Environment, image
			out = append(out, t)
		}
	}
	return out, nil
}

func taskID(j fleetscore.Job, index int) fleetscore.TaskID {
	return fleetscore.TaskID(fmt.Sprintf("%s.%03d", j.ID, index))
}

// joinedNodes is how many agents a job of a static pool is cut for. How many there are
// when its tasks are given out isn't known, as people start them.
const joinedNodes = 16

// slotsOf is how many tasks of a pool may run at once.
func slotsOf(pool fleetscore.PoolConfig) int {
	nodes := pool.Scale.Max
	if low := pool.Scale.LowPriority; low != nil {
		nodes += low.Max
	}
	if pool.Provider == "static" {
		nodes = joinedNodes
	}
	return max(1, pool.Slots) * max(1, nodes)
}

// workload is what a job has to do.
func workload(j fleetscore.Job, gen *fleet.Generation, counts [fleetscore.Shards]int64, in ledger.Input) dispatch.Workload {
	w := dispatch.Workload{Keys: counts, Of: CostsDependOn(j.Config)}
	for _, f := range in.Files {
		w.Rows += f.Rows
		w.Spread(f.SizeBytes, f.Shards)
	}
	for _, f := range gen.Segments {
		w.Spread(f.SizeBytes, f.Shards)
	}
	return w
}

// CostsDependOn is the digest of what the cost of a pipeline's jobs depends on besides keys
// and rows.
func CostsDependOn(p fleetscore.PipelineConfig) fleetscore.Digest {
	doc, err := json.Marshal([]any{p.Fleet, p.Runtime, p.Python, p.Command, p.Features})
	if err != nil {
		return fleetscore.Digest{}
	}
	return fleetscore.DigestOf(doc)
}

// cut makes the tasks of a job, each with those files that may hold its keys. If the
// input names keys, only they get tasks.
func cut(j fleetscore.Job, ranges []fleetscore.ShardRange, counts [fleetscore.Shards]int64, in ledger.Input) (out []ledger.PlannedTask) {
	for _, r := range ranges {
		i := len(out)
		t := fleetscore.Task{ID: taskID(j, i), Job: j.ID, Index: i, Shards: r, State: fleetscore.TaskQueued}
		for shard := int(r.First); shard <= int(r.Last); shard++ {
			t.Keys += counts[shard]
		}
		its := in
		if len(in.Keys) > 0 {
			if its.Keys = keysIn(in.Keys, r); len(its.Keys) == 0 {
				continue
			}
		}
		its.Except = keysIn(in.Except, r)
		its.Files = table.ReadQuery{Shards: &r}.Prune(in.Files)
		its.Earlier.Files = table.ReadQuery{Shards: &r}.Prune(in.Earlier.Files)
		its.Quarantined = slices.DeleteFunc(slices.Clone(in.Quarantined), func(h fleetscore.Harm) bool { return !r.Contains(h.Key.Shard()) })
		out = append(out, ledger.PlannedTask{Task: t, Input: its})
	}
	return out
}

// deadline is when a job runs with what there is.
func deadline(j fleetscore.Job) (time.Time, bool) {
	since := j.Created
	if j.Due != nil {
		since = *j.Due
	}
	d := j.Config.Schedule.Deadline.D()
	return since.Add(d), d > 0
}

// incomplete says what is missing of the dataset that a job will read; empty if it
// may run.
func incomplete(j fleetscore.Job, snap *table.Snapshot, now time.Time) (wait string) {
	if j.Config.Schedule.StartWhen == "clock" {
		return ""
	}
	if at, ok := deadline(j); ok && !now.Before(at) {
		return ""
	}
	if snap == nil {
		return "waits for dataset " + j.Config.Dataset + ", which has no rows yet"
	}
	until, ok := catalog.CompleteUntil(snap, now)
	if ok && until >= fleetscore.MicrosOf(j.Interval.To) {
		return ""
	}
	have := "not complete at all yet"
	if ok {
		have = "complete until " + until.String()
	}
	return fmt.Sprintf("waits for dataset %s to be complete until %s; it is %s", j.Config.Dataset, j.Interval.To.Format(time.RFC3339), have)
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
		if err := s.catalog.Predictions(j.Pipeline).Create(ctx, catalog.PredictionSchema(in.TimeName, in.KeyNames, features)); err != nil {
			return err
		}
	}
	return s.catalog.Coverage(j.Pipeline).Extend(ctx, catalog.ItemSchema(in.KeyNames))
}

// fail ends a job of which no prediction was committed.
func (s *Scheduler) fail(ctx context.Context, j fleetscore.Job, why string, now time.Time) error {
	ended, did := now.UTC(), false
	j, err := s.ledger.UpdateJob(ctx, j.ID, func(j *fleetscore.Job) error {
		if did = !j.State.Ended(); did {
			j.State, j.Reason, j.Ended = fleetscore.JobFailed, why, &ended
		}
		return nil
	})
	if err == nil && did {
		s.metrics.ended(j.Config, j.State)
		s.log.Error("job ended", "job", j.ID, "state", j.State, "reason", why)
	}
	return err
}

// oldCode is the age at which an archive of code is deleted once there is a newer one. Jobs that
// were planned with it may still run, so a job that is planned with an archive of half this age
// writes it again.
const oldCode = 7 * 24 * time.Hour

// ship puts the code of a job's pipeline into the store, where its nodes find it by its
// digest. If this machine has no such folder, nodes look for it on their own disks, and the
// digest is zero; the same if there is too much for an archive, or if the code lies outside of
// the folders that may be read, because everybody who may read the store could read it.
func (s *Scheduler) ship(ctx context.Context, j fleetscore.Job) (fleetscore.Digest, error) {
	var none fleetscore.Digest
	parts := code.Here(code.PartsOf(j.Config))
	if len(parts) == 0 {
		return none, nil
	}
	archive, err := code.Pack(ctx, s.roots, parts)
	switch {
	case fleetscore.Exhausted.Is(err), fleetscore.Invalid.Is(err):
		s.log.Warn("code isn't sent to nodes, which need it on their own disks", "pipeline", j.Pipeline, "error", err)
		return none, nil
	case err != nil:
		return none, err
	}
	digest := fleetscore.DigestOf(archive)
	name := catalog.Code(j.Pipeline, digest)
	if info, err := s.store.Stat(ctx, name); err == nil && s.now().Sub(info.Modified) < oldCode/2 || err != nil && !fleetscore.NotFound.Is(err) {
		return digest, err
	}
	if _, err := s.store.Put(ctx, name, bytes.NewReader(archive), store.PutOptions{}); err != nil {
		return none, err
	}
	s.log.Info("code is in the store", "pipeline", j.Pipeline, "code", digest.Short(), "bytes", len(archive))
	for info, err := range s.store.List(ctx, catalog.CodeFolder(j.Pipeline), store.ListOptions{}) {
		if err != nil {
			return none, err
		}
		if info.Name != name && s.now().Sub(info.Modified) > oldCode {
			if err := s.store.Delete(ctx, info.Name); err != nil {
				return none, err
			}
		}
	}
	return digest, nil
}
