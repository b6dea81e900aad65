package estimator

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// Choose writes the label of each row's largest decision. If several are equal, the
// first one counts. If there is one decision for each row, a value above 0 means the
// second label.
func Choose(d *Block, dst []float64, labels *Labels) {
	if d.Cols == 1 {
		for i, v := range d.Col(0) {
			dst[i] = labels.Values[0]
			if v > 0 {
				dst[i] = labels.Values[1]
			}
		}
		return
	}
	for r := range dst {
		best, top := 0, d.X[r]
		for c := 1; c < d.Cols; c++ {
			if v := d.X[c*d.Stride+r]; v > top {
				best, top = c, v
			}
		}
		dst[r] = labels.Values[best]
	}
}

// Expit is scipy.special.expit.
func Expit(x float64) float64 { return 1 / (1 + Exp(-x)) }

// Logistic writes the sigmoid of each decision. For one decision it writes the two
// probabilities; for more, it scales them so that their sum is 1. If all are 0, uniform
// says whether they become equal or NaN.
func Logistic(d, out *Block, uniform bool) {
	if d.Cols == 1 {
		for i, v := range d.Col(0) {
			p := Expit(v)
			out.Col(0)[i], out.Col(1)[i] = 1-p, p
		}
		return
	}
	for c := range d.Cols {
		for i, v := range d.Col(c) {
			out.Col(c)[i] = Expit(v)
		}
	}
	Normalize(out, uniform)
}

// Normalize divides each row by its sum. A row of zeros becomes uniform, or NaN.
func Normalize(out *Block, uniform bool) {
	for r := range out.Rows {
		sum := 0.0
		for c := range out.Cols {
			sum += out.X[c*out.Stride+r]
		}
		for c := range out.Cols {
			p := &out.X[c*out.Stride+r]
			if sum == 0 && uniform {
				*p = 1 / float64(out.Cols)
			} else {
				*p /= sum
			}
		}
	}
}

// Softmax writes e^d divided by the row's sum of e^d. For one decision d, the row is −d
// and d.
func Softmax(d, out *Block) {
	if d.Cols == 1 {
		for i, v := range d.Col(0) {
			e0, e1 := math.Exp(-v-math.Abs(v)), math.Exp(v-math.Abs(v))
			out.Col(0)[i], out.Col(1)[i] = e0/(e0+e1), e1/(e0+e1)
		}
		return
	}
	for r := range d.Rows {
		top := math.Inf(-1)
		for c := range d.Cols {
			top = max(top, d.X[c*d.Stride+r])
		}
		for c := range d.Cols {
			out.X[c*out.Stride+r] = d.X[c*d.Stride+r] - top
		}
	}
	for c := range d.Cols {
		kernel.Exp(out.Lanes(c), out.Lanes(c))
	}
	for r := range d.Rows {
		sum := 0.0
		for c := range d.Cols {
			sum += out.X[c*out.Stride+r]
		}
		for c := range d.Cols {
			out.X[c*out.Stride+r] /= sum
		}
	}
}

// Log replaces every value by its logarithm.
func Log(out *Block) {
	for c := range out.Cols {
		col := out.Col(c)
		for i, v := range col {
			col[i] = Ln(v)
		}
	}
}

// LogSumExp writes the logarithm of each row's sum of e^x.
func LogSumExp(x *Block, dst []float64) {
	for r := range dst {
		top := math.Inf(-1)
		for c := range x.Cols {
			top = max(top, x.X[c*x.Stride+r])
		}
		sum := 0.0
		for c := range x.Cols {
			sum += math.Exp(x.X[c*x.Stride+r] - top)
		}
		dst[r] = top + math.Log(sum)
	}
}
