package window

import (
	"math"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// An open window is arrays by the numbers of the keys, in pages so that a window with few
// keys is small. A page has, for each of its keys, the number and latest time of its
// readings and what each aggregate needs. Pages are used again by later windows.
const (
	pageBits = 6
	pageKeys = 1 << pageBits
)

type page struct {
	latest   [pageKeys]fleetscore.Micros // of the readings that count
	readings [pageKeys]uint32            // that count; 0: the window doesn't have the key
	last     [pageKeys]uint32            // the latest print, plus 1
	counts   []uint32
	floats   []float64
}

// field is where a page holds an aggregate.
type field struct {
	kind   kind
	column string
	count  int // place in counts, of the number of values
	float  int // place in floats
}

type kind int

const (
	average kind = iota
	total
	least
	most
	number   // of values
	everyone // number of readings
	spread   // mean and sum of squares, by Welford's method
)

// layout says where pages hold the aggregates, and how large they are.
func layout(aggregates []Aggregate) (fields []field, counts, floats int) {
	for _, a := range aggregates {
		f := field{column: a.Column, count: counts, float: floats}
		switch {
		case a.Func == "count" && a.Column == "":
			f.kind = everyone
		case a.Func == "count":
			f.kind = number
		case strings.HasPrefix(a.Func, "st"), strings.HasPrefix(a.Func, "v"):
			f.kind = spread
			floats += 2 * pageKeys
		default:
			f.kind = map[string]kind{"avg": average, "sum": total, "min": least, "max": most}[a.Func]
			floats += pageKeys
		}
		if f.kind != everyone {
			counts += pageKeys
		}
		fields = append(fields, f)
	}
	return fields, counts, floats
}

// take adds the values of reading i to the aggregates of the key at place s of the page, in the
// log's order, so that a replay gives the same bits.
func (g *page) take(fields []field, columns [][]*fleetscore.ReadingColumn, s, i int) {
	for a := range fields {
		f := &fields[a]
		for _, col := range columns[a] {
			if col.Strings != nil {
				if f.kind == number && (col.Present == nil || col.Present[i]) {
					g.counts[f.count+s]++
				}
				continue
			}
			x := col.Numbers[i]
			if math.IsNaN(x) {
				continue
			}
			n := &g.counts[f.count+s]
			*n++
			switch f.kind {
			case average, total:
				g.floats[f.float+s] += x
			case least:
				if y := &g.floats[f.float+s]; *n == 1 || x < *y {
					*y = x
				}
			case most:
				if y := &g.floats[f.float+s]; *n == 1 || x > *y {
					*y = x
				}
			case spread:
				mean := &g.floats[f.float+s]
				d := x - *mean
				*mean += d / float64(*n)
				g.floats[f.float+pageKeys+s] += d * (x - *mean)
			}
		}
	}
}

// value is an aggregate of the key at place s. It is missing if there is no value, or if a
// sum is too large for a 64-bit number, because an infinite value isn't a measurement.
func (g *page) value(f *field, function string, s int) float64 {
	switch f.kind {
	case everyone:
		return float64(g.readings[s])
	case number:
		return float64(g.counts[f.count+s])
	}
	n := float64(g.counts[f.count+s])
	if n == 0 {
		return fleetscore.Missing
	}
	v := g.floats[f.float+s]
	switch f.kind {
	case average:
		v /= n
	case spread:
		v = spreadOf(function, n, g.floats[f.float+pageKeys+s])
	}
	if math.IsInf(v, 0) {
		return fleetscore.Missing
	}
	return v
}

// spreadOf is a variance or standard deviation; missing for a single value unless it is
// that of the population.
func spreadOf(function string, n, squares float64) float64 {
	if !strings.HasSuffix(function, "p") {
		n--
	}
	if n == 0 {
		return fleetscore.Missing
	}
	v := max(squares/n, 0)
	if strings.HasPrefix(function, "stdev") {
		return math.Sqrt(v)
	}
	return v
}

// print identifies a reading among those of a window, by 96 bits of its key, its time, and its id
// or values. The prints of a key are a chain, from the latest back.
type print struct {
	hash uint64
	low  uint32 // of the time; the rest is in hash
	prev uint32 // of the same key, plus 1
}

// chunk is prints that are allocated at once, and used again by later windows.
type chunk [chunkPrints]print

const (
	chunkBits   = 8
	chunkPrints = 1 << chunkBits
	chunkBytes  = 16 * chunkPrints
	maxChain    = 16 // prints of a chain that are compared before the window gets an index
)

// printOf is the print of a reading of a key, with the hash of its id or values.
func printOf(k *known, t fleetscore.Micros, hash uint64) print {
	return print{hash: hash ^ k.mix ^ (uint64(t)>>32)*0x9e3779b97f4a7c15, low: uint32(t)}
}

func (w *window) print(n uint32) *print { return &w.chunks[n>>chunkBits][n&(chunkPrints-1)] }

// repeated reports whether the window has the print, in the chain that ends with last. A
// reading that is later than all others of its key needn't ask. A long chain is searched by
// an index of all prints, which is made when it is needed first.
func (w *window) repeated(x print, last uint32) bool {
	for steps := 0; last != 0; steps++ {
		if steps == maxChain {
			if w.index == nil {
				w.reindex(4 * w.prints)
			}
			return w.indexed(x)
		}
		y := w.print(last - 1)
		if y.hash == x.hash && y.low == x.low {
			return true
		}
		last = y.prev
	}
	return false
}

func (x *print) place() uint64 { return (x.hash ^ uint64(x.low)<<20) * 0xff51afd7ed558ccd >> 20 }

func (w *window) indexed(x print) bool {
	mask := uint64(len(w.index) - 1)
	for at := x.place() & mask; w.index[at] != 0; at = (at + 1) & mask {
		if y := w.print(w.index[at] - 1); y.hash == x.hash && y.low == x.low {
			return true
		}
	}
	return false
}

// reindex makes an index with at least this many places.
func (w *window) reindex(places uint32) {
	size := 1024
	for size < int(places) {
		size *= 2
	}
	w.index = make([]uint32, size)
	for n := range w.prints {
		w.enter(n)
	}
}

func (w *window) enter(n uint32) {
	mask := uint64(len(w.index) - 1)
	at := w.print(n).place() & mask
	for w.index[at] != 0 {
		at = (at + 1) & mask
	}
	w.index[at] = n + 1
}

// each calls f for each key that the window has.
func (w *window) each(f func(key uint32)) {
	if w.rows != nil {
		for i := range w.rows.len() {
			f(w.rows.key(i))
		}
		return
	}
	for at, g := range w.pages {
		if g == nil {
			continue
		}
		for s, n := range g.readings {
			if n > 0 {
				f(uint32(at<<pageBits + s))
			}
		}
	}
}

// page returns the page of a key's number, and makes it if it is absent.
func (p *Partition) page(w *window, key uint32) *page {
	at := int(key >> pageBits)
	if at >= len(w.pages) {
		w.pages = append(w.pages, make([]*page, at+1-len(w.pages))...)
	}
	g := w.pages[at]
	if g != nil {
		return g
	}
	if n := len(p.sparePages); n > 0 {
		g, p.sparePages = p.sparePages[n-1], p.sparePages[:n-1]
		clear(g.counts)
		clear(g.floats)
		*g = page{counts: g.counts, floats: g.floats}
	} else {
		g = &page{counts: make([]uint32, p.counts), floats: make([]float64, p.floats)}
	}
	w.pages[at] = g
	p.hold(w, p.pageBytes)
	return g
}

// remember appends a print.
func (p *Partition) remember(w *window, x print) {
	if w.prints == uint32(len(w.chunks)<<chunkBits) {
		var c *chunk
		if n := len(p.spareChunks); n > 0 {
			c, p.spareChunks = p.spareChunks[n-1], p.spareChunks[:n-1]
		} else {
			c = new(chunk)
		}
		w.chunks = append(w.chunks, c)
		p.hold(w, chunkBytes)
	}
	*w.print(w.prints) = x
	w.prints++
	if w.index != nil {
		before := len(w.index)
		if 2*int(w.prints) > before {
			w.reindex(uint32(2 * before))
			p.hold(w, int64(4*(len(w.index)-before)))
		} else {
			w.enter(w.prints - 1)
		}
	}
}

// hold counts memory of a window.
func (p *Partition) hold(w *window, bytes int64) {
	w.held += bytes
	p.held += bytes
}

// free takes the memory of a window that is over, for later windows. After a rush of readings
// most of it is given back, when a smaller window is over.
func (p *Partition) free(w *window) {
	for _, g := range w.pages {
		if g != nil {
			p.sparePages = append(p.sparePages, g)
		}
	}
	p.sparePages = keep(p.sparePages, 2*len(w.pages))
	p.spareChunks = keep(append(p.spareChunks, w.chunks...), 2*len(w.chunks))
	w.pages, w.chunks, w.index = nil, nil, nil
	p.hold(w, -w.held)
}

// keep shortens a list to n.
func keep[T any](list []*T, n int) []*T {
	if len(list) <= n {
		return list
	}
	clear(list[n:])
	return list[:n]
}

// move gives a window's keys their new numbers.
func (p *Partition) move(w *window, to []uint32) {
	if w.rows != nil {
		for i := range w.rows.len() {
			w.rows.keys[i] = to[w.rows.keys[i]]
		}
		return
	}
	old := w.pages
	w.pages = nil
	for at, g := range old {
		if g == nil {
			continue
		}
		p.hold(w, -p.pageBytes)
		for s, n := range g.readings {
			if n == 0 {
				continue
			}
			key := to[at<<pageBits+s]
			h, d := p.page(w, key), int(key&(pageKeys-1))
			h.latest[d], h.readings[d], h.last[d] = g.latest[s], n, g.last[s]
			for c := 0; c < len(g.counts); c += pageKeys {
				h.counts[c+d] = g.counts[c+s]
			}
			for f := 0; f < len(g.floats); f += pageKeys {
				h.floats[f+d] = g.floats[f+s]
			}
		}
	}
}
