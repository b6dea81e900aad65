package pickle

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// TestValues: leaves have the values that were written, whether their offsets fit into
// a Value or are in a table.
func TestValues(t *testing.T) {
	file := "\x80\x04("
	ints := []int64{0, 1, -1, 255, 65535, 1<<27 - 1, 1 << 27, -1 << 27, -1<<27 - 1, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}
	for _, n := range ints {
		if n == int64(int32(n)) {
			file += "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n)))
		} else {
			file += "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
		}
	}
	file += "I134217728\nL-134217729L\nG" + string(binary.BigEndian.AppendUint64(nil, math.Float64bits(2.5))) + "F-0.25\n\x8c\x02ab" + "X\x01\x00\x00\x00cVd\\u00e9\nt."
	defer func(was int) { largeFile = was }(largeFile)
	for _, largeFile = range []int{payloadMask, 0} {
		g, root, err := Parse([]byte(file), NewNames(nil, ""), budget.New(context.Background(), budget.Limits{}, len(file), false))
		if err != nil {
			t.Fatal(err)
		}
		items := g.Tuple(root)
		for i, want := range append(ints, 134217728, -134217729) {
			if got := g.Int(items[i]); items[i].Kind() != KindInt || got != want {
				t.Errorf("integer %d reads as %d", want, got)
			}
			if f, ok := g.Number(items[i]); !ok || f != float64(want) {
				t.Errorf("integer %d is the number %v", want, f)
			}
		}
		rest := items[len(ints)+2:]
		for i, want := range []float64{2.5, -0.25} {
			if f, ok := g.Number(rest[i]); !ok || f != want {
				t.Errorf("%v reads as %v", want, f)
			}
		}
		for i, want := range []string{"ab", "c", "dé"} {
			if b, ok := g.Text(rest[2+i]); !ok || string(b) != want {
				t.Errorf("%q reads as %q", want, b)
			}
		}
		g.Release()
	}
}
