package scorer

import (
	"sync"

	"github.com/fleetscore/fleetscore"
)

// grouping finds the rows of each key. Keys stand in bundles of neighbours, so
// that a bundle's rows stay in the cache while they are sorted by key and scored:
// rows that come sensor after sensor, tick after tick, would otherwise cost a
// cache miss each.
type grouping struct {
	index []uint32 // per row, its key
	keys  int
	per   int      // keys in a bundle
	rows  []uint32 // bundle after bundle, ascending in each
	start []int    // where each bundle begins in rows; one more at the end
	timed bool     // rows come in the order of their times, or have no times
}

// maxBundle is how many keys a bundle has at most: with 60 rows each, times,
// values and results of a bundle fill a few MB.
const maxBundle = 1024

func (g *grouping) bundles() int { return len(g.start) - 1 }

// groupRows counts the rows of every bundle, each worker in its share of the
// rows, and then places them.
func groupRows(rows *fleetscore.Rows, workers int) grouping {
	n, keys := rows.Len(), len(rows.Keys)
	g := grouping{index: rows.KeyIndex, keys: keys, per: max(1, min(maxBundle, keys/(16*workers))), rows: make([]uint32, n)}
	bundles := (keys + g.per - 1) / g.per
	g.start = make([]int, bundles+1)
	shares := max(1, min(workers, n/65536))
	counts, timed := make([][]int, shares), make([]bool, shares)
	var wg sync.WaitGroup
	each := func(do func(share, from, to int)) {
		for s := range shares {
			wg.Go(func() { do(s, s*n/shares, (s+1)*n/shares) })
		}
		wg.Wait()
	}
	each(func(s, from, to int) {
		count := make([]int, bundles)
		for _, k := range g.index[from:to] {
			count[int(k)/g.per]++
		}
		counts[s], timed[s] = count, true
		for i := max(1, from); i < to && rows.TimeName != ""; i++ {
			if rows.Times[i] < rows.Times[i-1] {
				timed[s] = false
				break
			}
		}
	})
	at := 0
	for b := range bundles {
		g.start[b] = at
		for s := range shares {
			at, counts[s][b] = at+counts[s][b], at
		}
	}
	g.start[bundles], g.timed = at, true
	each(func(s, from, to int) {
		place := counts[s]
		for i := from; i < to; i++ {
			b := int(g.index[i]) / g.per
			g.rows[place[b]] = uint32(i)
			place[b]++
		}
	})
	for _, t := range timed {
		g.timed = g.timed && t
	}
	return g
}

// sorted is a bundle's rows key by key, in input order within each.
type sorted struct {
	start []uint32 // per key of the bundle, where its rows begin in order; one more at the end
	order []uint32
}

// bundle sorts the rows of a bundle, and gives its first key.
func (g *grouping) bundle(b int, out *sorted) (first int) {
	first = b * g.per
	n := min(g.per, g.keys-first)
	rows := g.rows[g.start[b]:g.start[b+1]]
	out.start = resize(out.start, n+2)
	clear(out.start)
	out.order = resize(out.order, len(rows))
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
