package kernel

import (
	"math"
	"math/bits"
)

// All rows walk through a tree together, 8 at a time, without branches. The children of
// a node are neighbours, the left child first, and a step is
//
//	node = left[node] + (key > threshold[node])
//
// where key is the row's value in the node's column. A leaf is its own left child, and
// no key exceeds its threshold. So after as many steps as the tree is deep, every row
// is at its leaf. Keys and thresholds are unsigned integers in the order of floats.
// These walks need no vector instructions: with gathers, a step took more than twice as
// long (0.90 instead of 0.40 ns for each row, on Zen 5).
//
// Keys are stored in groups of 8 rows: the key of row r and column c of cols is
// keys[(r/8·cols + c)·8 + r%8].
//
// Nodes aren't checked here. A node that leads outside its slices, or to a column that
// the keys don't have, reads other memory, so the caller must check nodes before.

// Nodes holds the nodes of some trees. Thresholds, columns and left children are in
// separate slices, which saves the processor an addition.
type Nodes struct {
	Thresholds []uint32
	Columns    []uint32 // times ColumnFactor
	Left       []uint32
}

// WideNodes holds nodes with 64-bit keys.
type WideNodes struct {
	Thresholds []uint64
	Columns    []uint32 // times WideColumnFactor
	Left       []uint32
}

// ColumnFactor and WideColumnFactor make a key's address a sum that the processor
// computes in the load instruction.
const (
	ColumnFactor     = 4
	WideColumnFactor = 8
)

// Key returns the integer for a float32. The integer for −0 is that for 0, and NaN is
// above all other values.
func Key(f float32) uint32 {
	if f != f {
		return math.MaxUint32
	}
	b := math.Float32bits(f + 0)
	return b ^ (uint32(int32(b)>>31) | 1<<31)
}

// WideKey is Key for a float64.
func WideKey(f float64) uint64 {
	if f != f {
		return math.MaxUint64
	}
	b := math.Float64bits(f + 0)
	return b ^ (uint64(int64(b)>>63) | 1<<63)
}

// WalkAdd walks through the tree whose first node is root and whose deepest leaf is
// depth steps below it. For each row it adds the width values of the row's leaf to dst:
// value k of row r to dst[k·stride + r]. There are stride rows, a multiple of 8.
func (n *Nodes) WalkAdd(root, depth uint32, keys []uint32, cols int, values []float64, width int, dst []float64, stride int) {
	if stride == 0 {
		return
	}
	_, _, _ = keys[stride*cols-1], values[len(n.Left)*width-1], dst[width*stride-1]
	if use >= avx2 {
		walkAdd(&n.Thresholds[0], &n.Columns[0], &n.Left[0], root, depth, &keys[0], cols, stride/8, &values[0], width, &dst[0], stride)
		return
	}
	var leaf [8]uint32
	for i := 0; i < stride; i += 8 {
		n.walk(root, depth, keys[i*cols:], &leaf)
		for j, at := range leaf {
			for k, v := range values[int(at)*width : (int(at)+1)*width] {
				dst[k*stride+i+j] += v
			}
		}
	}
}

// walk walks 8 rows to their leaves.
func (n *Nodes) walk(root, depth uint32, keys []uint32, leaf *[8]uint32) {
	for j := range leaf {
		leaf[j] = root
	}
	for range depth {
		for j, at := range leaf {
			// The sign of threshold − key, in 64 bits.
			over := uint64(n.Thresholds[at]) - uint64(keys[8/ColumnFactor*int(n.Columns[at])+j])
			leaf[j] = n.Left[at] + uint32(over>>63)
		}
	}
}

// WalkAdd is Nodes.WalkAdd for nodes with one value.
func (n *WideNodes) WalkAdd(root, depth uint32, keys []uint64, cols int, values, dst []float64) {
	if len(dst) == 0 {
		return
	}
	_, _ = keys[len(dst)*cols-1], values[len(n.Left)-1]
	if use >= avx2 {
		walkAddWide(&n.Thresholds[0], &n.Columns[0], &n.Left[0], root, depth, &keys[0], cols, len(dst)/8, &values[0], &dst[0])
		return
	}
	var leaf [8]uint32
	for i := 0; i < len(dst); i += 8 {
		n.walk(root, depth, keys[i*cols:], &leaf)
		for j, at := range leaf {
			dst[i+j] += values[at]
		}
	}
}

func (n *WideNodes) walk(root, depth uint32, keys []uint64, leaf *[8]uint32) {
	for j := range leaf {
		leaf[j] = root
	}
	for range depth {
		for j, at := range leaf {
			// The borrow of threshold − key.
			_, right := bits.Sub64(n.Thresholds[at], keys[8/WideColumnFactor*int(n.Columns[at])+j], 0)
			leaf[j] = n.Left[at] + uint32(right)
		}
	}
}

// Count returns, for each of 8 keys, how many of the ascending thresholds are below the
// key.
func Count[K uint32 | uint64](thresholds []K, keys *[8]K) (below [8]uint32) {
	for n := len(thresholds); n > 0; {
		half := (n + 1) / 2
		at := thresholds[half-1 : len(thresholds)-n+half]
		for i, k := range keys {
			// Adds half where the threshold in the middle is below the key.
			b := below[i]
			if at[b] < k {
				b += uint32(half)
			}
			below[i] = b
		}
		n -= half
	}
	return below
}
