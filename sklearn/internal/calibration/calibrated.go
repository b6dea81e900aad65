// Package calibration computes scikit-learn's CalibratedClassifierCV: classifiers whose
// decisions a sigmoid or a step function turns into probabilities.
package calibration

import (
	"math"
	"sort"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Calibrated is CalibratedClassifierCV.
type Calibrated struct {
	labels  estimator.Labels
	members []estimator.Estimator
	parts   []estimator.Part
	curves  []curve // for each member, one curve for each decision
}

// curve turns a decision into a probability. It is a sigmoid, or interpolates between
// points.
type curve struct {
	a, b   float64
	x, y   []float64 // nil for a sigmoid
	single bool      // the points are float32, and decisions and results are rounded to float32
}

func (c *curve) at(v float64) float64 {
	if c.x == nil {
		return estimator.Expit(-(float64(c.a*v) + c.b))
	}
	if c.single {
		return float64(float32(c.step(float64(float32(v)))))
	}
	return c.step(v)
}

// step interpolates between points.
func (c *curve) step(v float64) float64 {
	last := len(c.x) - 1
	switch {
	case last == 0 || v <= c.x[0]:
		return c.y[0]
	case v >= c.x[last]:
		return c.y[last]
	}
	i := max(1, sort.SearchFloat64s(c.x, v))
	slope := (c.y[i] - c.y[i-1]) / (c.x[i] - c.x[i-1])
	return float64(slope*(v-c.x[i-1])) + c.y[i-1]
}

// Read reads the attributes of a CalibratedClassifierCV from a file.
func Read(a *estimator.Attributes) estimator.Estimator {
	c := &Calibrated{labels: a.Labels("classes_")}
	g := a.Graph()
	list := a.Value("calibrated_classifiers_")
	if list.Kind() != pickle.KindList || g.Count(list) == 0 {
		a.Fail("calibrated_classifiers_ is missing or empty")
		return c
	}
	for e := g.Entries(list); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		a.Nested(v, "one of calibrated_classifiers_", func(in *estimator.Attributes) { c.member(in) })
	}
	return c
}

func (c *Calibrated) member(a *estimator.Attributes) {
	g := a.Graph()
	if m := a.Text("method", "sigmoid"); m != "sigmoid" && m != "isotonic" {
		a.Unsupported("method="+m, "use sigmoid or isotonic")
		return
	}
	est := a.Hidden(a.Value(a.FirstOf("estimator", "base_estimator")))
	if est == nil {
		return
	}
	if own := estimator.LabelsOf(est); own == nil || own.Len() != c.labels.Len() {
		a.Unsupported("a classifier that was trained on only some of the classes", "train it with more rows of each class")
		return
	}
	c.members = append(c.members, est)
	for e := g.Entries(a.Value(a.FirstOf("calibrators", "calibrators_"))); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		a.Nested(v, "a calibrator", func(in *estimator.Attributes) {
			if in.Has("a_") {
				c.curves = append(c.curves, curve{a: in.Float("a_"), b: in.Float("b_")})
				return
			}
			xs := in.FirstOf("X_thresholds_", "_necessary_X_")
			ys := in.FirstOf("y_thresholds_", "_necessary_y_")
			if bounds := in.Text("out_of_bounds", "clip"); bounds != "clip" {
				in.Unsupported("out_of_bounds="+bounds, "use clip")
			}
			x := in.Vector(xs, -1)
			if n := len(x); n > 0 && (in.FloatOr("X_min_", x[0]) != x[0] || in.FloatOr("X_max_", x[n-1]) != x[n-1]) {
				in.Fail("%s doesn't end at X_min_ and X_max_", xs)
			}
			c.curves = append(c.curves, curve{x: x, y: in.Vector(ys, len(x)), single: in.Single(xs)})
		})
	}
}

// Class implements estimator.Estimator, as do the methods below.
func (c *Calibrated) Class() string             { return "CalibratedClassifierCV" }
func (c *Calibrated) Features() int             { return c.members[0].Features() }
func (c *Calibrated) Labels() *estimator.Labels { return &c.labels }
func (c *Calibrated) Parts() []estimator.Part   { return c.parts }

func (c *Calibrated) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict:
		return 1
	case estimator.PredictProba:
		return c.labels.Len()
	}
	return 0
}

func (c *Calibrated) Parameters() map[string]any {
	return map[string]any{"classes": c.labels.Len(), "members": len(c.members), "of": c.members[0].Class()}
}

