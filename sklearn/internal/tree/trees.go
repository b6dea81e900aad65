// Package tree computes scikit-learn's decision trees and the ensembles made of
// them.
package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Trees are some decision trees in a form that is walked without branches.
//
// scikit-learn rounds rows to float32 and goes left where x <= threshold. As x
// is a float32, the threshold may be rounded down to one; and as the order of
// floats is that of integers made of their bits, both are kept as such integers.
// The children of a node lie side by side, left first, and a leaf is its own
// left child with a threshold that nothing exceeds: so a step is
//
//	node = left[node] + (x[feature[node]] > threshold[node])
//
// and as many steps as the tree is deep lead every row to its leaf.
type Trees struct {
	features int
	nodes    []int32  // threshold, feature, left; of all trees
	roots    []int32  // per tree, its first node
	depths   []int32  // per tree, steps to the deepest leaf
	missing  []uint32 // a bit per node: NaN goes left; nil where NaN is refused
	infinite bool     // takes infinity, and what is too large for float32
}

const nodeWords = 3

func (t *Trees) count() int { return len(t.nodes) / nodeWords }

// SupportVectors implements estimator.Sized.
func (t *Trees) SupportVectors() int { return 0 }

// Nodes implements estimator.Sized.
func (t *Trees) Nodes() int { return t.count() }

// Features is how many columns a row must have.
func (t *Trees) Features() int { return t.features }

// sortable gives an integer in the order of floats. Adding 0 makes −0 a 0.
func sortable(f float32) int32 {
	b := int32(math.Float32bits(f + 0))
	return b ^ b>>31&math.MaxInt32
}

// key is a threshold rounded down to float32.
func key(threshold float64) int32 {
	f := float32(threshold)
	if float64(f) > threshold {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return sortable(f)
}

// leafKey is a threshold that nothing exceeds, NaN neither.
const leafKey = math.MaxInt32

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

// refund gives back what reading the nodes took.
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
	first := t.count()
	t.roots = append(t.roots, int32(first))
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
			t.nodes = append(t.nodes, leafKey, 0, int32(first+i))
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
		t.nodes = append(t.nodes, key(p.threshold[at]), int32(f), int32(first+len(order)))
		order = append(order, int32(l), int32(r))
	}
	if len(order) != n {
		a.Fail("a tree of %d nodes has %d that can't be reached", n, n-len(order))
	}
	t.depths = append(t.depths, int32(depth))
	if nan {
		for len(t.missing) <= t.count()/32 {
			t.missing = append(t.missing, 0)
		}
	}
	return order
}

func (t *Trees) fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Int32s(&t.nodes)
	c.Int32s(&t.roots)
	c.Int32s(&t.depths)
	c.Uint32s(&t.missing)
	c.Bool(&t.infinite)
}

// check proves that walking can't leave the nodes and ends: links lead forward
// or, from leaves, to themselves.
func (t *Trees) check(class string) error {
	bad := func(what string, at int) error {
		return estimator.Misfit("%s: %s %d of its trees is damaged", class, what, at)
	}
	n := t.count()
	if t.features < 1 || n == 0 || n > maxNodes || len(t.nodes) != n*nodeWords || len(t.roots) == 0 || len(t.roots) != len(t.depths) ||
		(t.missing != nil && len(t.missing) <= n/32) || t.roots[0] != 0 {
		return bad("the shape", 0)
	}
	for i, root := range t.roots {
		end := n
		if i+1 < len(t.roots) {
			end = int(t.roots[i+1])
		}
		if int(root) >= end || end > n || t.depths[i] < 0 || int(t.depths[i]) >= end-int(root) {
			return bad("root", i)
		}
		for at := int(root); at < end; at++ {
			node := t.nodes[nodeWords*at : nodeWords*at+3]
			left := int(node[2])
			if leaf := left == at && node[0] == leafKey; leaf && node[1] != 0 || !leaf && (left <= at || left+1 >= end) || node[1] < 0 || int(node[1]) >= t.features {
				return bad("node", at)
			}
		}
	}
	return nil
}

