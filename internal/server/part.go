package server

import (
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/query"
)

// part is the part of the configuration that the stream path depends on.
type part struct {
	Hub        fleetscore.HubConfig
	Queries    map[string]fleetscore.QueryConfig
	References map[string]fleetscore.ReferenceConfig
}

// longest returns the longest window of the queries; 0 if there is none.
func longest(p part) (out time.Duration) {
	for _, plan := range p.plans() {
		out = max(out, plan.Window)
	}
	return out
}

// numbers are the columns that queries calculate with.
func numbers(p part) []string {
	var out []string
	for _, plan := range p.plans() {
		for _, c := range plan.Numbers() {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// plans are those of all queries, in the order of their names.
func (p part) plans() (out []*query.Plan) {
	for _, name := range slices.Sorted(maps.Keys(p.Queries)) {
		plans, _ := query.Parse(p.Queries[name].SQL, p.Hub.Key) // it was judged when it was applied
		out = append(out, plans...)
	}
	return out
}

// aggregators are those of all queries, one for each dataset.
func (p part) aggregators(deps aggregator.Deps) (out []*aggregator.Aggregator, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.Queries)) {
		q := p.Queries[name]
		plans, err := query.Parse(q.SQL, p.Hub.Key)
		if err != nil {
			return nil, fleetscore.Wrap("configure query", name, err)
		}
		for _, plan := range plans {
			a, err := aggregator.New(aggregator.Config{Name: name, Into: plan.Into, Query: q, Hub: p.Hub, MaxHeldBytes: int64(q.MemoryMB) << 20}, deps)
			if err != nil {
				return nil, err
			}
			out = append(out, a)
		}
	}
	return out, nil
}
