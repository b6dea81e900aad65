package scorer

import (
	"math/bits"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// grouping finds the rows of each key. Keys stand in bundles of neighbours, so
// that a bundle's rows stay in the cache while they are scored: rows that come sensor
// after sensor, tick after tick, would otherwise cost a cache miss each. Where there are
// many keys, rows are sorted by bundle first, and each bundle's rows by key when its turn
// comes, for the same reason.
type grouping struct {
	index []uint32 // per row, its key
	keys  int
	per   int      // keys in a bundle
	shift int      // rows are sorted by their keys >> shift: 0, or as many bits as per has
	rows  []uint32 // the sorted rows, ascending in each part
	start []uint32 // where each part begins in rows; two more at the end
	timed bool     // rows come in the order of their times, or have no times
}

// maxBundle is how many keys a bundle has at most: with 60 rows each, times,
// values and results of a bundle fill a few MB.
const maxBundle = 1024

// manyKeys is how many keys rows can be sorted by at once: the ends of their parts fill a processor's cache of 1 MB.
const manyKeys = 1 << 14

func (g *grouping) bundles() int { return (g.keys + g.per - 1) / g.per }

// groupRows counts the rows of every part, each worker in its share of the
// rows, and then places them.
func groupRows(rows *fleetscore.Rows, workers int) grouping {
	n, keys := rows.Len(), len(rows.Keys)
	g := grouping{index: rows.KeyIndex, keys: keys, per: max(1, min(maxBundle, keys/(16*workers))), rows: make([]uint32, n)}
	if keys > manyKeys {
		g.shift = bits.Len(uint(g.per))
		g.per = 1 << g.shift
	}
	parts := (keys + 1<<g.shift - 1) >> g.shift
	g.start = make([]uint32, parts+2)
	shares := max(1, min(workers, n/65536))
	counts, timed := make([][]uint32, shares), make([]bool, shares)
	var wg sync.WaitGroup
	each := func(do func(share, from, to int)) {
		for s := range shares {
			wg.Go(func() { do(s, s*n/shares, (s+1)*n/shares) })
		}
		wg.Wait()
	}
	each(func(s, from, to int) {
		count := make([]uint32, parts)
		for _, k := range g.index[from:to] {
			count[k>>g.shift]++
		}
		counts[s], timed[s] = count, true
		for i := max(1, from); i < to && rows.TimeName != ""; i++ {
			if rows.Times[i] < rows.Times[i-1] {
				timed[s] = false
				break
			}
		}
	})
	at := uint32(0)
	for p := range parts {
		g.start[p] = at
		for s := range shares {
			at, counts[s][p] = at+counts[s][p], at
		}
	}
	g.start[parts], g.start[parts+1], g.timed = at, at, true
	each(func(s, from, to int) {
		place := counts[s]
		for i, k := range g.index[from:to] {
			at := &place[k>>g.shift]
			g.rows[*at] = uint32(from + i)
			*at++
		}
	})
	for _, t := range timed {
		g.timed = g.timed && t
	}
	return g
}

// sorted is a bundle's rows key by key, in input order within each.
type sorted struct {
	start []uint32 // per key of the bundle, where its rows begin in order; two more at the end
	order []uint32

	starts, orders []uint32 // memory of the two, where the rows had to be sorted
}

// bundle sorts the rows of a bundle, and gives its first key.
func (g *grouping) bundle(b int, out *sorted) (first int) {
	first = b * g.per
	n := min(g.per, g.keys-first)
	if g.shift == 0 {
		out.start, out.order = g.start[first:first+n+2], g.rows
		return first
	}
	rows := g.rows[g.start[b]:g.start[b+1]]
	out.starts, out.orders = resize(out.starts, n+2), resize(out.orders, len(rows))
	out.start, out.order = out.starts, out.orders
	clear(out.start)
	for _, row := range rows {
		out.start[int(g.index[row])-first+2]++
	}
	for i := 2; i < n+2; i++ {
		out.start[i] += out.start[i-1]
	}
	for _, row := range rows { // start[k+1] runs from where key k begins to where it ends
		at := &out.start[int(g.index[row])-first+1]
		out.order[*at] = row
		*at++
	}
	return first
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
