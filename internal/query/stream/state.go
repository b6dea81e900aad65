package stream

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Streams reports whether a query joins streams, whose state Save doesn't hold.
func (q *Query) Streams() bool {
	return slices.ContainsFunc(q.joins, func(j join) bool { return !j.reference })
}

// Sessions reports whether a plan has sessions. Where a session is cut depends on where it began, or the one that was cut before it,
// which may be any time ago.
func (p *Plan) Sessions() bool {
	return slices.ContainsFunc(p.Queries, func(q *Query) bool {
		return slices.ContainsFunc(q.Windows, func(w sql.Window) bool { return w.Kind == sql.Session })
	})
}

// Horizon is how far back events can influence rows to come, at most, apart from where sessions are cut: the windows and
// looks back of all steps one after the other.
func (p *Plan) Horizon() time.Duration {
	reach := make([]time.Duration, len(p.Queries))
	longest := time.Duration(0)
	for i, q := range p.Queries { // queries come after those that they read
		own := time.Duration(0)
		for _, a := range q.Analytics {
			own = max(own, time.Duration(a.Limit)*time.Microsecond)
		}
		for _, w := range q.Windows {
			if w.Kind == sql.Session {
				own = max(own, 2*w.Max+w.Timeout) // a session begins at a check, and ends at the second one after it
			}
			own = max(own, w.Size)
		}
		reach[i] += own
		for _, to := range q.readers {
			reach[to.query] = max(reach[to.query], reach[i])
		}
		longest = max(longest, reach[i])
	}
	return longest
}

// Save adds all that the runner remembers to a checkpoint. Plans with joins of streams
// can't be saved.
func (r *Runner) Save(f *value.Fields) {
	f.Int(int64(r.now))
	for _, n := range r.nodes {
		for _, h := range n.histories {
			h.Save(f)
		}
		for _, w := range n.windows {
			w.save(f)
		}
	}
}

// Load takes a checkpoint of the same plan into a new runner.
func (r *Runner) Load(c *value.Cursor) {
	r.now = fleetscore.Micros(c.Int())
	for _, n := range r.nodes {
		for _, h := range n.histories {
			h.Load(c)
		}
		for _, w := range n.windows {
			w.load(c)
		}
	}
}

// Open is how many windows are open: of each end, of each group's events that slide, and
// of each session.
func (r *Runner) Open() (n int) {
	for _, x := range r.nodes {
		for _, w := range x.windows {
			n += w.count()
		}
	}
	return n
}

func (g *groups) save(f *value.Fields) {
	var out value.Fields
	for _, x := range g.order {
		out.List(x.keys)
		for _, a := range x.accs {
			a.Save(&out)
		}
	}
	f.Add(out.Value())
}

func (g *groups) load(c *value.Cursor, aggregates []*expr.Aggregate, groupOf groupOf) {
	for in := c.Inner(); in.More(); {
		x := newGroup(in.List(), aggregates)
		for _, a := range x.accs {
			a.Load(in)
		}
		if g.of == nil {
			g.of = map[string]*group{}
		}
		g.of[string(groupOf(nil, x.keys))] = x
		g.order = append(g.order, x)
	}
}

func (h *hopping) save(f *value.Fields) {
	var out value.Fields
	for _, end := range slices.Sorted(maps.Keys(h.open)) {
		out.Int(int64(end))
		h.open[end].save(&out)
	}
	f.Add(out.Value())
}

func (h *hopping) load(c *value.Cursor) {
	for in := c.Inner(); in.More(); {
		end, g := fleetscore.Micros(in.Int()), &groups{}
		g.load(in, h.aggregates, h.groupOf)
		h.open[end] = g
		heap.Push(&h.ends, end)
	}
}

func (h *hopping) count() int { return len(h.open) }

func (s *sliding) save(f *value.Fields) {
	f.Int(int64(s.entered))
	var out value.Fields
	for _, e := range s.queue {
		out.Int(int64(e.stamp))
		out.List(e.keys)
		var args value.Fields
		for _, a := range e.args {
			args.List(a)
		}
		out.Add(args.Value())
	}
	f.Add(out.Value())
}

func (s *sliding) load(c *value.Cursor) {
	entered := int(c.Int())
	for in := c.Inner(); in.More(); {
		e := entry{stamp: fleetscore.Micros(in.Int()), keys: in.List()}
		e.group = s.groupOf(nil, e.keys)
		for _, a := range in.List() {
			e.args = append(e.args, a.Items())
		}
		if len(e.args) != len(s.aggregates) {
			c.Fail()
			return
		}
		s.add(e)
	}
	if entered < 0 || entered > len(s.queue) {
		c.Fail()
		return
	}
	s.entered = entered
}

func (s *sliding) count() int { return len(s.queue) }

func (s *sessions) save(f *value.Fields) {
	var out value.Fields
	for _, a := range slices.SortedFunc(slices.Values(s.due), alarm.compare) {
		out.Int(int64(a.at))
		out.Text(a.session.key)
		out.Int(int64(a.session.start))
		out.Int(int64(a.session.last))
		a.session.groups.save(&out)
	}
	f.Add(out.Value())
}

func (s *sessions) load(c *value.Cursor) {
	for in := c.Inner(); in.More(); {
		at := fleetscore.Micros(in.Int())
		x := &session{key: in.Text(), start: fleetscore.Micros(in.Int()), last: fleetscore.Micros(in.Int())}
		x.groups.load(in, s.aggregates, s.groupOf)
		s.of[x.key] = x
		heap.Push(&s.due, alarm{at, x})
	}
}

func (s *sessions) count() int { return len(s.of) }
