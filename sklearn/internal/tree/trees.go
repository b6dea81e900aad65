// Package tree computes scikit-learn's decision trees and ensembles of them.
package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// Trees are some decision trees in the form that package kernel walks. For one feature
// they may be a step function instead.
//
// scikit-learn rounds rows to float32 and goes left if x <= threshold. Because x is a
// float32, the threshold may be rounded down to a float32, so that both can be compared
// as integers in the order of floats.
type Trees struct {
	features int
	trees    int // the number of trees
	size     int // the number of nodes
	expected int // the number of trees in the file, while it is read
	nodes    kernel.Nodes
	roots    []uint32      // for each tree, its first node
	depths   []uint32      // for each tree, the number of steps to the deepest leaf
	missing  []uint32      // one bit for each node: whether NaN goes left; nil if NaN is refused
	infinite bool          // accepts infinity, and values that are too large for float32
	steps    steps[uint32] // for one feature, in native records; then there are no nodes
}

func (t *Trees) count() int { return len(t.nodes.Left) }

// columnOf returns a column number in the form of nodes.
func columnOf(c int) uint32 { return kernel.ColumnFactor * uint32(c) }

// leaf reports whether a node is a leaf: its own left child.
func (t *Trees) leaf(node int) bool { return int(t.nodes.Left[node]) == node }

// SupportVectors implements estimator.Sized.
func (t *Trees) SupportVectors() int { return 0 }

// Nodes implements estimator.Sized.
func (t *Trees) Nodes() int { return t.size }

// Features returns the number of columns that a row must have.
func (t *Trees) Features() int { return t.features }

// key returns a threshold, rounded down to float32.
func key(threshold float64) uint32 {
	f := float32(threshold)
	k := kernel.Key(f)
	if float64(f) > threshold {
		k-- // the next lower number, or −0, which isn't a key
	}
	return k
}

// leafKey is a threshold that no key exceeds, not even NaN.
const leafKey = math.MaxUint32

// outcome is what trees add up: the first value of each column, and the values of each
// node. If nodes have several values, they go to as many columns; else tree t adds to
// column t mod the number of columns.
type outcome struct {
	first  []float64
	values []float64 // nodes × width
	width  int
}

// fields reads or writes the trees and the values of their nodes or, for one feature,
// equivalent steps.
func (t *Trees) fields(c *estimator.Codec, values *[]float64) {
	c.Int(&t.features)
	c.Int(&t.trees)
	c.Int(&t.size)
	c.Bool(&t.infinite)
	c.Uint32s(&t.nodes.Thresholds)
	c.Uint32s(&t.nodes.Columns)
	c.Uint32s(&t.nodes.Left)
	c.Uint32s(&t.roots)
	c.Uint32s(&t.depths)
	c.Uint32s(&t.missing)
	c.Floats(values)
	t.steps.fields(c)
}

// forRecord returns the trees in the form of records: steps, if they have one feature.
func (t *Trees) forRecord(o outcome) (Trees, []float64) {
	if t.features == 1 && t.count() > 0 {
		if s := t.sweep(&o, maxSweep); len(s.sums) > 0 {
			return Trees{features: 1, trees: t.trees, size: t.size, infinite: t.infinite, steps: s}, nil
		}
	}
	return *t, o.values
}

// sweep makes steps if this takes at most limit additions.
func (t *Trees) sweep(o *outcome, limit int) steps[uint32] {
	var nan func(int) uint32
	if t.missing != nil {
		key := [1]uint32{leafKey}
		nan = func(tree int) uint32 { return t.walkRow(tree, key[:]) }
	}
	return sweep(t.nodes.Thresholds, t.nodes.Left, t.roots, o, limit, nan)
}

// check proves that a walk ends and stays inside the nodes: links lead forward or, from
// leaves, to themselves.
func (t *Trees) check(class string, o *outcome) error {
	bad := func(what string, at int) error {
		return estimator.Misfit("%s: %s %d of the trees is damaged", class, what, at)
	}
	if t.features < 1 || t.features > estimator.MaxFeatures || o.width < 1 || o.width > 1<<20 || len(o.first) == 0 || (o.width > 1 && o.width != len(o.first)) {
		return bad("the shape", 0)
	}
	if len(t.steps.sums) > 0 {
		if t.features != 1 || t.count() > 0 || t.trees < 1 || !t.steps.fit(len(o.first)) {
			return bad("step", 0)
		}
		return nil
	}
	n := t.count()
	if n == 0 || n > maxNodes || len(t.nodes.Thresholds) != n || len(t.nodes.Columns) != n || len(t.roots) == 0 || len(t.roots) != len(t.depths) ||
		(t.missing != nil && len(t.missing) <= n/32) || t.roots[0] != 0 || len(o.values) != n*o.width || t.trees != len(t.roots) || t.size != n {
		return bad("the shape", 1)
	}
	for i, root := range t.roots {
		end := uint32(n)
		if i+1 < len(t.roots) {
			end = t.roots[i+1]
		}
		if root >= end || end > uint32(n) || t.depths[i] >= end-root {
			return bad("root", i)
		}
		if at := damaged(t.nodes.Thresholds[:end], t.nodes.Columns[:end], t.nodes.Left[:end], root, kernel.ColumnFactor, t.features); at >= 0 {
			return bad("node", at)
		}
	}
	return nil
}

