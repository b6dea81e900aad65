package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Rerun makes a job that scores some sensors of an ended job again, with today's models
// and the rows that are there now. The outcomes of the job's other sensors are carried
// over, so that the new job has an outcome for each. Kind Conflict if the job hasn't
// ended, its outcomes are no longer its own, no sensor fits, or a job over the same
// interval hasn't ended. If all sensors are to be scored again, nothing is carried over, and
// it doesn't matter what became of the outcomes.
func (s *Scheduler) Rerun(ctx context.Context, which fleetscore.Rerun) (fleetscore.Job, error) {
	const op = "rerun job"
	old, err := s.ledger.Job(ctx, which.Of)
	if err != nil {
		return fleetscore.Job{}, err
	}
	if !old.State.Ended() {
		return fleetscore.Job{}, fleetscore.Errorf(fleetscore.Conflict, op, string(old.ID), "it is %s", old.State).WithHint("wait for it: fleetscore job wait %s", old.ID)
	}
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return fleetscore.Job{}, err
	}
	p, ok := cfg.Pipelines[old.Pipeline]
	if !ok {
		return fleetscore.Job{}, noPipeline(op, old.Pipeline)
	}
	if which.All {
		return s.Submit(ctx, old.Pipeline, &old.Interval, Again)
	}
	items, keys, err := s.chosen(ctx, old.Pipeline, old.Interval, which)
	if err != nil {
		return fleetscore.Job{}, err
	}
	now := s.now()
	d, err := s.ledger.DecideSchedule(ctx, old.Pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		d, err := decideAgain(old.Pipeline, p, old.Interval, v, now)
		if d.Job != nil {
			d.Job.Rerun = &which
		}
		return d, err
	})
	if err != nil {
		return fleetscore.Job{}, err
	}
	s.log.Info("rerun was submitted", "job", d.Job.ID, "of", old.ID, "sensors", len(keys), "carried", len(items)-len(keys))
	return s.stillThere(ctx, *d.Job)
}

// chosen are the items of the job of a rerun, and the keys that are scored again.
func (s *Scheduler) chosen(ctx context.Context, pipeline string, iv fleetscore.Interval, which fleetscore.Rerun) (items []fleetscore.Item, keys []fleetscore.Key, err error) {
	const op = "rerun job"
	items, err = s.catalog.Coverage(pipeline).JobItems(ctx, which.Of, iv)
	if err != nil {
		return nil, nil, err
	}
	if len(items) == 0 {
		return nil, nil, fleetscore.Errorf(fleetscore.Conflict, op, string(which.Of), "no outcome of it is left: it committed none, or a later job scored the same interval").
			WithHint("rerun the later job, or score the interval as a whole: fleetscore job submit %s --from --to", pipeline)
	}
	for _, i := range items {
		if which.Fits(i) {
			keys = append(keys, i.Key)
		}
	}
	if len(keys) == 0 {
		return nil, nil, fleetscore.Errorf(fleetscore.Conflict, op, string(which.Of), "none of its %d sensors fits", len(items)).
			WithHint("fleetscore job coverage %s shows how each sensor ended and why", which.Of)
	}
	return items, keys, nil
}

// countShards counts keys by shard.
func countShards(keys []fleetscore.Key) (out [fleetscore.Shards]int64) {
	for _, k := range keys {
		out[k.Shard()]++
	}
	return out
}

// keysIn are those of the keys that lie in a range of shards.
func keysIn(keys []fleetscore.Key, r fleetscore.ShardRange) (out []fleetscore.Key) {
	for _, k := range keys {
		if r.First <= k.Shard() && k.Shard() <= r.Last {
			out = append(out, k)
		}
	}
	return out
}

// carry writes the outcomes that a rerun takes over from the job that it reruns, and
// adds them to its own. It may have happened before a crash; then the items are found
// among those that the rerun committed.
func (s *Scheduler) carry(ctx context.Context, j fleetscore.Job, inputs []ledger.Input, total *dispatch.Result, to *catalog.Results) error {
	again := map[fleetscore.Key]bool{}
	for _, in := range inputs {
		for _, k := range in.Keys {
			again[k] = true
		}
	}
	coverage := s.catalog.Coverage(j.Pipeline)
	items, err := coverage.JobItems(ctx, j.ID, j.Interval)
	committed := len(items) > 0
	if err == nil && !committed {
		items, err = coverage.JobItems(ctx, j.Rerun.Of, j.Interval)
	}
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(slices.Clone(items), func(i fleetscore.Item) bool { return again[i.Key] })
	if !committed {
		for i := range items {
			items[i].Kept = cmp.Or(items[i].Kept, j.Rerun.Of)
		}
		if to.Carried, err = coverage.WriteItems(ctx, items, inputs[0].KeyNames, j.ID, j.Interval); err != nil {
			return err
		}
	}
	total.Kept.Keys += int64(len(items))
	for _, i := range items {
		total.Outcomes[i.Outcome]++
		total.Rows += i.Rows
		total.Anomalies += i.Anomalies
	}
	return nil
}

// lateName begins the names of the backfills that are made because a query revised rows.
// Names that people's backfills get have no dash.
const lateName = "late-"

