package aggregator

import (
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// References is the reference data that queries join with.
type References interface {
	// Versions are those up to a time, in the order in which they come into force.
	Versions(ctx context.Context, name string, to fleetscore.Micros) ([]reference.Version, error)
	Rows(ctx context.Context, name string, v reference.Version) ([]*value.Record, error)
}

// joined is the reference data of one query, at the time that it has come to.
type joined struct {
	ctx   context.Context // of the pass over the log
	all   References
	names []string
	at    []int // by name: the version in force
	refs  []*stream.Reference
}

// join gives a query the reference data that it joins with.
func (e *events) join(ctx context.Context, all References) {
	if names := e.plan.General.References; len(names) > 0 && all != nil {
		e.joined = &joined{ctx: ctx, all: all, names: names, at: slices.Repeat([]int{-1}, len(names)), refs: make([]*stream.Reference, len(names))}
	}
}

// refer puts those versions into the runner that are in force at a time, and says up to when:
// to the time to which the query wants to go on, or to the time at which the next version
// comes into force.
func (e *events) refer(at, to fleetscore.Micros) (next fleetscore.Micros, err error) {
	next = to
	if e.joined == nil {
		return next, nil
	}
	changed := false
	for i, name := range e.joined.names {
		list, err := e.joined.all.Versions(e.joined.ctx, name, to)
		if err != nil {
			return 0, err
		}
		n, _ := slices.BinarySearchFunc(list, at, func(v reference.Version, t fleetscore.Micros) int {
			if v.From <= t {
				return -1
			}
			return 1
		})
		n = max(0, n-1) // the first one is in force before its time too
		if n+1 < len(list) {
			if list[n+1].From <= list[n].From {
				return 0, fleetscore.Errorf(fleetscore.Corrupt, "join with reference data", name, "its versions aren't in the order of their times: one of %s follows one of %s", list[n+1].From, list[n].From)
			}
			next = min(next, list[n+1].From)
		}
		if e.joined.at[i] == n {
			continue
		}
		rows, err := e.joined.all.Rows(e.joined.ctx, name, list[n])
		if err != nil {
			return 0, err
		}
		e.joined.refs[i], e.joined.at[i] = e.plan.General.Plan.Reference(name, rows), n
		changed = true
	}
	if changed {
		e.lanes.refer(e.joined.refs)
	}
	return next, nil
}
