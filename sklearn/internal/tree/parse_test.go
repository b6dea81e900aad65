package tree

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// TestKey: a float32 is at most a threshold exactly if its key is at most the
// threshold's key.
func TestKey(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	thresholds := []float64{0, math.Copysign(0, -1), 1e-60, -1e-60, math.SmallestNonzeroFloat32 / 3, -math.SmallestNonzeroFloat32 / 3, 1e39, -1e39, math.Inf(1), math.Inf(-1), math.MaxFloat32, -math.MaxFloat32, 1 + 1e-12, 1 - 1e-12, -1 - 1e-12}
	for range 2000 {
		f := math.Float32frombits(r.Uint32())
		if f != f {
			continue
		}
		thresholds = append(thresholds, float64(f), float64(f)*(1+1e-12), float64(f)*(1-1e-12))
	}
	for _, threshold := range thresholds {
		near := float32(threshold)
		for _, x := range []float32{near, math.Nextafter32(near, float32(math.Inf(1))), math.Nextafter32(near, float32(math.Inf(-1))), 0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32} {
			if left := kernel.Key(x) <= key(threshold); left != (float64(x) <= threshold) {
				t.Fatalf("%v goes left at %v: %v", x, threshold, left)
			}
		}
	}
}
