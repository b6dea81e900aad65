package kernel

import "math"

// These functions compute in Go what the assembly computes. Products are converted to
// float64 before they are added, so that compilers don't fuse the two operations.

func rbf(sum, x []float64, stride int, sv, coef []float64, dims int, factor float64) {
	clear(sum)
	for j, c := range coef {
		v := sv[j*dims : (j+1)*dims]
		for i := range sum {
			var d float64
			for k, w := range v {
				e := x[k*stride+i] - w
				d += float64(e * e)
			}
			sum[i] += float64(c * exp2(d*factor))
		}
	}
}

// exp2Coef are the coefficients of the best polynomial for 2^r with |r| ≤ ½, in
// relative error, after a constant term of exactly 1. They come from a fit of (2^r −
// 1)/r at Chebyshev's nodes, computed with 60 digits. The largest relative error is
// 2e-17.
var exp2Coef = [...]float64{
	0x1.62e42fefa39efp-1, 0x1.ebfbdff82c598p-3, 0x1.c6b08d704a0c2p-5, 0x1.3b2ab6fba1ddap-7,
	0x1.5d87fe78a5276p-10, 0x1.430913096fd9fp-13, 0x1.ffcbfc670dcd4p-17, 0x1.62bfd47773353p-20,
	0x1.b524fae627834p-24, 0x1.e6063f7217bc6p-28, 0x1.e9d3fe3952179p-32,
}

// exp2Table[i] is 2^(i/16). exp2Short is like exp2Coef for |r| ≤ 1/32, where six
// coefficients are enough for a relative error of 2e-17. After them come two numbers
// for the assembly: 1, and 1.5·2⁴⁸.
var (
	exp2Table = [16]float64{
		0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
		0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
		0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
		0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0,
	}
	exp2Short = [8]float64{
		0x1.62e42fefa39f3p-1, 0x1.ebfbdff82c590p-3, 0x1.c6b08d6f2a289p-5, 0x1.3b2ab6fb41213p-7,
		0x1.5d897e525c216p-10, 0x1.430a1d08ec681p-13, 1, 0x1.8p48,
	}
)

// exp2 returns 2^t for t ≤ 0, within a unit in the last place, or 0 if the result is
// below the normal numbers.
func exp2(t float64) float64 {
	const magic = 0x1.8p52 // adding it leaves an integer in the low bits
	if t < -1022 {
		return 0
	}
	u := t + magic
	r := t - (u - magic)
	p := exp2Coef[10]
	for i := 9; i >= 0; i-- {
		p = float64(p*r) + exp2Coef[i]
	}
	p = float64(p*r) + 1
	// 2^n has the bits of n in its exponent.
	return p * math.Float64frombits((math.Float64bits(u)+1023)<<52)
}

func standardize(dst, src []float64, mean, scale float64) bool {
	var sum float64
	for i, v := range src {
		v = (v - mean) / scale
		dst[i] = v
		sum += v - v // NaN if v isn't finite
	}
	return sum == 0
}

func finite(x []float64) bool {
	var sum float64
	for _, v := range x {
		sum += v - v
	}
	return sum == 0
}

func decide(label, decision, sum []float64, intercept, near float64) bool {
	clear := true
	for i, s := range sum {
		d := s + intercept
		decision[i], label[i] = d, -1
		if d > 0 {
			label[i] = 1
		}
		clear = clear && (d > near || d < -near)
	}
	return clear
}

func addScaled(dst, src []float64, f float64) {
	for i, v := range src {
		dst[i] += float64(v * f)
	}
}

func transpose(dst []float64, stride int, x []float64, first, rows, cols int) {
	for i := first; i < rows; i++ {
		for c, v := range x[i*cols : (i+1)*cols] {
			dst[c*stride+i] = v
		}
	}
}
