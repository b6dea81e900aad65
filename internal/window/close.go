package window

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// sealed holds the rows of a window that takes no more readings, sorted by key.
type sealed struct {
	keys   []fleetscore.Key
	values [][]float64 // by aggregate
}

// seal reduces the windows that the watermark has passed to their rows. The data that
// recognises repeats isn't needed any more, and takes most of the memory.
func (p *Partition) seal() {
	if p.state.watermark < p.nextEnd {
		return
	}
	p.nextEnd = math.MaxInt64
	for end, w := range p.windows {
		switch {
		case w.rows != nil:
		case end > p.state.watermark:
			p.nextEnd = min(p.nextEnd, end)
		default:
			w.rows, w.cells = p.rowsOf(w), nil
			p.held -= w.held
			w.held = int64(len(w.rows.keys)) * int64(16+8*len(p.cfg.Aggregates))
			for _, k := range w.rows.keys {
				w.held += int64(len(k))
			}
			p.held += w.held
			p.over += w.held
		}
	}
}

func (p *Partition) rowsOf(w *window) *sealed {
	out := &sealed{keys: make([]fleetscore.Key, 0, len(w.cells)), values: make([][]float64, len(p.cfg.Aggregates))}
	out.keys = slices.AppendSeq(out.keys, maps.Keys(w.cells))
	slices.SortFunc(out.keys, cmp.Compare)
	for a, g := range p.cfg.Aggregates {
		out.values[a] = make([]float64, len(out.keys))
		for i, k := range out.keys {
			out.values[a][i] = w.cells[k].value(g, a)
		}
	}
	return out
}

// Close removes the windows that end by until and returns their rows, sorted by stamp
// and key. until must not be after the watermark. Values are in the order of the
// aggregates; the caller names the columns.
func (p *Partition) Close(until fleetscore.Micros) *fleetscore.Rows {
	out := &fleetscore.Rows{Values: make([][]float64, len(p.cfg.Aggregates))}
	var ends []fleetscore.Micros
	for end := range p.windows {
		if end <= until {
			ends = append(ends, end)
		}
	}
	slices.Sort(ends)
	index := map[fleetscore.Key]uint32{}
	for _, end := range ends {
		w := p.windows[end]
		delete(p.windows, end)
		p.held -= w.held
		p.over -= w.held
		for _, k := range w.rows.keys {
			n, ok := index[k]
			if !ok {
				n = uint32(len(out.Keys))
				index[k] = n
				out.Keys = append(out.Keys, k)
			}
			out.KeyIndex = append(out.KeyIndex, n)
			out.Times = append(out.Times, end)
		}
		for a := range out.Values {
			out.Values[a] = append(out.Values[a], w.rows.values[a]...)
		}
	}
	return out
}

// value is an aggregate of a cell. It is missing if there is no value, or if a sum is
// too large for a 64-bit number, because an infinite value isn't a measurement.
func (c *cell) value(g Aggregate, a int) float64 {
	s := c.sums[a]
	v := s.max
	switch {
	case g.Func == "count" && g.Column == "":
		return float64(c.readings)
	case g.Func == "count":
		return float64(s.n)
	case s.n == 0:
		return fleetscore.Missing
	case isSpread(g.Func):
		v = s.spread(g.Func)
	case g.Func == "avg":
		v = s.sum / float64(s.n)
	case g.Func == "sum":
		v = s.sum
	case g.Func == "min":
		v = s.min
	}
	if math.IsInf(v, 0) {
		return fleetscore.Missing
	}
	return v
}

// spread is a variance or standard deviation; missing for a single value unless it is
// that of the population.
func (s *sum) spread(function string) float64 {
	n := float64(s.n)
	if !strings.HasSuffix(function, "p") {
		n--
	}
	if n == 0 {
		return fleetscore.Missing
	}
	v := max(s.squares/n, 0)
	if strings.HasPrefix(function, "stdev") {
		return math.Sqrt(v)
	}
	return v
}
