package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// commitAll commits the jobs of a pipeline whose tasks have all ended, by priority and
// age. A job that can't be committed doesn't hold up the others.
func (s *Scheduler) commitAll(ctx context.Context, name string) (next, error) {
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: []fleetscore.JobState{fleetscore.JobCommitting}})
	if err != nil {
		return next{}, err
	}
	slices.Reverse(jobs)
	byPriority(jobs)
	var problems []error
	for _, j := range jobs {
		err := s.commit(ctx, j)
		switch {
		case err == nil || ctx.Err() != nil:
		case fleetscore.KindOf(err).Retryable() || fleetscore.KindOf(err) == fleetscore.Internal || fleetscore.Corrupt.Is(err):
			// What is damaged can be restored, and the results are there: they are kept for it.
			problems = append(problems, err, s.explain(ctx, j, "its results can't be made visible yet, which is tried again: "+err.Error()))
		default:
			problems = append(problems, s.fail(ctx, j, err.Error(), s.now()))
		}
	}
	return next{}, errors.Join(problems...) // a job that begins to commit is an event
}

// explain keeps why a job is still committing, if that changed.
func (s *Scheduler) explain(ctx context.Context, j fleetscore.Job, why string) error {
	if j.Reason == why {
		return nil
	}
	_, err := s.ledger.UpdateJob(ctx, j.ID, func(j *fleetscore.Job) error {
		if j.State == fleetscore.JobCommitting {
			j.Reason = why
		}
		return nil
	})
	return err
}

// commit makes a job's results visible and ends it. Every step may have happened
// before a crash: the tables know the job, and what is written again replaces
// nothing that readers see.
func (s *Scheduler) commit(ctx context.Context, j fleetscore.Job) error {
	kept, err := s.ledger.Results(ctx, j.ID)
	if err != nil {
		return err
	}
	tasks, err := s.ledger.Tasks(ctx, j.ID)
	if err != nil {
		return err
	}
	inputs, err := s.ledger.Inputs(ctx, j.ID)
	if err != nil {
		return err
	}
	if len(inputs) == 0 {
		return fleetscore.Errorf(fleetscore.Corrupt, "commit job", string(j.ID), "the ledger has lost what its tasks read")
	}
	var total dispatch.Result
	total.Outcomes = fleetscore.Counts{}
	var lost []fleetscore.Item // the keys of failed tasks
	failed, why, images := 0, "", j.Images()
	for _, t := range tasks {
		if t.State != fleetscore.TaskSucceeded {
			why = cmp.Or(why, t.Reason)
			items, err := s.failedItems(ctx, j, t, inputs)
			if err != nil {
				return err
			}
			lost = append(lost, items...)
			failed++
			continue
		}
		if t.Image != "" && !slices.Contains(images, t.Image) { // the job was moved to another pool
			images = append(images, t.Image)
		}
		var r dispatch.Result
		if err := json.Unmarshal(kept[t.ID], &r); err != nil {
			return fleetscore.Errorf(fleetscore.Corrupt, "read result", string(t.ID), "%w", err)
		}
		total.Predictions = append(total.Predictions, r.Predictions...)
		total.Coverage = append(total.Coverage, r.Coverage...)
		total.Harm = append(total.Harm, r.Harm...)
		total.Cost = append(total.Cost, r.Cost...)
		total.Rows += r.Rows + r.Kept.Rows
		total.Anomalies += r.Anomalies + r.Kept.Anomalies
		total.Kept.Add(r.Kept)
		for o, n := range r.Outcomes {
			total.Outcomes[o] += n
		}
	}
	if err := s.publish(ctx, j, inputs, images, &total, lost); err != nil {
		return err
	}
	if err := s.countHarm(ctx, j, total); err != nil {
		return err
	}
	if err := s.learn(ctx, j, inputs, total); err != nil {
		return err
	}
	if failed < len(tasks) || j.Rerun != nil { // a rerun is judged by the outcomes that it took over, too
		why = ""
	}
	if err := s.finish(ctx, j, total, why); err != nil {
		return err
	}
	if j.Config.Logs.Timed() {
		if err := s.catalog.JoinTiming(ctx, j.Pipeline, j.ID); err != nil && ctx.Err() == nil {
			s.log.Warn("how long the models took stays in a file for each task", "job", j.ID, "error", err)
		}
	}
	return nil
}

// publish notes the images that the results were made in, and commits predictions, then coverage.
func (s *Scheduler) publish(ctx context.Context, j fleetscore.Job, inputs []ledger.Input, images []string, total *dispatch.Result, lost []fleetscore.Item) error {
	if len(lost) > 0 {
		files, err := s.catalog.Coverage(j.Pipeline).WriteItems(ctx, lost, inputs[0].KeyNames, j.ID, j.Interval)
		if err != nil {
			return err
		}
		total.Coverage = append(total.Coverage, files...)
		for _, i := range lost {
			total.Outcomes[i.Outcome]++
		}
	}
	if len(images) > 0 {
		if err := s.catalog.NoteImage(ctx, j.Pipeline, catalog.ImageNote{Job: j.ID, Image: images[0], More: images[1:], Interval: j.Interval}); err != nil {
			return err
		}
	}
	r := catalog.Results{Job: j.ID, Pipeline: j.Pipeline, Interval: j.Interval, Revision: j.Created.UnixMilli(),
		Predictions: total.Predictions, Coverage: total.Coverage, Scored: total.Outcomes[fleetscore.Scored] - total.Kept.Keys, Vanished: isLate(j)}
	if j.Rerun != nil {
		if err := s.carry(ctx, j, inputs, total, &r); err != nil {
			return err
		}
	}
	later, err := s.madeLater(ctx, j)
	if err != nil {
		return err
	}
	r.Later = func(id fleetscore.JobID) bool { return later[id] }
	return s.catalog.Publish(ctx, r)
}

