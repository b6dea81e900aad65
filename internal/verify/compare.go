package verify

import (
	"fmt"
	"math"

	"github.com/fleetscore/fleetscore/sklearn"
)

// comparison is one model's results beside each other.
type comparison struct {
	run   *run
	kind  *Kind
	file  File
	model *sklearn.Model
	info  *sklearn.Info
	x     []float64
	rows  int
	cols  int

	worst   Offender
	amount float64 // of worst; 0 if there is no difference
}

// offend notes a model with a difference.
func (k *Kind) offend(f File, o Offender) {
	k.Differ++
	if o.File = f.Name; len(k.Offending) < maxExamples {
		k.Offending = append(k.Offending, o)
	}
}

func (c *comparison) all(a *reply) {
	for _, method := range c.model.Methods() {
		name := method.String()
		theirs, ok := a.Out[name]
		if !ok {
			why := a.Errors[name]
			c.note(Offender{Method: name, Problem: "scikit-learn refuses what we score: " + why.String()}, math.Inf(1))
			continue
		}
		ours := make([]float64, c.rows*c.outputs(method))
		if err := c.model.Call(method, c.x, c.rows, ours, &c.run.scratch); err != nil {
			c.note(Offender{Method: name, Problem: "we refuse what scikit-learn scores: " + err.Error()}, math.Inf(1))
			continue
		}
		values, err := decode(theirs.Values)
		if err != nil || theirs.Cols != c.outputs(method) || len(values) != len(ours) {
			c.note(Offender{Method: name, Problem: fmt.Sprintf("scikit-learn gives %d values, we %d", len(values), len(ours))}, math.Inf(1))
			continue
		}
		if method == sklearn.Predict && (c.model.OutlierDetector() || len(c.info.Classes) > 0) {
			c.labels(ours, values)
		} else {
			c.values(name, ours, values, theirs.Cols)
		}
	}
	if c.amount > 0 {
		c.kind.offend(c.file, c.worst)
	}
}

func (c *comparison) outputs(method sklearn.Method) int { return c.model.Outputs(method) }

// note keeps the worst difference of the model.
func (c *comparison) note(o Offender, amount float64) {
	if amount > c.amount {
		c.worst, c.amount = o, amount
	}
}

func (c *comparison) row(i int) []Float {
	out := make([]Float, 0, c.cols)
	for _, v := range c.x[i*c.cols : (i+1)*c.cols] {
		out = append(out, Float(v))
	}
	return out
}

// labels compares predictions that are labels.
func (c *comparison) labels(ours, theirs []float64) {
	var margins []float64
	for i := range ours {
		if ours[i] == theirs[i] {
			continue
		}
		if margins == nil {
			margins = c.margins()
		}
		if margins[i] <= c.run.cfg.Tolerance {
			c.kind.Ties++
			continue
		}
		c.kind.Labels++
		c.note(Offender{Method: "predict", Row: c.row(i), Ours: Float(ours[i]), Theirs: Float(theirs[i])}, 1e300)
	}
}

// margins is how far each row is from another label, relative to the largest
// decision of the rows or to 1; infinite where that isn't known.
func (c *comparison) margins() []float64 {
	out := make([]float64, c.rows)
	for i := range out {
		out[i] = math.Inf(1)
	}
	for _, method := range []sklearn.Method{sklearn.DecisionFunction, sklearn.PredictProba} {
		cols := c.outputs(method)
		if cols == 0 {
			continue
		}
		values := make([]float64, c.rows*cols)
		if c.model.Call(method, c.x, c.rows, values, &c.run.scratch) != nil {
			continue
		}
		scale := 1.0
		for _, v := range values {
			if v-v == 0 {
				scale = max(scale, math.Abs(v))
			}
		}
		for i := range out {
			first, second := math.Inf(-1), math.Inf(-1)
			for _, v := range values[i*cols : (i+1)*cols] {
				if v > first {
					first, second = v, first
				} else {
					second = max(second, v)
				}
			}
			if cols == 1 {
				second = -first // the threshold is 0
				first, second = math.Abs(first), 0
			}
			out[i] = (first - second) / scale
		}
		return out
	}
	return out
}

// values compares values: relative to the largest of their column, or to 1.
func (c *comparison) values(method string, ours, theirs []float64, cols int) {
	scale := make([]float64, cols)
	for i := range scale {
		scale[i] = 1
	}
	for i, v := range theirs {
		if v-v == 0 {
			scale[i%cols] = max(scale[i%cols], math.Abs(v))
		}
	}
	for i, want := range theirs {
		got := ours[i]
		if got == want || got != got && want != want {
			continue
		}
		d := math.Abs(got-want) / scale[i%cols]
		if d != d {
			d = math.Inf(1) // one of them is NaN
		}
		if d > c.kind.Worst {
			c.kind.Worst, c.kind.WorstMethod, c.kind.WorstModel = min(d, math.MaxFloat64), method, c.file.Name
		}
		if d > c.run.cfg.Tolerance {
			c.note(Offender{Method: method, Row: c.row(i / cols), Ours: Float(got), Theirs: Float(want)}, d)
		}
	}
}
