// Package kernel is the inner loops.
package kernel

import "math"

// Lanes is the multiple of rows.
const Lanes = 32

// Pad is a plain loop.
func Pad(rows int) int { return (rows + Lanes - 1) &^ (Lanes - 1) }

// Finite is a plain loop.
func Finite(x []float64) bool {
	var sum float64
	for _, v := range x {
		sum += v - v
	}
	return sum == 0
}

// RBF is a plain loop.
func RBF(sum, x []float64, stride int, sv, coef []float64, dims int) {
	clear(sum)
	for j, c := range coef {
		for i := range sum {
			var d float64
			for k := range dims {
				e := x[k*stride+i] - sv[j*dims+k]
				d += float64(e * e)
			}
			sum[i] += float64(c * math.Exp2(-d))
		}
	}
}

// Standardize is a plain loop.
func Standardize(dst, src []float64, mean, scale float64) {
	for i, v := range src {
		dst[i] = (v - mean) / scale
	}
}

// Scale is a plain loop.
func Scale(dst, src []float64, f float64) {
	for i, v := range src {
		dst[i] = v * f
	}
}

// AddScaled is a plain loop.
func AddScaled(dst, src []float64, f float64) {
	for i, v := range src {
		dst[i] += float64(v * f)
	}
}

// Exp is a plain loop.
func Exp(dst, src []float64) {
	for i, v := range src {
		dst[i] = math.Exp(v)
	}
}
