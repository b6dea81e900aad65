package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// peak runs some independent fused multiply-adds of vectors for about as long as the
// kernel that is measured with it, and returns their number.
func peak() float64 {
	const n = 600
	if use == avx512 {
		peakAVX512(n)
		return 24 * n
	}
	peakAVX2(n)
	return 12 * n
}

// BenchmarkRBF also reports how near the kernel is to its bound: the time that its
// multiplications and fused multiply-adds alone would take at the peak rate, which is
// measured in the same run. For each vector these are one for each feature and
//
//	AVX-512   9: by the factor, 6 of the polynomial, by the coefficient, to the sum
//	AVX2     13: by the factor, 11 of the polynomial, to the sum
//
// Additions, rounding, permutation and scaling aren't counted, because processors with
// separate pipes for them can hide them.
func BenchmarkRBF(b *testing.B) {
	was := use
	defer func() { use = was }()
	const rows, count = 64, 200
	for use = has(); ; use-- {
		for _, dims := range []int{1, 2, 8} {
			b.Run(fmt.Sprintf("%s/features=%d", Name(), dims), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				x, sv, coef := numbers(r, rows*dims, false), numbers(r, count*dims, false), numbers(r, count, false)
				sum := make([]float64, rows)
				best, most := time.Duration(math.MaxInt64), 0.0 // the time of a call when nothing else ran
				for b.Loop() {
					start := time.Now()
					RBF(sum, x, rows, sv, coef, dims, -0.1)
					best = min(best, time.Since(start))
					if use > generic { // alternately, because the processor's clock changes
						start := time.Now()
						n := peak()
						most = max(most, n/float64(time.Since(start).Nanoseconds()))
					}
				}
				each := float64(best.Nanoseconds()) / rows / count
				b.ReportMetric(each, "ns/exp")
				switch use {
				case avx512:
					b.ReportMetric(100*float64(9+dims)/8/most/each, "%bound")
				case avx2:
					b.ReportMetric(100*float64(13+dims)/4/most/each, "%bound")
				}
			})
		}
		if use == generic {
			return
		}
	}
}
