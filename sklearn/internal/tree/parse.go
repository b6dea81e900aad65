package tree

import (
	"encoding/binary"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// parsed is a tree in the form of the file. Its memory is used again for the next tree.
type parsed struct {
	nodes   []node
	missing bool      // whether nodes say where NaN goes, as since 1.3
	values  []float64 // nodes × width; empty for isolation forests
	width   int       // outputs × classes
	outputs int

	order   []int32 // the order in which the file's nodes are added
	depths  []int32 // the depths of the added nodes, for an isolation forest
	columns [6]pickle.Column
	charged int // the memory of all these slices, in bytes
}

type node struct {
	left, right, feature int32
	missing              bool // NaN goes left
	threshold, samples   float64
}

// leaf reports whether a node is a leaf.
func (n *node) leaf() bool { return n.left < 0 && n.right < 0 }

const (
	// nodeBytes is the memory of a node in parsed, with its entries in the other
	// slices.
	nodeBytes = 32 + 4 + 4
	// maxNodes bounds the number of nodes of all trees in a model.
	maxNodes = 1 << 29
)

// fields are the fields of a node in a file, in the order of columns. The last one is
// optional.
var fields = [...]string{"left_child", "right_child", "feature", "threshold", "n_node_samples", "missing_go_to_left"}

// parse reads a sklearn.tree._tree.Tree. The file makes it from the number of features,
// the classes of each output, and the number of outputs, and then sets its nodes and
// values.
func (p *parsed) parse(a *estimator.Attributes, v pickle.Value, withValues bool) {
	g := a.Graph()
	if a.Err() != nil {
		return
	}
	class, args, state := g.Call(v)
	if class == nil || class.Name != "Tree" || len(args) != 3 || state.Kind() != pickle.KindDict {
		a.Fail("tree_ is %s", g.Describe(v))
		return
	}
	outputs, ok := g.Number(args[2])
	if !ok || outputs < 1 || outputs > 1<<16 {
		a.Fail("tree_ has %v outputs", outputs)
		return
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
		return
	}
	if p.readNodes(a, &arr); a.Err() != nil || !withValues {
		return
	}
	arr, err = g.Array(values)
	if err != nil || arr.Dims != 3 || arr.Shape[0] != len(p.nodes) || arr.Shape[1] != p.outputs || arr.Size() == 0 {
		a.Fail("the values of tree_ don't have the shape nodes × outputs × classes")
		return
	}
	p.width = p.outputs * arr.Shape[2]
	if p.values, err = g.FloatsInto(p.values, &arr); err != nil {
		a.Fail("the values of tree_: %w", err)
	}
}

// readNodes decodes the nodes.
func (p *parsed) readNodes(a *estimator.Attributes, arr *pickle.Array) {
	g := a.Graph()
	n := arr.Size()
	wanted := fields[:]
	if p.missing = g.HasField(arr, fields[5]); !p.missing {
		wanted = fields[:5]
		a.Aged("the nodes of the trees lack the field missing_go_to_left")
	}
	if err := g.Columns(arr, wanted, p.columns[:]); err != nil {
		a.Fail("the nodes of tree_: %w", err)
		return
	}
	if n == 0 {
		a.Fail("tree_ has no nodes")
		return
	}
	if n > cap(p.nodes) {
		size := n + n/4
		if err := g.Charge(nodeBytes * size); err != nil {
			a.Fail("%w", err)
			return
		}
		p.charged += nodeBytes * size
		p.nodes, p.order, p.depths = make([]node, size), make([]int32, 0, size), make([]int32, size)
	}
	if err := g.Spend(32 * n); err != nil {
		a.Fail("%w", err)
		return
	}
	p.nodes = p.nodes[:n]
	if p.usual() {
		return
	}
	c := &p.columns
	for i := range p.nodes {
		d := &p.nodes[i]
		d.left, d.right, d.feature = c[0].Int32(i), c[1].Int32(i), c[2].Int32(i)
		d.threshold, d.samples = c[3].Float(i), c[4].Float(i)
		d.missing = p.missing && c[5].Float(i) != 0
	}
}

// usual decodes nodes whose numbers have the types of all releases so far. It returns
// false for other types.
func (p *parsed) usual() bool {
	c, fits := &p.columns, true
	place := func(i int, kind byte, size int) int {
		_, at, _, ok := c[i].Plain(kind, size)
		fits = fits && ok
		return at
	}
	left, right, feature, threshold, samples := place(0, 'i', 8), place(1, 'i', 8), place(2, 'i', 8), place(3, 'f', 8), place(4, 'i', 8)
	missing := 0
	if p.missing {
		missing = place(5, 'u', 1)
	}
	if !fits {
		return false
	}
	records, _, stride, _ := c[0].Plain('i', 8)
	for i := range p.nodes {
		r, d := records[i*stride:(i+1)*stride], &p.nodes[i]
		d.left, d.right, d.feature = pickle.Clamp(binary.LittleEndian.Uint64(r[left:])), pickle.Clamp(binary.LittleEndian.Uint64(r[right:])), pickle.Clamp(binary.LittleEndian.Uint64(r[feature:]))
		d.threshold, d.samples = math.Float64frombits(binary.LittleEndian.Uint64(r[threshold:])), float64(int64(binary.LittleEndian.Uint64(r[samples:])))
		d.missing = p.missing && r[missing] != 0
	}
	return true
}

// release gives the memory of reading back to the budget, because it isn't used after
// all trees are added.
func (p *parsed) release(a *estimator.Attributes) {
	a.Graph().Refund(p.charged + 8*cap(p.values))
	*p = parsed{}
}

// treeBytes is the memory that is charged for a tree, besides its nodes.
const treeBytes = 512

// reserve makes room for the nodes of a tree, and for the nodes that the remaining
// trees will probably have.
func (t *Trees) reserve(a *estimator.Attributes, n int) (ok bool) {
	need, old := t.count()+n, cap(t.nodes.Thresholds)
	if a.Err() != nil || need > maxNodes {
		a.Fail("the trees have more than %d nodes", maxNodes)
		return false
	}
	g := a.Graph()
	if err := g.Charge(treeBytes); err != nil {
		a.Fail("%w", err)
		return false
	}
	if need <= old {
		return true
	}
	const leastNode = 40 // bytes of a node in a file
	likely := need
	if trees := len(t.roots) + 1; t.expected > trees {
		likely = min(need/trees*t.expected+need/16, g.Len()/leastNode)
	}
	size := max(need, 2*old, likely)
	if !g.Affords(4 * 12 * size) { // the values need memory too, maybe a lot
		size = need + need/8
	}
	if err := g.Charge(12 * size); err != nil {
		a.Fail("%w", err)
		return false
	}
	for _, s := range [...]*[]uint32{&t.nodes.Thresholds, &t.nodes.Columns, &t.nodes.Left} {
		grown := make([]uint32, len(*s), size)
		copy(grown, *s)
		*s = grown
	}
	return true
}

// add appends a tree, its nodes level by level, and returns the file's node for each
// new node. features maps the tree's columns to the row's columns.
func (t *Trees) add(a *estimator.Attributes, p *parsed, features []float64, nan bool) (order []int32) {
	n, first := len(p.nodes), t.count()
	if a.Err() != nil || !t.reserve(a, n) {
		return nil
	}
	t.nodes.Thresholds, t.nodes.Columns, t.nodes.Left = t.nodes.Thresholds[:first+n], t.nodes.Columns[:first+n], t.nodes.Left[:first+n]
	thresholds, columns, lefts := t.nodes.Thresholds[first:], t.nodes.Columns[first:], t.nodes.Left[first:]
	t.roots = append(t.roots, uint32(first))
	order = append(p.order[:0], 0)
	level, depth := 1, 0 // level is the start of the next level
	for i := 0; i < len(order); i++ {
		if i == level {
			level = len(order)
			depth++
		}
		d := &p.nodes[order[i]]
		if d.leaf() {
			thresholds[i], columns[i], lefts[i] = leafKey, 0, uint32(first+i)
			continue
		}
		f := int(d.feature)
		if features != nil && f >= 0 && f < len(features) {
			f = int(features[f])
		}
		if d.left <= 0 || d.right <= 0 || int(d.left) >= n || int(d.right) >= n || len(order)+2 > n || f < 0 || f >= t.features || d.threshold != d.threshold {
			a.Fail("node %d of a tree has the children %v and %v and the feature %v", order[i], d.left, d.right, d.feature)
			return nil
		}
		if nan && d.missing {
			bit := first + i
			for len(t.missing) <= bit/32 {
				t.missing = append(t.missing, 0)
			}
			t.missing[bit/32] |= 1 << (bit % 32)
		}
		thresholds[i], columns[i], lefts[i] = key(d.threshold), columnOf(f), uint32(first+len(order))
		order = append(order, d.left, d.right)
	}
	if len(order) != n {
		a.Fail("a tree with %d nodes has %d nodes that can't be reached", n, n-len(order))
		return nil
	}
	t.depths = append(t.depths, uint32(depth))
	t.trees, t.size = len(t.roots), t.count()
	for nan && len(t.missing) <= t.count()/32 {
		t.missing = append(t.missing, 0)
	}
	return order
}

// like makes as much room for values, width numbers for each node, as there is for
// nodes, and adds the values of the nodes that were added last.
func (t *Trees) like(a *estimator.Attributes, values []float64, width int) []float64 {
	n, size := t.count()*width, cap(t.nodes.Thresholds)*width
	if n <= cap(values) {
		return values[:n]
	}
	if !a.Graph().Affords(2 * 8 * size) {
		size = n + n/8
	}
	if err := a.Graph().Charge(8 * size); err != nil {
		a.Fail("%w", err)
		return values
	}
	grown := make([]float64, n, size)
	copy(grown, values)
	return grown
}

// whole returns f, the index of a feature in a subset, or −1 if f isn't a whole number.
func whole(f float64) float64 {
	if f != math.Trunc(f) || f < 0 || f > estimator.MaxFeatures {
		return -1
	}
	return f
}
