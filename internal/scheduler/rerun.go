package scheduler

import (
	"cmp"
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
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