// revises reports whether a query may revise rows of datasets.
func revises(cfg fleetscore.Config) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(cfg.Queries)), func(q fleetscore.QueryConfig) bool { return q.Late == fleetscore.LateRevise })
}

// maxUnlooked is how many commits without revisions are looked through again at most.
const maxUnlooked = 256

var errLooked = errors.New("the revisions were looked for meanwhile")

// isLate reports whether a job scores rows that late readings changed.
func isLate(j fleetscore.Job) bool { return strings.HasPrefix(j.Backfill, lateName) }

// rescore makes a job of low priority over each interval that a job scored before and in
// which late readings changed rows since. The sensors whose rows are the same keep their
// results. Up to which commit revisions were looked for is written together with
// the jobs. looked reports whether that is known: rows that were read before may be revised unseen.
func (s *Scheduler) rescore(ctx context.Context, name string, p fleetscore.PipelineConfig) (looked bool, err error) {
	view, err := s.ledger.Schedule(ctx, name)
	if err != nil {
		return false, err
	}
	from := view.State.Revised
	looked = from > 0
	d, version := s.catalog.Dataset(p.Dataset), int64(0) // which makes the table
	snap, err := d.Snapshot(ctx)
	switch {
	case err == nil:
		version = snap.Version
	case !fleetscore.NotFound.Is(err):
		return looked, err
	case looked:
		return true, nil
	}
	var list []table.Revised
	if looked { // else the pipeline is new: nothing was scored yet
		first := from
		if first > version+1 { // the dataset was made anew
			first = 0
		}
		if list, err = d.Revised(ctx, first, version); err != nil {
			return looked, err
		}
		if len(list) == 0 && first == from && version-from < maxUnlooked {
			return looked, nil
		}
	}
	intervals, err := s.outdated(ctx, name, list)
	if err != nil {
		return looked, err
	}
	now := s.now()
	made, err := s.ledger.DecideSchedule(ctx, name, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		if v.State.Revised != from {
			return ledger.ScheduleDecision{}, errLooked
		}
		v.State.Revised = version + 1
		out := ledger.ScheduleDecision{State: v.State}
		for _, iv := range intervals {
			j := newJob(name, p, iv, now)
			j.Priority, j.Backfill = fleetscore.PriorityLow, fmt.Sprint(lateName, version)
			out.Backfill = append(out.Backfill, j)
		}
		return out, nil
	})
	if errors.Is(err, errLooked) {
		return true, nil
	}
	for _, j := range made.Backfill {
		s.log.Info("rows of an interval were revised, which is scored again", "pipeline", name, "job", j.ID, "interval", j.Interval.String())
	}
	return looked || err == nil, err
}

// outdated are the intervals of a pipeline's jobs that have read rows which were revised since, those of newer
// jobs first, without those that lie within another one. For each of them a new job is needed: only a job over revised rows removes
// predictions of rows that have vanished, and only a job that is newer than those that have read the old
// rows replaces their predictions. So a job over revised rows that still waits does for what older jobs have read, and no other does.
func (s *Scheduler) outdated(ctx context.Context, name string, list []table.Revised) (out []fleetscore.Interval, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	oldest := list[0].From
	for _, r := range list {
		oldest = min(oldest, r.From)
	}
	var again []fleetscore.Interval // out, and those of jobs that wait
	const page = 100
	for f := (ledger.JobFilter{Pipeline: name, Limit: page}); ; {
		jobs, err := s.ledger.Jobs(ctx, f) // the newest first
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			if isLate(j) && j.State == fleetscore.JobWaiting {
				again = append(again, j.Interval)
				continue
			}
			from, to := fleetscore.MicrosOf(j.Interval.From), fleetscore.MicrosOf(j.Interval.To)
			touched := slices.ContainsFunc(list, func(r table.Revised) bool { return r.From < to && from < r.To })
			inside := slices.ContainsFunc(again, func(o fleetscore.Interval) bool {
				return !o.From.After(j.Interval.From) && !j.Interval.To.After(o.To)
			})
			read := j.State == fleetscore.JobSucceeded || j.State == fleetscore.JobPartlyFailed || j.Planned != nil && j.State != fleetscore.JobCanceled // one that failed may have predictions too
			if touched && read && !inside {
				out, again = append(out, j.Interval), append(again, j.Interval)
			}
		}
		// A job is made after its rows, so that older ones concern earlier rows only.
		if len(jobs) < page || jobs[page-1].Created.Before(oldest.Time()) {
			return out, nil
		}
		f.Before = jobs[page-1].ID
	}
}

// behind says why a job over revised rows waits for another job that reads the rows as they
// were, and whose results it has to replace; empty if there is none. working are the jobs
// that were planned and haven't ended.
func behind(j fleetscore.Job, working []fleetscore.Job) string {
	if !isLate(j) {
		return ""
	}
	for _, o := range working {
		if o.ID != j.ID && o.Interval.From.Before(j.Interval.To) && j.Interval.From.Before(o.Interval.To) {
			return fmt.Sprintf("waits for job %s, which has read the interval's rows before they were revised", o.ID)
		}
	}
	return ""
}
