package sklearn

import (
	"archive/zip"
	"encoding/json"
	"math"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/compose"
)

// TestFunctions: NumPy's functions of one number give NumPy's values except for a few
// last digits: near 0 and 1, for subnormal numbers, and for huge numbers.
func TestFunctions(t *testing.T) {
	t.Parallel()
	z, err := zip.OpenReader("testdata/functions.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("functions.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		X         string
		Functions map[string]string
	}
	if err := json.NewDecoder(f).Decode(&want); err != nil {
		t.Fatal(err)
	}
	x := unpackFloats(t, want.X)
	for name, apply := range compose.Functions() {
		values, ok := want.Functions[name]
		if !ok {
			t.Errorf("%s: the fixture lacks it", name)
			continue
		}
		worst, at, off := 0.0, 0.0, 0
		for i, w := range unpackFloats(t, values) {
			g := apply(x[i])
			if g == w || g != g && w != w {
				continue
			}
			apart := math.Abs(g-w) / math.Max(math.Abs(w), 0x1p-1022)
			limit := 2e-15
			if name == "sin" || name == "cos" || name == "tan" { // huge numbers
				limit = 1e-14
			}
			if !(apart <= limit) {
				off++
			}
			if !(apart <= worst) {
				worst, at = apart, x[i]
			}
		}
		if off > 0 {
			t.Errorf("%s: %d of %d values differ, worst at %v: %v instead of NumPy's, relatively %.3g", name, off, len(x), at, apply(at), worst)
		}
	}
}
