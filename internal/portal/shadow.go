package portal

import (
	"net/http"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/table"
)

// maxCompared is how many sensors a comparison shows.
const maxCompared = 50

// shadowPage compares a shadow pipeline with the pipeline that it shadows.
type shadowPage struct {
	Live, Shadow string
	Over         time.Duration // how far back rows are compared
	Total        compare.Total
	Sensors      []compare.Sensor // those that differ most
	More         int64            // sensors that aren't shown
}

func (p *Portal) shadow(r *http.Request) (any, error) {
	ctx, name := r.Context(), r.PathValue("pipeline")
	cfg, _, _, err := p.deps.Ledger.Config(ctx)
	if err != nil {
		return nil, err
	}
	v := shadowPage{Live: cfg.Pipelines[name].Shadow, Shadow: name, Over: recent, Total: compare.NewTotal()}
	if v.Live == "" {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "open shadow", name, "there is no shadow pipeline of this name")
	}
	snap, err := p.deps.Catalog.Predictions(v.Live).Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	now := p.deps.Now()
	for v.Over > time.Minute && countRows((table.ReadQuery{Interval: &fleetscore.Interval{From: now.Add(-v.Over), To: now}}).Prune(snap.Files)) > maxRows {
		v.Over = (v.Over / 2).Round(time.Second)
	}
	_, err = p.deps.Catalog.Compare(ctx, catalog.Comparison{A: v.Live, B: name, From: now.Add(-v.Over), To: now}, func(s compare.Sensor) error {
		v.Total.Add(s)
		if s.Differs() {
			v.Sensors = append(v.Sensors, s)
		}
		if len(v.Sensors) > 10*maxCompared {
			v.first()
		}
		return nil
	})
	v.first()
	v.More = v.Total.Different - int64(len(v.Sensors))
	return v, err
}

// first keeps the sensors that differ most.
func (v *shadowPage) first() {
	slices.SortFunc(v.Sensors, compare.ByDifference)
	v.Sensors = v.Sensors[:min(len(v.Sensors), maxCompared)]
}
