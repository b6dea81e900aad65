package syncer

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/versions"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Push checks models and puts them into a fleet's folder as a new version. Kind
// Invalid if one of them can't be used, unless unchecked. The next Sync makes a generation
// of it.
func (s *Syncer) Push(ctx context.Context, name string, from store.Bucket, names []string, unchecked bool, meta versions.Meta) (v *versions.Version, found fleet.Diagnosis, err error) {
	const op = "push models to fleet"
	cfg, f, err := s.inStore(ctx, op, name)
	if err != nil {
		return nil, found, err
	}
	if found, err = s.examine(ctx, name, cfg, from); err != nil {
		return nil, found, err
	}
	if refused := refusals(f, found, scoredByPython(cfg, name)); len(refused) > 0 && !unchecked {
		return nil, found, fleetscore.Errorf(fleetscore.Invalid, op, name, "models that can't be scored: %s", told(refused)).
			WithHint("nothing was pushed; correct the models, or give --unchecked to push them nevertheless")
	}
	done, err := s.turns.Take(ctx, name)
	if err != nil {
		return nil, found, err
	}
	defer done()
	meta.Now = s.now()
	v, err = versions.Of(s.store, name, f.Path).Push(ctx, from, names, meta)
	return v, found, err
}

// Rollback brings back the models that later versions than to have changed.
func (s *Syncer) Rollback(ctx context.Context, name string, to int, meta versions.Meta) (*versions.Version, error) {
	_, f, err := s.inStore(ctx, "roll models back", name)
	if err != nil {
		return nil, err
	}
	done, err := s.turns.Take(ctx, name)
	if err != nil {
		return nil, err
	}
	defer done()
	meta.Now = s.now()
	return versions.Of(s.store, name, f.Path).Rollback(ctx, to, meta)
}

// inStore finds a fleet whose models lie in the store.
func (s *Syncer) inStore(ctx context.Context, op, name string) (fleetscore.Config, fleetscore.FleetConfig, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return cfg, fleetscore.FleetConfig{}, err
	}
	f, ok := cfg.Fleets[name]
	switch {
	case !ok:
		return cfg, f, fleetscore.Errorf(fleetscore.NotFound, op, name, "there is no such fleet").WithHint("fleetscore fleet list shows all fleets")
	case filepath.IsAbs(f.Path):
		return cfg, f, fleetscore.Errorf(fleetscore.Conflict, op, name, "the fleet's models are in %s, a folder of the server's machine, of which no versions are kept", f.Path).
			WithHint("set the fleet's path to a folder in the store, such as models/%s", name)
	}
	return cfg, f, nil
}

// examine looks at models as at those of a fleet, with all pipelines that use it.
func (s *Syncer) examine(ctx context.Context, name string, cfg fleetscore.Config, from store.Bucket) (fleet.Diagnosis, error) {
	f := cfg.Fleets[name]
	spec, err := fleet.SpecOf(name, f, cfg.Hub.Key)
	if err != nil {
		return fleet.Diagnosis{}, err
	}
	if f.Sensors != "" { // which sensors have the models says a list that isn't among them
		spec = fleet.Spec{Fleet: name}
	}
	folder, err := fleet.ScanSpec(ctx, from, spec)
	if err != nil {
		return fleet.Diagnosis{}, err
	}
	found, err := folder.Examine(ctx, fleet.Options{MaxModelBytes: s.cfg.MaxModelBytes, Memory: s.memory, TempDir: s.cfg.TempDir, Now: s.now})
	for p, c := range cfg.Pipelines {
		if c.Fleet == name {
			found = found.Against("pipeline "+p, c.Features, c.FeaturesBy)
		}
	}
	return found, err
}

// refusals are the causes for which models aren't taken. Where pipelines score with Python,
// only Python knows what it can score.
func refusals(f fleetscore.FleetConfig, found fleet.Diagnosis, python bool) (out []fleet.Cause) {
	bad := []fleet.CauseCode{fleet.UnreadableModel, fleet.NotFiniteModel, fleet.WrongFeatures, fleet.WrongFeatureNames}
	if f.KeepFiles {
		bad = []fleet.CauseCode{fleet.NotFiniteModel, fleet.WrongFeatures, fleet.WrongFeatureNames}
	} else if bad = append(bad, fleet.HoldsCodeModel); !python {
		bad = append(bad, fleet.UnsupportedModel)
	}
	for _, c := range found.Causes {
		if slices.Contains(bad, c.Code) {
			out = append(out, c)
		}
	}
	return out
}

// scoredByPython tells whether a pipeline gives Python what isn't scored natively.
func scoredByPython(cfg fleetscore.Config, name string) bool {
	for _, p := range cfg.Pipelines {
		if p.Fleet == name && p.Runtime == fleetscore.RuntimeAuto {
			return true
		}
	}
	return false
}

// told says which sensors have what.
func told(causes []fleet.Cause) string {
	var out []string
	for _, c := range causes {
		who := c.Members[0].Key
		if c.Sensors > 1 {
			who += fmt.Sprintf(" and %d more", c.Sensors-1)
		}
		out = append(out, who+": "+c.Message)
	}
	return strings.Join(out, "; ")
}
