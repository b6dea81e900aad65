package kernel

import "golang.org/x/sys/cpu"

// has returns the highest level of this processor.
func has() level {
	switch x := &cpu.X86; {
	case x.HasAVX512F && x.HasAVX512DQ && x.HasAVX2 && x.HasFMA:
		return avx512
	case x.HasAVX2 && x.HasFMA:
		return avx2
	}
	return generic
}

// Lengths are numbers of vectors: of 8 float64 for AVX-512 and 4 for AVX2. Lengths of
// rbf are numbers of passes, of 32 and 16 rows. The .s files say more.

//go:noescape
func rbfAVX512(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64)

//go:noescape
func exp2AVX512(dst, src *float64, n int)

//go:noescape
func standardizeAVX512(dst, src *float64, n int, mean, scale float64) bool

//go:noescape
func finiteAVX512(x *float64, n int) bool

//go:noescape
func decideAVX512(label, decision, sum *float64, n int, intercept, near float64) bool

//go:noescape
func addScaledAVX512(dst, src *float64, n int, f float64)

//go:noescape
func transposeAVX512(dst, x *float64, stride, cols, n, width int)

//go:noescape
func rbfAVX2(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64)

//go:noescape
func exp2AVX2(dst, src *float64, n int)

//go:noescape
func standardizeAVX2(dst, src *float64, n int, mean, scale float64) bool

//go:noescape
func finiteAVX2(x *float64, n int) bool

//go:noescape
func decideAVX2(label, decision, sum *float64, n int, intercept, near float64) bool

//go:noescape
func addScaledAVX2(dst, src *float64, n int, f float64)

//go:noescape
func transposeAVX2(dst, x *float64, stride, cols, n, width int)

// peakAVX512 and peakAVX2 run 24 and 12 independent fused multiply-adds n times. This
// measures the processor's peak.
func peakAVX512(n int)
func peakAVX2(n int)

// exp2Wide holds four copies of each constant that AVX2 can't broadcast while it
// computes: exp2Coef, 1, −1023, 1.5·2⁵².
var exp2Wide = func() (wide [14][4]float64) {
	for i, c := range append(exp2Coef[:], 1, -1023, 0x1.8p52) {
		wide[i] = [4]float64{c, c, c, c}
	}
	return wide
}()

//go:noescape
func walkAdd(thresholds, columns, left *uint32, root, depth uint32, keys *uint32, cols, groups int, values *float64, width int, dst *float64, stride int)

//go:noescape
func walkAddWide(thresholds *uint64, columns, left *uint32, root, depth uint32, keys *uint64, cols, groups int, values, dst *float64)
