// Package kernel has the inner loops: functions over columns of rows, in float64, in
// assembly for AVX-512 and AVX2, and in pure Go for other processors. Rows lie in the
// lanes of vectors, so no loop adds across lanes, and every sum over support vectors or
// features has the order of these.
//
// The program chooses the instructions once when it starts: AVX-512 (F and DQ) if the
// processor has it, else AVX2 with FMA, else Go. The environment variable
// FLEETSCORE_CPU=generic or FLEETSCORE_CPU=avx2 chooses fewer instructions, for tests
// and comparison. Other values have no effect. No other package reads this variable.
//
// Padding lanes are computed like all others. Their values do no harm: floating-point
// exceptions are masked, and no lane reads another. Functions that write nothing but
// their result are pure. No function keeps its arguments, allocates, or panics on
// slices of the required lengths.
package kernel

import "math"

// Lanes is the multiple that rows are padded to: the number of rows that the widest
// kernel computes at once.
const Lanes = 32

// Pad returns the padded number of rows.
func Pad(rows int) int { return (rows + Lanes - 1) &^ (Lanes - 1) }

// RBF writes, for each lane, Σ coef[j]·2^(factor·d²) into sum, where d is the
// distance between the lane's row and support vector j, and factor is negative
// or 0. Column k of the rows is x[k·stride : k·stride+len(sum)]; vector j is
// sv[j·dims : (j+1)·dims]. The length of sum and stride are multiples of Lanes.
//
// At distance 0 the power is exactly 1. If the power would be less than the smallest
// normal number, it may be 0. Terms are added in the order of the vectors. A term's
// error is a few units in the last place of its distance and of itself: the subtraction
// comes first, so no digits are lost by cancellation.
func RBF(sum, x []float64, stride int, sv, coef []float64, dims int, factor float64) {
	if len(sum) == 0 {
		return
	}
	if len(coef) == 0 || dims == 0 {
		clear(sum)
		for i := range sum {
			for _, c := range coef {
				sum[i] += c
			}
		}
		return
	}
	if len(sum)%Lanes != 0 || len(sv) < len(coef)*dims || len(x) < (dims-1)*stride+len(sum) {
		panic("kernel: RBF of slices that don't fit")
	}
	switch use {
	case avx512:
		rbfAVX512(&sum[0], &x[0], len(sum)/32, stride, &sv[0], &coef[0], len(coef), dims, factor)
	case avx2:
		rbfAVX2(&sum[0], &x[0], len(sum)/16, stride, &sv[0], &coef[0], len(coef), dims, factor)
	default:
		rbf(sum, x, stride, sv, coef, dims, factor)
	}
}

// Exp2 writes 2^x for each x ≤ 0 into dst, which may be src.
func Exp2(dst, src []float64) {
	dst = dst[:len(src)]
	n := 0
	switch use {
	case avx512:
		if n = len(src) &^ 7; n > 0 {
			exp2AVX512(&dst[0], &src[0], n/8)
		}
	case avx2:
		if n = len(src) &^ 3; n > 0 {
			exp2AVX2(&dst[0], &src[0], n/4)
		}
	}
	for i := n; i < len(src); i++ {
		dst[i] = exp2(src[i])
	}
}

// Standardize writes (x − mean) / scale into dst, which may be src, and reports
// whether all results are finite.
func Standardize(dst, src []float64, mean, scale float64) bool {
	dst = dst[:len(src)]
	n, finite := 0, true
	switch use {
	case avx512:
		if n = len(src) &^ 7; n > 0 {
			finite = standardizeAVX512(&dst[0], &src[0], n/8, mean, scale)
		}
	case avx2:
		if n = len(src) &^ 3; n > 0 {
			finite = standardizeAVX2(&dst[0], &src[0], n/4, mean, scale)
		}
	}
	return standardize(dst[n:], src[n:], mean, scale) && finite
}

// Transpose writes values that are stored row after row into columns: column c of cols
// goes to dst[c·stride : c·stride+rows].
func Transpose(dst []float64, stride int, x []float64, rows, cols int) {
	if cols == 1 {
		copy(dst[:rows], x)
		return
	}
	n := 0
	switch use {
	case avx512:
		if n = rows &^ 7; n > 0 {
			_, _ = dst[(cols-1)*stride+n-1], x[n*cols-1]
			for c := 0; c < cols; c += 8 {
				transposeAVX512(&dst[c*stride], &x[c], stride, cols, n/8, min(8, cols-c))
			}
		}
	case avx2:
		if n = rows &^ 3; n > 0 {
			_, _ = dst[(cols-1)*stride+n-1], x[n*cols-1]
			for c := 0; c < cols; c += 4 {
				transposeAVX2(&dst[c*stride], &x[c], stride, cols, n/4, min(4, cols-c))
			}
		}
	}
	transpose(dst, stride, x, n, rows, cols)
}

// Finite reports whether no value is NaN or infinite.
func Finite(x []float64) bool {
	n, ok := 0, true
	switch use {
	case avx512:
		if n = len(x) &^ 7; n > 0 {
			ok = finiteAVX512(&x[0], n/8)
		}
	case avx2:
		if n = len(x) &^ 3; n > 0 {
			ok = finiteAVX2(&x[0], n/4)
		}
	}
	return finite(x[n:]) && ok
}

// Decide writes decisions, sum + intercept, and labels: 1 if the decision is above 0,
// else −1. It reports whether all decisions are farther from 0 than near; if not, the
// last digits of a sum may have decided a label.
func Decide(label, decision, sum []float64, intercept, near float64) (clear bool) {
	label, decision = label[:len(sum)], decision[:len(sum)]
	n, ok := 0, true
	switch use {
	case avx512:
		if n = len(sum) &^ 7; n > 0 {
			ok = decideAVX512(&label[0], &decision[0], &sum[0], n/8, intercept, near)
		}
	case avx2:
		if n = len(sum) &^ 3; n > 0 {
			ok = decideAVX2(&label[0], &decision[0], &sum[0], n/4, intercept, near)
		}
	}
	return decide(label[n:], decision[n:], sum[n:], intercept, near) && ok
}

// Scale writes f·x into dst, which may be src.
func Scale(dst, src []float64, f float64) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = v * f
	}
}

// AddScaled adds f·x to dst. The product and the sum are each rounded.
func AddScaled(dst, src []float64, f float64) {
	dst = dst[:len(src)]
	n := 0
	switch use {
	case avx512:
		if n = len(src) &^ 7; n > 0 {
			addScaledAVX512(&dst[0], &src[0], n/8, f)
		}
	case avx2:
		if n = len(src) &^ 3; n > 0 {
			addScaledAVX2(&dst[0], &src[0], n/4, f)
		}
	}
	addScaled(dst[n:], src[n:], f)
}

// Exp writes e^x into dst, which may be src. The result is the same on every processor.
// It is used for probabilities, which rarely take most of the time.
func Exp(dst, src []float64) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = math.Exp(v)
	}
}
