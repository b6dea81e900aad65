// Package tree computes scikit-learn's decision trees and the ensembles made of
// them.
package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Trees are some decision trees in the form that package kernel walks, or, of one
// feature, a step function in their place.
//
// scikit-learn rounds rows to float32 and goes left where x <= threshold. As x
// is a float32, the threshold may be rounded down to one, so that both can be
// compared as integers in the order of floats.
type Trees struct {
	features int
	trees    int // how many
	size     int // how many nodes they have
	nodes    kernel.Nodes
	roots    []uint32      // per tree, its first node
	depths   []uint32      // per tree, steps to the deepest leaf
	missing  []uint32      // a bit per node: NaN goes left; nil where NaN is refused
	infinite bool          // takes infinity, and what is too large for float32
	steps    steps[uint32] // of one feature, in native records: then there are no nodes
}

func (t *Trees) count() int { return len(t.nodes.Left) }

// leaf reports whether a node is one: its own left child.
func (t *Trees) leaf(node int) bool { return int(t.nodes.Left[node]) == node }

// node appends a node.
func (t *Trees) node(threshold, column, left uint32) {
	n := &t.nodes
	n.Thresholds, n.Columns, n.Left = append(n.Thresholds, threshold), append(n.Columns, kernel.ColumnFactor*column), append(n.Left, left)
}

// SupportVectors implements estimator.Sized.
func (t *Trees) SupportVectors() int { return 0 }

// Nodes implements estimator.Sized.
func (t *Trees) Nodes() int { return t.size }

// Features is how many columns a row must have.
func (t *Trees) Features() int { return t.features }

