package scheduler

import (
	"context"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// harms are what models of a fleet did in a pipeline. Pipelines score the same models in
// different ways, with a script or with another runtime, so that none of them decides for another one.
func harms(all []fleetscore.Harm, pipeline string) []fleetscore.Harm {
	return slices.DeleteFunc(slices.Clone(all), func(h fleetscore.Harm) bool { return h.Pipeline != pipeline })
}

// quarantined are the models that a pipeline doesn't score.
func (s *Scheduler) quarantined(ctx context.Context, j fleetscore.Job) ([]fleetscore.Harm, error) {
	have, err := s.ledger.Harms(ctx, j.Config.Fleet)
	return slices.DeleteFunc(harms(have, j.Pipeline), func(h fleetscore.Harm) bool { return h.Quarantined == nil }), err
}

// countHarm keeps what models did to their processes in a job whose results are visible.
// It may have happened before a crash; then nothing changes.
func (s *Scheduler) countHarm(ctx context.Context, j fleetscore.Job, total dispatch.Result) error {
	all, err := s.ledger.Harms(ctx, j.Config.Fleet)
	have := harms(all, j.Pipeline)
	if err != nil || len(have) == 0 && len(total.Harm) == 0 {
		return err
	}
	for i := range total.Harm {
		total.Harm[i].Pipeline = j.Pipeline
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
	err = s.ledger.ChangeHarms(ctx, j.Config.Fleet, func(have []fleetscore.Harm) (_, remove []fleetscore.Harm) {
		put, remove = dispatch.HarmOf(harms(have, j.Pipeline), total.Harm, func(k fleetscore.Key) bool { return scored[k] }, j.ID, j.Config.Limits.QuarantineAfter, s.now())
		return put, remove
	})
	if err != nil {
		return err
	}
	for _, h := range put {
		if h.Quarantined != nil {
			s.log.Warn("a model is quarantined", "fleet", j.Config.Fleet, "pipeline", j.Pipeline, "sensor", h.Key.String(), "model", h.Model.Short(), "job", j.ID, "reason", h.Reason)
		}
	}
	return nil
}

// Release takes models of a fleet out of quarantine, and forgets the harm that they did:
// those of the sensors named, as people write them, or of all, in all pipelines. It returns what it
// forgot. Kind NotFound if nothing is known of a sensor.
func (s *Scheduler) Release(ctx context.Context, fleet string, keys []string) ([]fleetscore.Harm, error) {
	var released []fleetscore.Harm
	var unknown []string
	err := s.ledger.ChangeHarms(ctx, fleet, func(have []fleetscore.Harm) (_, remove []fleetscore.Harm) {
		released, unknown = nil, slices.Clone(keys)
		for _, h := range have {
			named := func(k string) bool { return k == h.Key.String() || k == string(h.Key) }
			if len(keys) == 0 || slices.ContainsFunc(keys, named) {
				released, remove = append(released, h), append(remove, h)
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
		s.log.Info("a model is released", "fleet", fleet, "pipeline", h.Pipeline, "sensor", h.Key.String(), "model", h.Model.Short(), "quarantined", h.Quarantined != nil)
	}
	return released, nil
}
