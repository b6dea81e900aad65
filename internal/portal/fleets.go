package portal

import (
	"context"
	"maps"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
)

// fleetPanel is a fleet's current generation and what is wrong with its models.
type fleetPanel struct {
	Name       string
	Generation *fleet.Generation // nil before the first generation
	Causes     []fleet.Cause
	Problem    string // why the generation can't be read; empty if it was read
}

// fleets returns the fleets of a configuration; each is checked against the pipelines
// that use it.
func (p *Portal) fleets(ctx context.Context, cfg fleetscore.Config) []fleetPanel {
	var out []fleetPanel
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		f := fleetPanel{Name: name}
		g, err := fleet.Current(ctx, p.deps.Store, name)
		switch {
		case err == nil:
			h := g.Health
			for _, n := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
				if c := cfg.Pipelines[n]; c.Fleet == name {
					h = h.Against("pipeline "+n, c.Features, c.FeaturesBy)
				}
			}
			harms, err := p.deps.Ledger.Harms(ctx, name)
			if err != nil {
				f.Problem = err.Error()
			}
			f.Generation, f.Causes = g, h.WithHarm(harms).Causes
		case !fleetscore.NotFound.Is(err):
			f.Problem = err.Error()
		}
		out = append(out, f)
	}
	return out
}
