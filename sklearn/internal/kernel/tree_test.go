package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestKeysAreInOrder(t *testing.T) {
	x := []float64{math.Inf(-1), -math.MaxFloat32, -1.5, -1, -1e-30, -math.SmallestNonzeroFloat32, 0, math.SmallestNonzeroFloat32, 1e-30, 1, 1.5, math.MaxFloat32, math.Inf(1), math.NaN()}
	for i := range x[1:] {
		if a, b := Key(float32(x[i])), Key(float32(x[i+1])); a >= b {
			t.Errorf("%v has the key %x, %v has %x", x[i], a, x[i+1], b)
		}
		if a, b := WideKey(x[i]), WideKey(x[i+1]); a >= b {
			t.Errorf("%v has the wide key %x, %v has %x", x[i], a, x[i+1], b)
		}
	}
	zero := math.Copysign(0, -1)
	if Key(float32(zero)) != Key(0) || WideKey(zero) != WideKey(0) || Key(float32(math.NaN())) != math.MaxUint32 || WideKey(math.NaN()) != math.MaxUint64 {
		t.Error("the keys of −0 and NaN")
	}
}

// tree is a random tree, with narrow and wide nodes. Its method step is the obvious
// walk.
type tree struct {
	narrow    Nodes
	wide      WideNodes
	threshold []float64
	column    []int
	first     uint32
	depth     uint32
}

func randomTree(r *rand.Rand, first uint32, inner, cols int) *tree {
	t := &tree{first: first}
	deep := []uint32{0}
	for i := 0; i < len(deep); i++ {
		at := first + uint32(i)
		t.depth = max(t.depth, deep[i])
		leaf := inner == 0 || (i+1 < len(deep) && r.IntN(3) == 0)
		threshold, column, left := math.Inf(1), 0, at
		if !leaf {
			inner--
			threshold, column, left = float64(r.IntN(9)-4), r.IntN(cols), first+uint32(len(deep))
			deep = append(deep, deep[i]+1, deep[i]+1)
		}
		k, w := Key(float32(threshold)), WideKey(threshold)
		if leaf {
			k, w = math.MaxUint32, math.MaxUint64
		}
		t.threshold, t.column = append(t.threshold, threshold), append(t.column, column)
		t.narrow.Thresholds, t.wide.Thresholds = append(t.narrow.Thresholds, k), append(t.wide.Thresholds, w)
		t.narrow.Columns, t.wide.Columns = append(t.narrow.Columns, uint32(ColumnFactor*column)), append(t.wide.Columns, uint32(WideColumnFactor*column))
		t.narrow.Left = append(t.narrow.Left, left)
	}
	t.wide.Left = t.narrow.Left
	return t
}

func (t *tree) walk(x []float64) uint32 {
	at := t.first
	for t.narrow.Left[at-t.first] != at {
		v, left := x[t.column[at-t.first]], t.narrow.Left[at-t.first]
		if v <= t.threshold[at-t.first] {
			at = left
		} else {
			at = left + 1 // NaN too
		}
	}
	return at
}

// TestWalk: trees of any shape and any number of rows, with infinity and NaN, and with
// any keys in the padding.
func TestWalk(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(13, 14))
		for rows := range maxRows + 1 {
			cols := 1 + rows%maxCols
			tr := randomTree(r, 0, r.IntN(60), cols)
			lanes := (rows + 7) &^ 7
			x := make([][]float64, lanes)
			keys, wide := make([]uint32, lanes*cols), make([]uint64, lanes*cols)
			for i := range x {
				x[i] = make([]float64, cols)
				for c := range x[i] {
					v := float64(r.IntN(11)-5) / 1
					if r.IntN(5) == 0 {
						v = float64(float32(hostile[r.IntN(len(hostile))]))
					}
					x[i][c] = v
					at := (i/8*cols+c)*8 + i%8
					if keys[at], wide[at] = Key(float32(v)), WideKey(v); i >= rows {
						keys[at], wide[at] = r.Uint32(), r.Uint64()
					}
				}
			}
			width := 1 + rows%4
			values := numbers(r, len(tr.column)*width, false)
			got := numbers(r, lanes*width, false)
			want := slices.Clone(got)
			tr.narrow.WalkAdd(0, tr.depth, keys, cols, values, width, got, lanes)
			number := make([]float64, len(tr.column)) // the node's value
			for i := range number {
				number[i] = float64(i)
			}
			leaf := make([]float64, lanes)
			tr.wide.WalkAdd(0, tr.depth, wide, cols, number, leaf)
			for i := range rows {
				at := tr.walk(x[i])
				if leaf[i] != float64(at) {
					t.Fatalf("%d rows of %d columns, %d nodes: row %d ends at %v, want %d", rows, cols, len(tr.column), i, leaf[i], at)
				}
				for k := range width {
					want[k*lanes+i] += values[int(at)*width+k]
				}
			}
			same(t, got, nil, "%d rows", rows)
			for k := range width {
				same(t, slices.Clip(got[k*lanes:k*lanes+rows]), want[k*lanes:k*lanes+rows], "%d rows, value %d of %d", rows, k, width)
			}
		}
	})
}

func TestCount(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for n := range 70 {
		thresholds := make([]uint32, n)
		for i := range thresholds {
			thresholds[i] = r.Uint32N(100)
		}
		slices.Sort(thresholds)
		thresholds = slices.Compact(thresholds)
		for range 20 {
			var keys, want [8]uint32
			for i := range keys {
				keys[i] = r.Uint32N(102)
				if i == 7 {
					keys[i] = math.MaxUint32
				}
				for _, v := range thresholds {
					if v < keys[i] {
						want[i]++
					}
				}
			}
			if got := Count(thresholds, &keys); got != want {
				t.Fatalf("of %v below %v: %v, want %v", thresholds, keys, got, want)
			}
		}
	}
}
