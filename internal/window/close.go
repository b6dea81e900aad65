package window

import (
	"cmp"
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
	if p.state.watermark < p.nextEnd {
		return
	}
	p.nextEnd, p.latest = math.MaxInt64, nil
	for end, w := range p.windows {
		switch {
		case w.rows != nil:
		case end > p.state.watermark:
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
	var ends []fleetscore.Micros
	count := 0
	for end, w := range p.windows {
		if end <= until {
			ends = append(ends, end)
			count += w.rows.len()
		}
	}
	slices.Sort(ends)
	have := make([]bool, len(p.keys.list))
	var numbers []uint32
	for _, end := range ends {
		for _, key := range p.windows[end].rows.keys {
			if !have[key] {
				have[key] = true
				numbers = append(numbers, key)
			}
		}
	}
	slices.SortFunc(numbers, func(a, b uint32) int { return cmp.Compare(p.keys.list[a].key, p.keys.list[b].key) })
	out := &fleetscore.Rows{Keys: make([]fleetscore.Key, len(numbers)), KeyIndex: make([]uint32, 0, count), Times: make([]fleetscore.Micros, 0, count), Values: make([][]float64, len(p.fields))}
	place := make([]uint32, len(p.keys.list)) // of the keys in out
	for i, key := range numbers {
		out.Keys[i], place[key] = p.keys.list[key].key, uint32(i)
	}
	for a := range out.Values {
		out.Values[a] = make([]float64, 0, count)
	}
	rowAt := make([]uint32, len(numbers)) // by place, plus 1
	for _, end := range ends {
		w := p.windows[end]
		delete(p.windows, end)
		p.over -= w.held
		p.hold(w, -w.held)
		w.rows.sorted(place, rowAt, func(row int, key uint32) {
			out.KeyIndex = append(out.KeyIndex, key)
			out.Times = append(out.Times, end)
			for a, v := range w.rows.values {
				out.Values[a] = append(out.Values[a], v[row])
			}
		})
	}
	p.forget(have)
	return out
}

// sorted calls f for each row, in the order of the keys' places. rowAt is as long as there are
// places, and zero before and after.
func (s *sealed) sorted(place, rowAt []uint32, f func(row int, place uint32)) {
	if 16*len(s.keys) < len(rowAt) { // a window with few of the keys
		order := make([]int, len(s.keys))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(place[s.keys[a]], place[s.keys[b]]) })
		for _, row := range order {
			f(row, place[s.keys[row]])
		}
		return
	}
	for row, key := range s.keys {
		rowAt[place[key]] = uint32(row + 1)
	}
	for at, row := range rowAt {
		if row > 0 {
			f(int(row-1), uint32(at))
			rowAt[at] = 0
		}
	}
}
