package portal

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// dueRow is the schedule of one pipeline.
type dueRow struct {
	Name   string
	When   string
	Zone   string
	Next   time.Time // zero if nothing more is due
	Paused time.Time // since when; zero if it isn't paused
	Last   *fleetscore.Occurrence
}

// schedules are those of the pipelines that have one.
func (p *Portal) schedules(ctx context.Context, cfg fleetscore.Config) (out []dueRow, err error) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		c := cfg.Pipelines[name].Schedule
		spec, err := schedule.Parse(c)
		if err != nil || !c.IsSet() {
			continue // apply refuses a schedule that can't be read
		}
		view, err := p.deps.Ledger.Schedule(ctx, name)
		if err != nil {
			return nil, err
		}
		last, err := p.deps.Ledger.Occurrences(ctx, name, 1)
		if err != nil {
			return nil, err
		}
		row := dueRow{Name: name, When: schedule.Describe(c), Zone: spec.Zone().String(), Paused: view.State.Paused}
		if len(last) > 0 {
			row.Last = &last[0]
		}
		row.Next, _ = spec.Next(p.deps.Now())
		out = append(out, row)
	}
	return out, nil
}
