package scheduler

import (
	"context"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// quarantined are the models of a fleet that aren't scored.
func (s *Scheduler) quarantined(ctx context.Context, fleet string) ([]fleetscore.Harm, error) {
	harms, err := s.ledger.Harms(ctx, fleet)
	return slices.DeleteFunc(harms, func(h fleetscore.Harm) bool { return h.Quarantined == nil }), err
}

// countHarm keeps what models did to their processes in a job whose results are visible.
// It may have happened before a crash; then nothing changes.
func (s *Scheduler) countHarm(ctx context.Context, j fleetscore.Job, total dispatch.Result) error {
	have, err := s.ledger.Harms(ctx, j.Config.Fleet)
	if err != nil || len(have) == 0 && len(total.Harm) == 0 {
		return err
	}
	scored := map[fleetscore.Key]bool{}
	if len(have) > 0 && len(total.Coverage) > 0 {
		q := catalog.ItemQuery{Outcome: fleetscore.Scored}
		for _, h := range have {
			q.Keys = append(q.Keys, h.Key)
		}
		items, err := s.catalog.Coverage(j.Pipeline).ReadItems(ctx, total.Coverage, q)
		if err != nil {
			return err
		}
		for _, i := range items {
			scored[i.Key] = i.Kept == "" // what was kept didn't run
		}
	}
	var put []fleetscore.Harm
	err = s.ledger.ChangeHarms(ctx, j.Config.Fleet, func(have []fleetscore.Harm) ([]fleetscore.Harm, []fleetscore.Key) {
		var remove []fleetscore.Key
		put, remove = dispatch.HarmOf(have, total.Harm, func(k fleetscore.Key) bool { return scored[k] }, j.ID, j.Config.Limits.QuarantineAfter, s.now())
		return put, remove
	})
	if err != nil {
		return err
	}
	for _, h := range put {
		if h.Quarantined != nil {
			s.log.Warn("a model is quarantined", "fleet", j.Config.Fleet, "sensor", h.Key.String(), "model", h.Model.Short(), "job", j.ID, "reason", h.Reason)
		}
	}
	return nil
}

// Release takes models of a fleet out of quarantine, and forgets the harm that they did:
// those of the sensors named, as people write them, or of all. It returns what it
// forgot. Kind NotFound if nothing is known of a sensor.
func (s *Scheduler) Release(ctx context.Context, fleet string, keys []string) ([]fleetscore.Harm, error) {
	var released []fleetscore.Harm
	var unknown []string
	err := s.ledger.ChangeHarms(ctx, fleet, func(have []fleetscore.Harm) (put []fleetscore.Harm, remove []fleetscore.Key) {
		released, unknown = nil, slices.Clone(keys)
		for _, h := range have {
			named := func(k string) bool { return k == h.Key.String() || k == string(h.Key) }
			if len(keys) == 0 || slices.ContainsFunc(keys, named) {
				released, remove = append(released, h), append(remove, h.Key)
			}
			unknown = slices.DeleteFunc(unknown, named)
		}
		if len(unknown) > 0 {
			return nil, nil
		}
		return nil, remove
	})
	if err == nil && len(unknown) > 0 {
		err = fleetscore.Errorf(fleetscore.NotFound, "release models of fleet", fleet, "no harm is known of %s", strings.Join(unknown, ", ")).
			WithHint("fleetscore fleet quarantine ls %s lists the sensors; nothing was released", fleet)
	}
	if err != nil {
		return nil, err
	}
	for _, h := range released {
		s.log.Info("a model is released", "fleet", fleet, "sensor", h.Key.String(), "model", h.Model.Short(), "quarantined", h.Quarantined != nil)
	}
	return released, nil
}
