package tree

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// node appends a node.
func (t *Trees) node(threshold, column, left uint32) {
	n := &t.nodes
	n.Thresholds, n.Columns, n.Left = append(n.Thresholds, threshold), append(n.Columns, columnOf(int(column))), append(n.Left, left)
}

// grow appends a random tree with one feature, and the values of its nodes.
func grow(r *rand.Rand, t *Trees, o *outcome, missing bool) {
	first, inner := t.count(), r.IntN(40)
	depth := []uint32{0}
	deepest := uint32(0)
	for i := 0; i < len(depth); i++ {
		deepest = max(deepest, depth[i])
		if at := uint32(first + i); inner == 0 || (i+1 < len(depth) && r.IntN(3) == 0) {
			t.node(leafKey, 0, at)
		} else {
			inner--
			t.node(key(float64(r.IntN(60))/4), 0, uint32(first+len(depth)))
			depth = append(depth, depth[i]+1, depth[i]+1)
			if missing && r.IntN(2) == 0 {
				for len(t.missing) <= int(at/32) {
					t.missing = append(t.missing, 0)
				}
				t.missing[at/32] |= 1 << (at % 32)
			}
		}
		for range o.width {
			o.values = append(o.values, r.NormFloat64())
		}
	}
	t.roots, t.depths = append(t.roots, uint32(first)), append(t.depths, deepest)
	t.trees, t.size = len(t.roots), t.count()
}

// TestStepsAreExact: a step function gives the same results as the walk through all
// trees, to the last bit, for all rows: on thresholds, near them, and NaN.
func TestStepsAreExact(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		missing := round%3 == 0
		o := outcome{width: 1 + round%4}
		cols := o.width
		if o.width == 1 {
			cols = 1 + round%3
		}
		for range cols {
			o.first = append(o.first, r.NormFloat64())
		}
		trees := &Trees{features: 1, infinite: true}
		for range 1 + r.IntN(30) {
			grow(r, trees, &o, missing)
		}
		if missing {
			for len(trees.missing) <= trees.count()/32 {
				trees.missing = append(trees.missing, 0)
			}
		}
		if err := trees.check("nodes", &o); err != nil {
			t.Fatal(err)
		}
		kept, values := trees.forRecord(o)
		if len(values) > 0 || kept.count() > 0 || kept.Nodes() != trees.count() {
			t.Fatalf("%d nodes and %d values are kept beside the steps", kept.count(), len(values))
		}
		none := outcome{first: o.first, width: o.width}
		if err := kept.check("steps", &none); err != nil {
			t.Fatal(err)
		}
		nodes, steps := 4*(3*trees.count())+8*len(o.values), 4*len(kept.steps.keys)+8*len(kept.steps.sums)
		if limit := nodes/2 + 8*cols; steps > limit {
			t.Errorf("%d bytes of steps for %d bytes of nodes", steps, nodes)
		}
		var x []float64
		for i := range 61 {
			v := float64(i-1) / 4
			x = append(x, v, math.Nextafter(v, 100), math.Nextafter(v, -100), float64(math.Nextafter32(float32(v), 100)))
		}
		x = append(x, math.Inf(1), math.Inf(-1), 1e300, math.Copysign(0, -1))
		if missing {
			x = append(x, math.NaN())
		}
		compareSums(t, x, trees, &o, &kept, &none)
	}
}

func compareSums(t *testing.T, x []float64, a *Trees, oa *outcome, b *Trees, ob *outcome) {
	t.Helper()
	var ws estimator.Workspace
	block := ws.NewBlock(len(x), 1, 0)
	copy(block.X, x)
	clear(block.X[len(x):])
	want, got := ws.Block(block, len(oa.first)), ws.Block(block, len(oa.first))
	if err := a.sum("nodes", block, want, oa, &ws); err != nil {
		t.Fatal(err)
	}
	if err := b.sum("steps", block, got, ob, &ws); err != nil {
		t.Fatal(err)
	}
	for c := range want.Cols {
		for i, w := range want.Col(c) {
			if g := got.Col(c)[i]; math.Float64bits(g) != math.Float64bits(w) {
				t.Fatalf("%v, column %d: %v by steps, %v by nodes", x[i], c, g, w)
			}
		}
	}
}

// TestSweepIsBounded: trees whose steps would take too long stay trees.
func TestSweepIsBounded(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	o := outcome{width: 1, first: make([]float64, 1)}
	trees := &Trees{features: 1}
	grow(r, trees, &o, false)
	steps := len(trees.sweep(&o, 1000).keys) + 1
	if s := trees.sweep(&o, steps); len(s.sums) != steps {
		t.Errorf("%d steps, want %d", len(s.sums), steps)
	}
	if s := trees.sweep(&o, steps-1); len(s.sums) != 0 {
		t.Errorf("%d steps were made, but the limit allows none", len(s.sums))
	}
	trees.features = 2
	if kept, _ := trees.forRecord(o); kept.count() == 0 {
		t.Error("steps were made of trees of two features")
	}
}
