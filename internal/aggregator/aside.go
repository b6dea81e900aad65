package aggregator

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// aside counts readings by the cut of their event time, for the next commit, and logs
// from time to time what was set aside.
type aside struct {
	cut  fleetscore.Micros
	cuts map[fleetscore.Micros]*table.SetAside // by their end

	told          time.Time // when the log last said so
	late, early   int64     // since then
	repeats, good int64
	example       fleetscore.Key
	exampleTime   fleetscore.Micros
}

const (
	maxAsideCuts = 256         // cuts counted separately in one commit; if there are more, the oldest are added up
	tellEvery    = time.Minute // how often the log mentions readings that were set aside
)

// count notes a late, early or repeated reading. Devices choose event times, so the
// number of cuts is bounded here too: if there are twice as many as a commit takes,
// the oldest are added up.
func (a *aside) count(v window.Verdict, t fleetscore.Micros, k fleetscore.Key) {
	from := floor(t-1, a.cut) // t lies in (from, from+cut]
	c := a.cuts[from+a.cut]
	if c == nil {
		if len(a.cuts) >= 2*maxAsideCuts {
			a.shrink()
		}
		if a.cuts == nil {
			a.cuts = map[fleetscore.Micros]*table.SetAside{}
		}
		c = &table.SetAside{From: from, To: from + a.cut}
		a.cuts[c.To] = c
	}
	switch v {
	case window.Late:
		c.Late++
		a.late++
	case window.Early:
		c.Early++
		a.early++
	default:
		c.Repeats++
		a.repeats++
		return
	}
	a.example, a.exampleTime = k, t
}

// list returns the counts in order.
func (a *aside) list() []table.SetAside {
	if len(a.cuts) > maxAsideCuts {
		a.shrink()
	}
	var out []table.SetAside
	for _, c := range a.cuts {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y table.SetAside) int { return cmp.Compare(x.To, y.To) })
	return out
}

// shrink adds up the oldest cuts, so that as many as a commit takes are left.
func (a *aside) shrink() {
	ends := slices.Sorted(maps.Keys(a.cuts))
	old := ends[:max(0, len(ends)-maxAsideCuts+1)]
	if len(old) == 0 {
		return
	}
	sum := &table.SetAside{From: a.cuts[old[0]].From}
	for _, end := range old {
		c := a.cuts[end]
		sum.From, sum.To = min(sum.From, c.From), max(sum.To, c.To)
		sum.Late, sum.Early, sum.Repeats = sum.Late+c.Late, sum.Early+c.Early, sum.Repeats+c.Repeats
		delete(a.cuts, end)
	}
	a.cuts[sum.To] = sum
}

// tell warns about readings that were set aside since the last time.
func (r *reading) tell() {
	s := &r.aside
	now := r.a.now()
	if s.late+s.early == 0 && s.repeats <= s.good || now.Sub(s.told) < tellEvery {
		return
	}
	r.a.log.Warn("readings are set aside or repeated; late and early ones are kept under "+catalog.LateFolder(r.a.plan.Into),
		"partition", r.name(), "late", s.late, "early", s.early, "repeats", s.repeats, "counted", s.good,
		"example", s.example.String(), "its_time", s.exampleTime.String())
	s.told, s.late, s.early, s.repeats, s.good = now, 0, 0, 0, 0
}