func (c *Calibrated) Fields(f *estimator.Codec) {
	c.labels.Fields(f)
	f.Children(&c.members)
	n := len(c.curves)
	f.Int(&n)
	if f.Reading() {
		c.curves = c.curves[:0]
	}
	for i := 0; i < n && f.Err() == nil; i++ {
		if f.Reading() {
			c.curves = append(c.curves, curve{})
		}
		v := &c.curves[i]
		f.Float(&v.a)
		f.Float(&v.b)
		f.Floats(&v.x)
		f.Floats(&v.y)
		f.Bool(&v.single)
	}
}

// decisions returns the method that a member's decisions come from, and their number of
// columns.
func decisions(e estimator.Estimator) (estimator.Method, int) {
	if n := e.Outputs(estimator.DecisionFunction, e.Features()); n > 0 {
		return estimator.DecisionFunction, n
	}
	return estimator.PredictProba, e.Outputs(estimator.PredictProba, e.Features())
}

// columns returns how many columns have a curve. For two classes, only the column of
// the second class has one.
func (c *Calibrated) columns() int {
	if c.labels.Len() == 2 {
		return 1
	}
	return c.labels.Len()
}

func (c *Calibrated) Check() error {
	if err := c.labels.Check(c.Class()); err != nil {
		return err
	}
	if len(c.members) == 0 || len(c.curves) != len(c.members)*c.columns() || c.labels.Len() < 2 {
		return estimator.Misfit("CalibratedClassifierCV: %d classifiers and %d calibrators for %d classes", len(c.members), len(c.curves), c.labels.Len())
	}
	c.parts = c.parts[:0]
	for _, e := range c.members {
		if _, n := decisions(e); e.Features() < 1 || e.Features() != c.members[0].Features() || (n != c.labels.Len() && (c.labels.Len() != 2 || n != 1)) {
			return estimator.Misfit("CalibratedClassifierCV: %s returns %d decisions for %d features", e.Class(), n, e.Features())
		}
		c.parts = append(c.parts, estimator.Part{Est: e})
	}
	for _, v := range c.curves {
		if len(v.x) != len(v.y) {
			return estimator.Misfit("CalibratedClassifierCV: a calibrator has points with %d x values and %d y values", len(v.x), len(v.y))
		}
	}
	return nil
}

func (c *Calibrated) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	k := c.labels.Len()
	mean, one := ws.Block(x, k), ws.Block(x, k)
	clear(mean.X)
	for i, e := range c.members {
		method, n := decisions(e)
		d := ws.Block(x, n)
		if err := e.Compute(method, x, d, ws); err != nil {
			return err
		}
		if err := c.probabilities(d, one, ws, c.curves[i*c.columns():]); err != nil {
			return err
		}
		for j := range k {
			dst := mean.Col(j)
			for r, p := range one.Col(j) {
				dst[r] += p
			}
		}
	}
	for j := range k {
		dst := mean.Col(j)
		for r := range dst {
			dst[r] /= float64(len(c.members))
		}
	}
	if m == estimator.Predict {
		estimator.Choose(mean, out.Col(0), &c.labels)
		return nil
	}
	copy(out.X, mean.X)
	return nil
}

// probabilities writes one member's probabilities.
func (c *Calibrated) probabilities(d, out *estimator.Block, ws *estimator.Workspace, curves []curve) error {
	for j := range c.columns() { // a step function refuses values that aren't finite, a sigmoid doesn't
		if curves[j].x == nil {
			continue
		}
		one := ws.View(d, d.Cols-c.columns()+j, 1)
		if err := one.CheckFinite(c.Class()); err != nil {
			return err
		}
		for r, v := range one.Col(0) {
			if curves[j].single && math.IsInf(float64(float32(v)), 0) {
				return estimator.Refuse("CalibratedClassifierCV: the decision %v of row %d is too large for float32, the type that its calibrator was fitted with; scikit-learn refuses it too", v, d.First+r)
			}
		}
	}
	if c.labels.Len() == 2 {
		for r, v := range d.Col(d.Cols - 1) {
			p := curves[0].at(v)
			out.Col(0)[r], out.Col(1)[r] = 1-p, p
		}
		return nil
	}
	for j := range out.Cols {
		dst := out.Col(j)
		for r, v := range d.Col(j) {
			dst[r] = curves[j].at(v)
		}
	}
	estimator.Normalize(out, true)
	for j := range out.Cols {
		dst := out.Col(j)
		for r, p := range dst {
			if p > 1 && p <= 1+1e-5 {
				dst[r] = 1
			}
		}
	}
	return nil
}
