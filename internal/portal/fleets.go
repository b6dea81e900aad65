package portal

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

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

// fleetModels is how many sensors a page of a fleet lists.
const fleetModels = 200

// fleetPage shows the models of a fleet and the runtimes that score them.
type fleetPage struct {
	Now        time.Time
	Name       string
	Generation *fleet.Generation
	Splits     []fleet.Split
	Choices    []fleet.Choice
	Models     []fleetModel
	Next       int // the number of the first sensor of the next page; 0 if there is none
}

type fleetModel struct {
	Key, File string
	fleet.Choice
}

func (p *Portal) fleet(r *http.Request) (any, error) {
	name := r.PathValue("name")
	cfg, _, _, err := p.deps.Ledger.Config(r.Context())
	if err != nil {
		return nil, err
	}
	if _, ok := cfg.Fleets[name]; !ok {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "show fleet", name, "the configuration has no fleet of this name")
	}
	v := fleetPage{Now: p.deps.Now().UTC(), Name: name}
	g, err := fleet.Current(r.Context(), p.deps.Store, name)
	if fleetscore.NotFound.Is(err) {
		return v, nil
	} else if err != nil {
		return nil, err
	}
	v.Generation, v.Choices = g, g.Health.Runtimes
	for _, n := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		if c := cfg.Pipelines[n]; c.Fleet == name {
			v.Splits = append(v.Splits, g.Health.Split(n, c.Runtime, g.Members))
		}
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("from")) // anything else is the first page
	entries, next, err := fleet.Page(r.Context(), p.deps.Store, g, from, fleetModels, func(fleet.Entry) bool { return true })
	for i := range entries {
		v.Models = append(v.Models, fleetModel{entries[i].Key.String(), entries[i].Name, entries[i].Choose(fleetscore.RuntimeAuto)})
	}
	v.Next = next
	return v, err
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