// damaged returns a damaged node of the last tree, which starts at root, or −1. A node
// must be a leaf, or have two children after it and an existing column.
func damaged[K uint32 | uint64](thresholds []K, columns, left []uint32, root uint32, factor uint32, features int) int {
	limit, last := factor*uint32(features), uint32(len(left)-1)
	thresholds, columns = thresholds[:len(left)], columns[:len(left)]
	for i := int(root); i < len(left); i++ {
		at, l := uint32(i), left[i]
		leaf := l == at && thresholds[i] == ^K(0) && columns[i] == 0
		inner := l > at && l < last && columns[i] < limit && columns[i]%factor == 0
		if !leaf && !inner {
			return i
		}
	}
	return -1
}

// rows holds a block's values as keys, in groups of 8 rows.
type rows struct {
	keys  []uint32
	cols  int
	lanes int  // rows with padding
	nan   bool // whether a value is NaN
}

// at returns the keys from a row's first key on; the row's other keys are 8 apart.
func (r *rows) at(row int) []uint32 { return r.keys[row/8*8*r.cols+row%8:] }

// keys rounds rows to float32, as scikit-learn does, and refuses the same rows.
func (t *Trees) keys(class string, x *estimator.Block, ws *estimator.Workspace) (rows, error) {
	r := rows{keys: ws.Uint32s(x.Stride * x.Cols), cols: x.Cols, lanes: x.Stride}
	for c := range x.Cols {
		dst, finite := r.keys[8*c:], float32(0)
		for i, v := range x.Lanes(c) {
			f := float32(v)
			dst[i/8*8*x.Cols+i%8] = kernel.Key(f)
			if i < x.Rows {
				finite += f - f
			}
		}
		if finite == 0 {
			continue
		}
		if err := t.refuse(class, x, c, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// refuse checks a column that has values which aren't finite as float32.
func (t *Trees) refuse(class string, x *estimator.Block, c int, r *rows) error {
	for i, v := range x.Col(c) {
		f := float32(v)
		switch {
		case f-f == 0, v == v && t.infinite:
		case v == v:
			return estimator.Refuse("%s got %v in row %d, feature %d, which is infinite or too large for float32; scikit-learn refuses it too", class, v, x.First+i, c).
				WithHint("drop the row or scale the value before scoring")
		case t.missing == nil && !t.steps.takesNaN():
			return estimator.Refuse("%s got NaN in row %d, feature %d; scikit-learn refuses it too", class, x.First+i, c).
				WithHint("drop the row or fill the value before scoring")
		default:
			r.nan = true
		}
	}
	return nil
}

// sum writes the trees' sum for each row, tree by tree. The padding gets values too.
func (t *Trees) sum(class string, x, out *estimator.Block, o *outcome, ws *estimator.Workspace) error {
	r, err := t.keys(class, x, ws)
	if err != nil {
		return err
	}
	if len(t.steps.sums) > 0 {
		t.steps.look(r.keys, out)
		return nil
	}
	for c, v := range o.first {
		dst := out.Lanes(c)
		for i := range dst {
			dst[i] = v
		}
	}
	for tree := range t.roots {
		dst := out.X
		if o.width == 1 {
			dst = out.Lanes(tree % out.Cols)
		}
		if r.nan {
			for i := range x.Rows {
				leaf := int(t.walkRow(tree, r.at(i)))
				for k, v := range o.values[leaf*o.width : (leaf+1)*o.width] {
					dst[k*out.Stride+i] += v
				}
			}
			continue
		}
		t.nodes.WalkAdd(t.roots[tree], t.depths[tree], r.keys, r.cols, o.values, o.width, dst, out.Stride)
	}
	return nil
}

// walkRow walks one row, which may contain NaN. Each node says to which side NaN goes.
func (t *Trees) walkRow(tree int, key []uint32) uint32 {
	at := t.roots[tree]
	for range t.depths[tree] {
		left, threshold, v := t.nodes.Left[at], t.nodes.Thresholds[at], key[8/kernel.ColumnFactor*t.nodes.Columns[at]]
		switch {
		case left == at: // the node is a leaf
		case v == leafKey && t.missing != nil && t.missing[at/32]>>(at%32)&1 == 1, v <= threshold:
			at = left
		default:
			at = left + 1
		}
	}
	return at
}
