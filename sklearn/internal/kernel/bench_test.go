package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// peak measures the most fused multiply-adds of vectors a nanosecond.
func peak(b *testing.B) float64 {
	b.Helper()
	run, chains := peakAVX512, 24.0
	if use == avx2 {
		run, chains = peakAVX2, 12.0
	}
	const n = 20_000
	best := 0.0
	for range 20 {
		start := time.Now()
		run(n)
		best = max(best, chains*n/float64(time.Since(start).Nanoseconds()))
	}
	return best
}

// BenchmarkRBF also says how near the kernel is to its bound: the time that its
// multiplications and fused multiply-adds alone would take at the peak rate,
// which is measured beside it. Of a vector those are 1 a feature and
//
//	AVX-512   9: by the factor, 6 of the polynomial, by the coefficient, to the sum
//	AVX2     13: by the factor, 11 of the polynomial, to the sum
//
// Additions, rounding, permutation and scaling are left out, since processors
// with pipes of their own for these can hide them.
func BenchmarkRBF(b *testing.B) {
	was := use
	defer func() { use = was }()
	const rows, count = 64, 200
	for use = has(); ; use-- {
		most := 0.0
		if use > generic {
			most = peak(b)
		}
		for _, dims := range []int{1, 2, 8} {
			b.Run(fmt.Sprintf("%s/features=%d", Name(), dims), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				x, sv, coef := numbers(r, rows*dims, false), numbers(r, count*dims, false), numbers(r, count, false)
				sum := make([]float64, rows)
				for b.Loop() {
					RBF(sum, x, rows, sv, coef, dims, -0.1)
				}
				each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / rows / count
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
