package expr

import (
	"maps"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

func (c *counter) Save(f *value.Fields) { f.Int(c.n) }
func (c *counter) Load(r *value.Cursor) { c.n = r.Int() }

func (d *distinct) Save(f *value.Fields) {
	var inner value.Fields
	for _, k := range slices.Sorted(maps.Keys(d.seen)) {
		inner.Text(k)
	}
	f.Add(inner.Value())
}

func (d *distinct) Load(r *value.Cursor) {
	for inner := r.Inner(); inner.More(); {
		d.seen[inner.Text()] = true
	}
}

func (t *total) Save(f *value.Fields) {
	f.Int(t.n)
	f.Add(t.whole)
	f.Bits(t.float)
	f.Add(value.Of(t.mixed))
}

func (t *total) Load(r *value.Cursor) {
	t.n, t.whole, t.float, t.mixed = r.Int(), r.Value(), r.Bits(), r.Value().True()
}

func (x *extreme) Save(f *value.Fields) { f.Add(x.best) }
func (x *extreme) Load(r *value.Cursor) { x.best = r.Value() }

func (e *edge) Save(f *value.Fields) { f.Add(e.v) }
func (e *edge) Load(r *value.Cursor) { e.v = r.Value() }

func (s *spread) Save(f *value.Fields) {
	f.Bits(s.n)
	f.Bits(s.mean)
	f.Bits(s.squares)
}
func (s *spread) Load(r *value.Cursor) { s.n, s.mean, s.squares = r.Bits(), r.Bits(), r.Bits() }

func (c *collection) Save(f *value.Fields) { f.List(c.list) }
func (c *collection) Load(r *value.Cursor) { c.list = slices.Clone(r.List()) }

func (r *ranking) Save(f *value.Fields) {
	var rows value.Fields
	for _, row := range r.rows {
		rows.List(row)
	}
	f.Add(rows.Value())
}

func (r *ranking) Load(c *value.Cursor) {
	for rows := c.Inner(); rows.More(); {
		row := rows.List()
		if len(row) != len(r.desc)+1 {
			c.Fail()
			return
		}
		r.rows = append(r.rows, row)
	}
}

func (p *percentile) Save(f *value.Fields) { f.List(p.list) }
func (p *percentile) Load(r *value.Cursor) { p.list = slices.Clone(r.List()) }

// Save adds what the function remembers to a checkpoint.
func (h *History) Save(f *value.Fields) {
	f.Int(int64(h.swept))
	var parts value.Fields
	for _, k := range slices.Sorted(maps.Keys(h.parts)) {
		p := h.parts[k]
		parts.Text(k)
		parts.Int(int64(p.last))
		parts.Int(p.interval)
		parts.Add(value.Of(p.seen))
		var events value.Fields
		for i, t := range p.times {
			events.Int(int64(t))
			events.List(p.values[i])
		}
		parts.Add(events.Value())
	}
	f.Add(parts.Value())
}

// Load takes a checkpoint into a new history.
func (h *History) Load(c *value.Cursor) {
	h.swept = fleetscore.Micros(c.Int())
	for parts := c.Inner(); parts.More(); {
		k := parts.Text()
		p := &past{last: fleetscore.Micros(parts.Int()), interval: parts.Int(), seen: parts.Value().True()}
		for events := parts.Inner(); events.More(); {
			p.times, p.values = append(p.times, fleetscore.Micros(events.Int())), append(p.values, events.List())
			if h.of.aggregate == nil && len(p.values[len(p.values)-1]) != 1 {
				c.Fail()
				return
			}
		}
		h.parts[k] = p
	}
}
