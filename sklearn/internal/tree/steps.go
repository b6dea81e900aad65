package tree

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// steps are the trees of a model with one feature as a step function. Between two
// neighbouring thresholds of all trees, every row ends in the same leaves, so the sum
// of these leaves is stored once. The sums are added tree by tree in the order of
// walking, so they are the same to the last bit.
//
// A step takes a threshold and a value, and there is at most one step for each inner
// node. A forest has twice as many nodes, each with 12 bytes and a value (16 bytes if
// keys have 64 bits). So steps take at most a third of the trees' memory (half, with
// many values). They are made once, when a record is written.
type steps[K uint32 | uint64] struct {
	keys []K       // the thresholds, ascending
	sums []float64 // for each step, the values of all columns; there is one step more than keys
	nan  []float64 // the values for NaN; nil if NaN is refused
}

func (s *steps[K]) fields(c *estimator.Codec) {
	switch keys := any(&s.keys).(type) {
	case *[]uint32:
		c.Uint32s(keys)
	case *[]uint64:
		c.Uint64s(keys)
	}
	c.Floats(&s.sums)
	c.Floats(&s.nan)
}

func (s *steps[K]) fit(cols int) bool {
	return len(s.sums) == (len(s.keys)+1)*cols && (s.nan == nil || len(s.nan) == cols)
}

func (s *steps[K]) takesNaN() bool { return s.nan != nil }

// maxSweep bounds trees × steps × columns: the number of additions for making steps.
// Models that need more stay trees.
const maxSweep = 1 << 27

// sweep makes steps from trees with one feature, or no steps if that takes more
// additions than limit. nan returns the leaf of NaN in a tree.
func sweep[K uint32 | uint64](thresholds []K, left, roots []uint32, o *outcome, limit int, nan func(tree int) uint32) steps[K] {
	var s steps[K]
	for at, l := range left {
		if int(l) != at {
			s.keys = append(s.keys, thresholds[at])
		}
	}
	slices.Sort(s.keys)
	s.keys = slices.Clip(slices.Compact(s.keys))
	n, cols := len(s.keys)+1, len(o.first)
	if n*cols*len(roots) > limit {
		return steps[K]{}
	}
	s.sums = make([]float64, 0, n*cols)
	for range n {
		s.sums = append(s.sums, o.first...)
	}
	for tree, root := range roots {
		s.add(thresholds, left, root, o, tree)
	}
	if nan != nil {
		s.nan = slices.Clone(o.first)
		for tree := range roots {
			o.add(s.nan, tree, nan(tree))
		}
	}
	return s
}

// add adds the values of a tree's leaves to the steps of these leaves.
func (s *steps[K]) add(thresholds []K, left []uint32, root uint32, o *outcome, tree int) {
	type span struct {
		node     uint32
		from, to int // steps
	}
	cols := len(o.first)
	todo := []span{{root, 0, len(s.keys) + 1}}
	for len(todo) > 0 {
		a := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		l := left[a.node]
		if l == a.node {
			for i := a.from; i < a.to; i++ {
				o.add(s.sums[i*cols:(i+1)*cols], tree, l)
			}
			continue
		}
		// Step i is for keys above keys[i−1] and up to keys[i].
		i, _ := slices.BinarySearch(s.keys, thresholds[a.node])
		if to := min(a.to, i+1); a.from < to {
			todo = append(todo, span{l, a.from, to})
		}
		if from := max(a.from, i+1); from < a.to {
			todo = append(todo, span{l + 1, from, a.to})
		}
	}
}

// add adds the values of a leaf to those of one row.
func (o *outcome) add(row []float64, tree int, leaf uint32) {
	if o.width == 1 {
		row[tree%len(row)] += o.values[leaf]
		return
	}
	for k, v := range o.values[int(leaf)*o.width : (int(leaf)+1)*o.width] {
		row[k] += v
	}
}

// look writes the values of each row's step, for 8 rows at once.
func (s *steps[K]) look(keys []K, out *estimator.Block) {
	for i := 0; i < len(keys); i += 8 {
		at := kernel.Count(s.keys, (*[8]K)(keys[i:]))
		for c := range out.Cols {
			dst := out.Lanes(c)[i : i+8 : i+8]
			for j, n := range at {
				dst[j] = s.sums[int(n)*out.Cols+c]
			}
		}
	}
	if s.nan == nil {
		return
	}
	for i, key := range keys {
		if key == ^K(0) {
			for c, v := range s.nan {
				out.X[c*out.Stride+i] = v
			}
		}
	}
}

// extremes returns the least and the largest value of a single column.
func (s *steps[K]) extremes() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, values := range [...][]float64{s.sums, s.nan} {
		for _, v := range values {
			low, high = min(low, v), max(high, v)
		}
	}
	return low, high
}
