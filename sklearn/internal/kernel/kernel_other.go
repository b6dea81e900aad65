//go:build !amd64

package kernel

func has() level { return generic }

// These functions are never called.

func rbfAVX512(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64) {
}
func exp2AVX512(dst, src *float64, n int)                                             {}
func standardizeAVX512(dst, src *float64, n int, mean, scale float64) bool            { return false }
func finiteAVX512(x *float64, n int) bool                                             { return false }
func decideAVX512(label, decision, sum *float64, n int, intercept, near float64) bool { return false }
func addScaledAVX512(dst, src *float64, n int, f float64)                             {}
func transposeAVX512(dst, x *float64, stride, cols, n, width int)                     {}
func rbfAVX2(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64) {
}
func exp2AVX2(dst, src *float64, n int)                                             {}
func standardizeAVX2(dst, src *float64, n int, mean, scale float64) bool            { return false }
func finiteAVX2(x *float64, n int) bool                                             { return false }
func decideAVX2(label, decision, sum *float64, n int, intercept, near float64) bool { return false }
func addScaledAVX2(dst, src *float64, n int, f float64)                             {}
func transposeAVX2(dst, x *float64, stride, cols, n, width int)                     {}
func peakAVX512(n int)                                                              {}
func peakAVX2(n int)                                                                {}
func walkAdd(thresholds, columns, left *uint32, root, depth uint32, keys *uint32, cols, groups int, values *float64, width int, dst *float64, stride int) {
}
func walkAddWide(thresholds *uint64, columns, left *uint32, root, depth uint32, keys *uint64, cols, groups int, values, dst *float64) {
}