// learn keeps what a job's models cost, so that further jobs of its pipeline are cut into
// tasks by it.
func (s *Scheduler) learn(ctx context.Context, j fleetscore.Job, inputs []ledger.Input, total dispatch.Result) error {
	if len(total.Cost) == 0 {
		return nil
	}
	have, err := s.ledger.Costs(ctx, j.Pipeline)
	if err != nil {
		return err
	}
	w := dispatch.Workload{Of: CostsDependOn(j.Config)}
	seen := map[string]bool{} // tasks may share files
	for _, in := range inputs {
		for _, f := range in.Files {
			if !seen[f.Path] {
				seen[f.Path] = true
				w.Rows += f.Rows
			}
		}
	}
	now := have.Learn(j.ID, w, j.Rerun != nil || total.Kept.Keys > 0, total.Cost)
	if now.Job == have.Job {
		return nil
	}
	now.At = s.now().UTC()
	return s.ledger.PutCosts(ctx, j.Pipeline, now)
}

// madeLater are the jobs of the same pipeline over the same interval that were made after
// a job. There is one if somebody submitted a job over the interval that the schedule's
// next job has.
func (s *Scheduler) madeLater(ctx context.Context, j fleetscore.Job) (map[fleetscore.JobID]bool, error) {
	const page = 100
	out := map[fleetscore.JobID]bool{}
	for f := (ledger.JobFilter{Pipeline: j.Pipeline, Limit: page}); ; {
		jobs, err := s.ledger.Jobs(ctx, f) // the newest first
		if err != nil {
			return nil, err
		}
		for _, other := range jobs {
			if other.ID == j.ID {
				return out, nil
			}
			if covering([]fleetscore.Job{other}, j.Interval) != nil {
				out[other.ID] = true
			}
			f.Before = other.ID
		}
		if len(jobs) < page {
			return out, nil
		}
	}
}

// failedItems are the expected keys of a task that failed for good.
func (s *Scheduler) failedItems(ctx context.Context, j fleetscore.Job, t fleetscore.Task, inputs []ledger.Input) ([]fleetscore.Item, error) {
	var keys, others []fleetscore.Key
	rest := j.Rerun == nil // its share has all keys that no other has
	for _, in := range inputs {
		if in.Environment == t.Environment {
			rest = rest && len(in.Keys) == 0
			keys, others = append(keys, keysIn(in.Keys, t.Shards)...), append(others, keysIn(in.Except, t.Shards)...)
		}
	}
	if rest {
		var err error
		if keys, err = fleet.ExpectedKeys(ctx, s.store, j.Config.Fleet, j.Generation, t.Shards); err != nil {
			return nil, err
		}
		keys = fleetscore.Without(keys, others)
	}
	if t.Attempts == 0 {
		t.Image = "" // that it was to run in
	}
	var out []fleetscore.Item
	for _, k := range keys {
		out = append(out, fleetscore.Item{Key: k, Outcome: cmp.Or(t.Outcome, fleetscore.Failed), Reason: fmt.Sprintf("task %03d: %s", t.Index, t.Reason), Image: t.Image})
	}
	return out, nil
}

// asideFor is how old an interval may be for its set-aside readings to be counted:
// counting reads all commits since then.
const asideFor = 24 * time.Hour

// aside counts the readings of a job's interval that are in no row. The job's end
// doesn't depend on it: what can't be counted is left out.
func (s *Scheduler) aside(ctx context.Context, j fleetscore.Job, now time.Time) dispatch.Aside {
	if now.Sub(j.Interval.To) > asideFor {
		return dispatch.Aside{}
	}
	a, err := s.catalog.Dataset(j.Config.Dataset).SetAside(ctx, j.Interval)
	if err != nil {
		if !fleetscore.NotFound.Is(err) && ctx.Err() == nil {
			s.log.Warn("readings that were set aside can't be counted", "job", j.ID, "dataset", j.Config.Dataset, "error", err)
		}
		return dispatch.Aside{}
	}
	return dispatch.Aside{Late: a.Late, Early: a.Early, Repeats: a.Repeats}
}

// finish ends a job. allFailed says why its tasks failed, if all of them did.
func (s *Scheduler) finish(ctx context.Context, j fleetscore.Job, total dispatch.Result, allFailed string) error {
	ended := s.now().UTC()
	state, reason := dispatch.Judge(j.Config.Limits, total.Outcomes, total.Rows, s.aside(ctx, j, ended))
	if allFailed != "" {
		state, reason = fleetscore.JobFailed, fmt.Sprintf("every task failed: %s. The first one: %s", reason, allFailed)
	}
	if n := total.Kept.Keys; n > 0 && reason == "" && j.Rerun == nil {
		reason = fmt.Sprintf("the results of an earlier job stay for %s, whose rows and models haven't changed", fleetscore.Counted(n, "sensor"))
	}
	j, err := s.ledger.UpdateJob(ctx, j.ID, func(j *fleetscore.Job) error {
		if j.State == fleetscore.JobCommitting {
			j.State, j.Reason, j.Ended = state, reason, &ended
			j.Outcomes, j.Rows, j.Anomalies, j.Kept = total.Outcomes, total.Rows, total.Anomalies, total.Kept.Keys
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.metrics.ended(j.Config, j.State)
	s.metrics.committed(j, ended)
	s.log.Info("job ended", "job", j.ID, "state", j.State, "rows", j.Rows, "anomalies", j.Anomalies, "reason", j.Reason)
	return nil
}