// rows are a block as sortable integers.
type rows struct {
	keys   []int32
	stride int
	n      int
	nan    bool // some value is NaN
}

// keys rounds rows to float32, as scikit-learn does, and refuses what it does.
func (t *Trees) keys(class string, x *estimator.Block, ws *estimator.Workspace) (rows, error) {
	r := rows{keys: ws.Int32s(x.Stride * x.Cols), stride: x.Stride, n: x.Rows}
	for c := range x.Cols {
		dst := r.keys[c*x.Stride : c*x.Stride+x.Rows]
		for i, v := range x.Col(c) {
			f := float32(v)
			if f-f != 0 {
				switch {
				case v == v && t.infinite:
				case v == v:
					return r, estimator.Refuse("%s got %v in row %d, feature %d, which is infinite or too large for float32; scikit-learn refuses it too", class, v, x.First+i, c).
						WithHint("drop the row or scale the value before scoring")
				case v != v && t.missing == nil:
					return r, estimator.Refuse("%s got NaN in row %d, feature %d; scikit-learn refuses it too", class, x.First+i, c).
						WithHint("drop the row or fill the value before scoring")
				case v != v:
					r.nan = true
					f = float32(math.NaN()) // whose sign and payload are those that walkMissing knows
				}
			}
			dst[i] = sortable(f)
		}
	}
	return r, nil
}

// walk writes the leaf of each row in one tree.
func (t *Trees) walk(tree int, r *rows, leaf []int32) {
	root, depth := t.roots[tree], int(t.depths[tree])
	if r.nan {
		t.walkMissing(tree, r, leaf)
		return
	}
	nodes, keys, stride := t.nodes, r.keys, r.stride
	i := 0
	const lanes = 8 // walks at once, which hides the time that memory takes
	for ; i+lanes <= r.n; i += lanes {
		a, b, c, d, e, f, g, h := root, root, root, root, root, root, root, root
		x := keys[i:]
		for range depth {
			a = step(nodes, x, stride, a, 0)
			b = step(nodes, x, stride, b, 1)
			c = step(nodes, x, stride, c, 2)
			d = step(nodes, x, stride, d, 3)
			e = step(nodes, x, stride, e, 4)
			f = step(nodes, x, stride, f, 5)
			g = step(nodes, x, stride, g, 6)
			h = step(nodes, x, stride, h, 7)
		}
		out := leaf[i : i+lanes : i+lanes]
		out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a, b, c, d, e, f, g, h
	}
	for ; i < r.n; i++ {
		at := root
		for range depth {
			at = step(nodes, keys[i:], stride, at, 0)
		}
		leaf[i] = at
	}
}

func step(nodes, x []int32, stride int, at int32, lane int) int32 {
	n := nodes[nodeWords*int(at):]
	n = n[:3:3]
	v := x[int(n[1])*stride+lane]
	// 1 where v > threshold: the sign of threshold − v, in 64 bits.
	return n[2] + int32(uint64(int64(n[0])-int64(v))>>63)
}

// walkMissing is walk for rows with NaN, whose side each node says.
func (t *Trees) walkMissing(tree int, r *rows, leaf []int32) {
	nan := sortable(float32(math.NaN()))
	for i := range r.n {
		at := t.roots[tree]
		for range t.depths[tree] {
			n := t.nodes[nodeWords*int(at) : nodeWords*int(at)+3]
			v := r.keys[int(n[1])*r.stride+i]
			switch {
			case n[2] == at: // a leaf
			case v != nan:
				at = step(t.nodes, r.keys[i:], r.stride, at, 0)
			case t.missing[at/32]>>(at%32)&1 == 1:
				at = n[2]
			default:
				at = n[2] + 1
			}
		}
		leaf[i] = at
	}
}
