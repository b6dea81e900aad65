package verify

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn"
)

// comparison compares the results for one model.
type comparison struct {
	run   *run
	kind  *Kind
	file  File
	model *sklearn.Model
	info  *sklearn.Info
	x     []float64
	rows  int
	cols  int

	worst  Offender
	amount float64 // the size of the worst difference; 0 if there is none
}

// offend records a model with a difference.
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
			c.note(Offender{Method: name, Problem: "scikit-learn refuses rows that Fleetscore scores: " + why.String()}, math.Inf(1))
			continue
		}
		ours := make([]float64, c.rows*c.model.Outputs(method))
		if err := c.model.Call(method, c.x, c.rows, ours, &c.run.scratch); err != nil {
			c.note(Offender{Method: name, Problem: "Fleetscore refuses rows that scikit-learn scores: " + err.Error()}, math.Inf(1))
			continue
		}
		values, err := decode(theirs.Values)
		if err != nil || theirs.Cols != c.model.Outputs(method) || len(values) != len(ours) {
			c.note(Offender{Method: name, Problem: fmt.Sprintf("scikit-learn returns %d values, Fleetscore returns %d", len(values), len(ours))}, math.Inf(1))
			continue
		}
		if method == sklearn.Predict && (c.model.OutlierDetector() || len(c.info.Classes) > 0) {
			c.labels(ours, values, theirs.Cols)
		} else {
			c.values(name, ours, values, theirs.Cols)
		}
	}
	if c.amount > 0 {
		c.kind.offend(c.file, c.worst)
	}
}

// note records a difference of the model if it is the worst so far.
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

// labels compares predictions that are labels, cols for each row.
func (c *comparison) labels(ours, theirs []float64, cols int) {
	for at := 0; at < len(ours); at += cols {
		got, want := ours[at:at+cols], theirs[at:at+cols]
		differs := 0
		for differs < cols && got[differs] == want[differs] {
			differs++
		}
		if differs == cols {
			continue
		}
		if c.tie(sklearn.Predict, at/cols, nil, want, make([]float64, cols)) {
			c.kind.Ties++
			continue
		}
		c.kind.Labels++
		c.note(Offender{Method: "predict", Row: c.row(at / cols), Ours: Float(got[differs]), Theirs: Float(want[differs])}, 1e300)
	}
}

// nudge is how far rows are changed, relative to their values, to find out whether
// rounding decides their result.
const nudge = 1e-12

// tie reports whether rounding decides the result of a row. This is so if a row that
// differs only by rounding errors has, with Fleetscore, the result that scikit-learn
// gives for this row. It happens at thresholds of trees and isotonic functions,
// between neighbours of equal distance, and at a decision value of 0. It is also so
// for a value if Fleetscore's value changes by as much as the two differ: the terms
// of a sum may be far larger than the sum, for example if a column was constant in
// training.
func (c *comparison) tie(method sklearn.Method, i int, ours, theirs, within []float64) bool {
	row := c.x[i*c.cols : (i+1)*c.cols]
	moved, out := make([]float64, c.cols), make([]float64, len(theirs))
	rng := rand.New(rand.NewPCG(uint64(i), 2))
	spread := slices.Clone(within)
	for try := range 64 {
		for k, v := range row {
			by := nudge * (2*rng.Float64() - 1)
			if try%2 == 0 {
				by = math.Copysign(nudge, by)
			}
			moved[k] = v + by*max(math.Abs(v), 1)
		}
		if c.model.Call(method, moved, 1, out, &c.run.scratch) != nil {
			continue
		}
		if near(out, theirs, within) {
			return true
		}
		for k := range ours {
			if d := math.Abs(out[k] - ours[k]); d > spread[k] {
				spread[k] = d
			}
		}
		if ours != nil && near(ours, theirs, spread) {
			return true
		}
	}
	return false
}

func near(a, b, within []float64) bool {
	for i := range a {
		if !(a[i] == b[i] || math.Abs(a[i]-b[i]) <= within[i] || a[i] != a[i] && b[i] != b[i]) {
			return false
		}
	}
	return true
}

// values compares values, relative to the largest value of their column, or to 1.
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
	within := make([]float64, cols)
	for i, v := range scale {
		within[i] = v * c.run.cfg.Tolerance
	}
	for at := 0; at < len(theirs); at += cols {
		got, want := ours[at:at+cols], theirs[at:at+cols]
		col, d := worst(got, want, scale)
		if d > c.run.cfg.Tolerance {
			if c.tie(methodOf(method), at/cols, got, want, within) {
				c.kind.Ties++
				continue
			}
			c.note(Offender{Method: method, Row: c.row(at / cols), Ours: Float(got[col]), Theirs: Float(want[col])}, d)
		}
		if d > c.kind.Worst {
			c.kind.Worst, c.kind.WorstMethod, c.kind.WorstModel = min(d, math.MaxFloat64), method, c.file.Name
		}
	}
}

// worst returns the column with the largest difference, relative to its scale. The
// difference is infinite if only one of the two values is finite.
func worst(got, want, scale []float64) (col int, amount float64) {
	for i := range want {
		if got[i] == want[i] || got[i] != got[i] && want[i] != want[i] {
			continue
		}
		d := math.Abs(got[i]-want[i]) / scale[i]
		if d != d {
			d = math.Inf(1)
		}
		if d > amount {
			col, amount = i, d
		}
	}
	return col, amount
}

func methodOf(name string) sklearn.Method {
	for m := sklearn.Predict; m < sklearn.Transform; m++ {
		if m.String() == name {
			return m
		}
	}
	return sklearn.Transform
}
