package window

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// sealed holds the rows of a window that takes no more readings, in columns.
type sealed struct {
	keys   []uint32    // numbers
	values [][]float64 // by aggregate
}

func (s *sealed) len() int { return len(s.keys) }

func (s *sealed) key(row int) uint32 { return s.keys[row] }

// seal reduces the windows that the watermark has passed to their rows. The data that
// recognises repeats isn't needed any more, and takes most of the memory.
func (p *Partition) seal() {
	if p.cfg.Revise == 0 { // else they take readings until they are closed
		p.sealTo(p.state.watermark)
	}
}

// sealTo reduces the windows that end by a time to their rows.
func (p *Partition) sealTo(until fleetscore.Micros) {
	if until < p.nextEnd {
		return
	}
	p.nextEnd, p.latest = math.MaxInt64, nil
	for end, w := range p.windows {
		switch {
		case w.rows != nil:
		case end > until:
			p.nextEnd = min(p.nextEnd, end)
		default:
			w.rows = p.rowsOf(w)
			p.free(w)
			p.hold(w, int64(w.rows.len())*int64(4+8*len(p.fields)))
			p.over += w.held
			p.open--
		}
	}
}

func (p *Partition) rowsOf(w *window) *sealed {
	n := 0
	w.each(func(uint32) { n++ })
	out := &sealed{keys: make([]uint32, 0, n), values: make([][]float64, len(p.fields))}
	w.each(func(key uint32) { out.keys = append(out.keys, key) })
	for a := range p.fields {
		out.values[a] = make([]float64, n)
		for i, key := range out.keys {
			out.values[a][i] = w.pages[key>>pageBits].value(&p.fields[a], p.cfg.Aggregates[a].Func, int(key&(pageKeys-1)))
		}
	}
	return out
}

// Close removes the windows that end by until and returns their rows, sorted by stamp
// and key. until must not be after the watermark. Values are in the order of the
// aggregates; the caller names the columns.
func (p *Partition) Close(until fleetscore.Micros) *fleetscore.Rows {
	var out *fleetscore.Rows
	for rows := range p.Parts(until, math.MaxInt) {
		out = rows
	}
	return out
}

// maxParts is into how many parts rows are divided at most.
const maxParts = 16

// Parts is Close in parts of about n rows, so that a caller who writes one after the other needs
// little memory. A part has the rows of a range of shards. The windows are removed at once;
// rows are made when the caller asks for them.
func (p *Partition) Parts(until fleetscore.Micros, n int) iter.Seq[*fleetscore.Rows] {
	p.sealTo(until)
	p.doneEnd = max(p.doneEnd, until)
	c := &closing{all: p.keys.list, aggregates: len(p.fields)}
	count := 0
	have := make([]bool, len(c.all))
	for end, w := range p.windows {
		if end > until {
			continue
		}
		c.windows = append(c.windows, w)
		count += w.rows.len()
		for _, key := range w.rows.keys {
			have[key] = true
		}
		delete(p.windows, end)
		p.over -= w.held
		p.hold(w, -w.held)
	}
	slices.SortFunc(c.windows, func(a, b *window) int { return cmp.Compare(a.end, b.end) })
	for key, there := range have {
		if there {
			c.keys = append(c.keys, uint32(key))
		}
	}
	p.forget(have)
	parts := 1
	for parts < maxParts && count/parts > n {
		parts *= 2
	}
	return func(yield func(*fleetscore.Rows) bool) {
		c.place = make([]uint32, len(c.all))
		for _, r := range fleetscore.SplitShards(parts) {
			if !yield(c.rows(r)) {
				return
			}
		}
	}
}

// closing is windows that were removed, while their rows are made.
type closing struct {
	all        []known
	aggregates int
	windows    []*window
	keys       []uint32 // those of the windows
	place      []uint32 // by number, among the keys of a part, plus 1
}

// rows are the rows of a range of shards.
func (c *closing) rows(shards fleetscore.ShardRange) *fleetscore.Rows {
	var numbers []uint32
	for _, key := range c.keys {
		if shards.Contains(fleetscore.Shard(c.all[key].mix >> 56)) { // as Key.Shard does
			numbers = append(numbers, key)
		}
	}
	slices.SortFunc(numbers, func(a, b uint32) int { return cmp.Compare(c.all[a].key, c.all[b].key) })
	out := &fleetscore.Rows{Keys: make([]fleetscore.Key, len(numbers)), Values: make([][]float64, c.aggregates)}
	clear(c.place)
	for i, key := range numbers {
		out.Keys[i], c.place[key] = c.all[key].key, uint32(i+1)
	}
	count := 0
	for _, w := range c.windows {
		for _, key := range w.rows.keys {
			if c.place[key] > 0 {
				count++
			}
		}
	}
	out.KeyIndex, out.Times = make([]uint32, 0, count), make([]fleetscore.Micros, 0, count)
	for a := range out.Values {
		out.Values[a] = make([]float64, 0, count)
	}
	rowAt := make([]uint32, len(numbers)) // by place, plus 1
	for _, w := range c.windows {
		w.rows.sorted(c.place, rowAt, func(row int, key uint32) {
			out.KeyIndex = append(out.KeyIndex, key)
			out.Times = append(out.Times, w.end)
			for a, v := range w.rows.values {
				out.Values[a] = append(out.Values[a], v[row])
			}
		})
	}
	return out
}

// sorted calls f for each row whose key has a place, in the order of the places. rowAt is as long as
// there are places, and zero before and after.
func (s *sealed) sorted(place, rowAt []uint32, f func(row int, place uint32)) {
	if 16*len(s.keys) < len(rowAt) { // a window with few of the keys
		var order []int
		for row, key := range s.keys {
			if place[key] > 0 {
				order = append(order, row)
			}
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(place[s.keys[a]], place[s.keys[b]]) })
		for _, row := range order {
			f(row, place[s.keys[row]]-1)
		}
		return
	}
	for row, key := range s.keys {
		if at := place[key]; at > 0 {
			rowAt[at-1] = uint32(row + 1)
		}
	}
	for at, row := range rowAt {
		if row > 0 {
			f(int(row-1), uint32(at))
			rowAt[at] = 0
		}
	}
}