// key is a threshold rounded down to float32.
func key(threshold float64) uint32 {
	f := float32(threshold)
	if float64(f) > threshold {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return kernel.Key(f)
}

// leafKey is a threshold that nothing exceeds, NaN neither.
const leafKey = math.MaxUint32

// parsed is a tree as the file has it.
type parsed struct {
	left, right, feature, threshold []float64
	samples, missing                []float64 // missing: nil before 1.3
	values                          []float64 // nodes × width
	width                           int       // outputs × classes
	outputs                         int
}

// maxNodes bounds all trees of a model together.
const maxNodes = 1 << 29

// parse reads a sklearn.tree._tree.Tree: called with the number of features, of
// classes of each output, and of outputs; then given its nodes and values.
func parse(a *estimator.Attributes, v pickle.Value) *parsed {
	g := a.Graph()
	p := &parsed{}
	if a.Err() != nil {
		return p
	}
	class, args, state := g.Call(v)
	if class == nil || class.Name != "Tree" || len(args) != 3 || state.Kind() != pickle.KindDict {
		a.Fail("tree_ is %s", g.Describe(v))
		return p
	}
	outputs, ok := g.Number(args[2])
	if !ok || outputs < 1 || outputs > 1<<16 {
		a.Fail("tree_ has %v outputs", outputs)
		return p
	}
	p.outputs = int(outputs)
	var nodes, values pickle.Value
	for e := g.Entries(state); ; {
		name, v, ok := e.Pair()
		if !ok {
			break
		}
		switch string(name) {
		case "nodes":
			nodes = v
		case "values":
			values = v
		}
	}
	arr, err := g.Array(nodes)
	if err != nil {
		a.Fail("the nodes of tree_: %w", err)
		return p
	}
	for _, f := range [...]struct {
		name string
		to   *[]float64
	}{{"left_child", &p.left}, {"right_child", &p.right}, {"feature", &p.feature}, {"threshold", &p.threshold}, {"n_node_samples", &p.samples}} {
		if *f.to, err = g.Field(&arr, f.name); err != nil {
			a.Fail("the nodes of tree_: %w", err)
			return p
		}
	}
	if g.HasField(&arr, "missing_go_to_left") {
		p.missing, err = g.Field(&arr, "missing_go_to_left")
	} else {
		a.Aged("the nodes of its trees lack the field missing_go_to_left")
	}
	if err != nil || len(p.left) == 0 {
		a.Fail("tree_ has no nodes")
		return p
	}
	var shape [8]int
	p.values, shape = a.ArrayOf(values, "the values of tree_", true, len(p.left), p.outputs, -1)
	p.width = p.outputs * shape[2]
	return p
}

// treeBytes is what a tree is charged for besides its nodes.
const treeBytes = 1024

// refund gives back what reading the nodes took: it is garbage once they are added.
func (p *parsed) refund(a *estimator.Attributes) {
	n := 5*len(p.left) + len(p.values)
	if p.missing != nil {
		n += len(p.left)
	}
	a.Graph().Refund(8 * n)
}

// add appends a tree, its nodes level by level, and gives for each of its new
// nodes the one in the file. features maps the tree's columns to the rows'.
func (t *Trees) add(a *estimator.Attributes, p *parsed, features []float64, nan bool) (order []int32) {
	n := len(p.left)
	if a.Err() != nil || t.count()+n > maxNodes {
		a.Fail("its trees have more than %d nodes", maxNodes)
		return nil
	}
	// Twice 12 bytes a node, as what grows keeps room; the order, and a bit or two.
	if err := a.Graph().Charge(treeBytes + 29*n); err != nil {
		a.Fail("%w", err)
		return nil
	}
	first := t.count()
	t.roots = append(t.roots, uint32(first))
	order = append(make([]int32, 0, n), 0)
	level, depth := 1, 0 // where the next level starts
	for i := 0; i < len(order); i++ {
		if i == level {
			level = len(order)
			depth++
		}
		at := order[i]
		l, r := p.left[at], p.right[at]
		if l < 0 && r < 0 { // a leaf
			t.node(leafKey, 0, uint32(first+i))
			continue
		}
		f := p.feature[at]
		if features != nil && f >= 0 && int(f) < len(features) {
			f = features[int(f)]
		}
		if l != float64(int32(l)) || r != float64(int32(r)) || l <= 0 || r <= 0 || int(l) >= n || int(r) >= n || len(order)+2 > n ||
			f != float64(int32(f)) || f < 0 || int(f) >= t.features || p.threshold[at] != p.threshold[at] {
			a.Fail("node %d of a tree has the children %v and %v and the feature %v", at, l, r, f)
			return nil
		}
		if nan && p.missing[at] != 0 {
			bit := first + i
			for len(t.missing) <= bit/32 {
				t.missing = append(t.missing, 0)
			}
			t.missing[bit/32] |= 1 << (bit % 32)
		}
		t.node(key(p.threshold[at]), uint32(f), uint32(first+len(order)))
		order = append(order, int32(l), int32(r))
	}
	if len(order) != n {
		a.Fail("a tree of %d nodes has %d that can't be reached", n, n-len(order))
	}
	t.depths = append(t.depths, uint32(depth))
	t.trees, t.size = len(t.roots), t.count()
	if nan {
		for len(t.missing) <= t.count()/32 {
			t.missing = append(t.missing, 0)
		}
	}
	return order
}

// outcome is what trees add up to: the first values, one a column, and the value
// that each node stands for. Where a node has several, they go to as many
// columns; else tree t adds to column t mod the number of columns.
type outcome struct {
	first  []float64
	values []float64 // nodes × width
	width  int
}

// fields reads or writes the trees and the values of their nodes; or, of one
// feature, steps that give the same.
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

// forRecord gives the trees as records keep them: steps, if they have one
// feature.
func (t *Trees) forRecord(o outcome) (Trees, []float64) {
	if t.features == 1 && t.count() > 0 {
		if s := t.sweep(&o, maxSweep); len(s.sums) > 0 {
			return Trees{features: 1, trees: t.trees, size: t.size, infinite: t.infinite, steps: s}, nil
		}
	}
	return *t, o.values
}

// sweep makes steps, in at most so many additions.
func (t *Trees) sweep(o *outcome, limit int) steps[uint32] {
	var nan func(int) uint32
	if t.missing != nil {
		key := [1]uint32{leafKey}
		nan = func(tree int) uint32 { return t.walkRow(tree, key[:]) }
	}
	return sweep(t.nodes.Thresholds, t.nodes.Left, t.roots, o, limit, nan)
}

// check proves that walking can't leave the nodes and ends: links lead forward
// or, from leaves, to themselves.
func (t *Trees) check(class string, o *outcome) error {
	bad := func(what string, at int) error {
		return estimator.Misfit("%s: %s %d of its trees is damaged", class, what, at)
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

// damaged gives a node of the last tree, from its root on, that is neither a leaf
// nor has two children after it and a column that there is; −1 if there is none.
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

// rows are a block as keys, in groups of 8.
type rows struct {
	keys  []uint32
	cols  int
	lanes int  // rows and padding
	nan   bool // some value is NaN
}

// at is where a row's first key is; its others follow 8 apart.
func (r *rows) at(row int) []uint32 { return r.keys[row/8*8*r.cols+row%8:] }

// keys rounds rows to float32, as scikit-learn does, and refuses what it does.
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

// refuse looks at a column that holds what isn't finite as float32.
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

// sum writes what the trees add up to for each row, tree by tree. Padding too
// gets values.
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

// walkRow is the walk of one row, which may hold NaN: each node says to which
// side that goes.
func (t *Trees) walkRow(tree int, key []uint32) uint32 {
	at := t.roots[tree]
	for range t.depths[tree] {
		left, threshold, v := t.nodes.Left[at], t.nodes.Thresholds[at], key[8/kernel.ColumnFactor*t.nodes.Columns[at]]
		switch {
		case left == at: // a leaf
		case v == leafKey && t.missing != nil && t.missing[at/32]>>(at%32)&1 == 1, v <= threshold:
			at = left
		default:
			at = left + 1
		}
	}
	return at
}
