package ensemble

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// PerClass is OneVsRestClassifier and OneVsOneClassifier: a model of two classes for
// each class, or for each pair of classes.
type PerClass struct {
	group
	zero bool // OneVsOneClassifier until 1.0: the limit between two classes is 0, also for probabilities
}

// NewPerClass returns an empty PerClass for a record to be read into.
func NewPerClass(class string) *PerClass { return &PerClass{group: group{class: class}} }

// ReadPerClass reads the attributes of a PerClass from a file.
func ReadPerClass(a *estimator.Attributes) estimator.Estimator {
	p := NewPerClass(a.Class)
	p.zero = !a.AtLeast(1, 1)
	g := a.Graph()
	if a.Has("label_binarizer_") {
		a.Nested(a.Value("label_binarizer_"), "label_binarizer_", func(in *estimator.Attributes) {
			in.OneLabel()
			p.labels = in.Labels("classes_")
		})
	}
	if a.Has("classes_") && p.labels.Len() != 2 { // predict reads classes_ for more than two classes, in releases where it isn't a property
		p.labels = a.Labels("classes_")
	} else if p.labels.Len() == 0 {
		a.Fail("classes_ is missing")
	}
	for e := g.Entries(a.Value("estimators_")); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		if class, _ := g.Instance(v); class != nil && class.Name == "_ConstantPredictor" {
			a.Unsupported("a class that no training row had", "train it with rows of every class")
		}
	}
	if a.Err() == nil {
		p.read(a, "estimators_")
	}
	return p
}

// Fields implements estimator.Estimator, as do the methods below.
func (p *PerClass) Fields(c *estimator.Codec) {
	p.fields(c)
	c.Bool(&p.zero)
}

func (p *PerClass) Parameters() map[string]any { return p.parameters() }

func (p *PerClass) pairs() bool { return p.class == "OneVsOneClassifier" }

func (p *PerClass) Check() error {
	if err := p.check(false); err != nil {
		return err
	}
	k := p.labels.Len()
	want := k
	switch {
	case p.pairs():
		want = k * (k - 1) / 2
	case k == 2:
		want = 1
	}
	if k < 2 || len(p.members) != want {
		return estimator.Misfit("%s: %d models for %d classes", p.class, len(p.members), k)
	}
	for _, e := range p.members {
		l := estimator.LabelsOf(e)
		if n := e.Outputs(estimator.DecisionFunction, max(1, p.features)); l == nil || l.Len() != 2 || n > 1 ||
			n == 0 && e.Outputs(estimator.PredictProba, max(1, p.features)) != 2 {
			return estimator.Misfit("%s: %s has %d classes instead of 2", p.class, e.Class(), n)
		}
		for i, v := range l.Values {
			if v != float64(i) {
				return estimator.Misfit("%s: %s has the class %v", p.class, e.Class(), v)
			}
		}
	}
	return nil
}

// sums reports whether all members have a decision_function.
func (p *PerClass) sums() bool { return p.common(estimator.DecisionFunction, max(1, p.features)) == 1 }

func (p *PerClass) Outputs(m estimator.Method, _ int) int {
	k := p.labels.Len()
	switch {
	case m == estimator.Predict:
		return 1
	case m == estimator.DecisionFunction && (p.pairs() || p.sums()):
		if k == 2 {
			return 1
		}
		return k
	case m == estimator.PredictProba && !p.pairs() && p.common(m, max(1, p.features)) == 2:
		return k
	}
	return 0
}

// confidence writes a member's decision, or its probability of the second class.
func confidence(e estimator.Estimator, x *estimator.Block, dst *estimator.Block, ws *estimator.Workspace) error {
	if e.Outputs(estimator.DecisionFunction, x.Cols) > 0 {
		return e.Compute(estimator.DecisionFunction, x, dst, ws)
	}
	odds := ws.Block(x, 2)
	err := e.Compute(estimator.PredictProba, x, odds, ws)
	copy(dst.Lanes(0), odds.Lanes(1))
	return err
}

func (p *PerClass) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if m == estimator.PredictProba {
		return p.probabilities(x, out, ws)
	}
	k := p.labels.Len()
	d := out
	if m == estimator.Predict {
		d = ws.Block(x, map[bool]int{true: 1, false: k}[k == 2])
	}
	if p.pairs() {
		if err := p.duels(x, d, ws); err != nil {
			return err
		}
	} else {
		for i, e := range p.members {
			if err := confidence(e, x, ws.View(d, i, 1), ws); err != nil {
				return err
			}
		}
	}
	if m != estimator.Predict {
		return nil
	}
	dst := out.Col(0)
	switch {
	case k == 2:
		limit := 0.5
		if p.sums() || p.pairs() && p.zero {
			limit = 0
		}
		for r, v := range d.Col(0) {
			dst[r] = p.labels.Values[0]
			if v > limit {
				dst[r] = p.labels.Values[1]
			}
		}
	case p.pairs():
		largest(d, dst, &p.labels)
	default: // if several are equal, the last one counts
		for r := range dst {
			top := math.Inf(-1)
			for c := range k {
				if v := d.X[c*d.Stride+r]; v >= top {
					top, dst[r] = v, p.labels.Values[c]
				}
			}
		}
	}
	return nil
}

func (p *PerClass) probabilities(x, out *estimator.Block, ws *estimator.Workspace) error {
	odds := ws.Block(x, 2)
	for i, e := range p.members {
		if err := e.Compute(estimator.PredictProba, x, odds, ws); err != nil {
			return err
		}
		if len(p.members) == 1 {
			for r, v := range odds.Col(1) {
				out.Col(0)[r], out.Col(1)[r] = 1-v, v
			}
			break
		}
		copy(out.Lanes(i), odds.Lanes(1))
	}
	for r := range out.Rows {
		sum := 0.0
		for c := range out.Cols {
			sum += out.X[c*out.Stride+r]
		}
		for c := range out.Cols {
			out.X[c*out.Stride+r] /= sum
		}
	}
	return nil
}

// duels is the decision of OneVsOneClassifier: votes, plus confidences that are too
// small to outweigh a vote.
func (p *PerClass) duels(x, out *estimator.Block, ws *estimator.Workspace) error {
	k := p.labels.Len()
	sums, votes, sure, won := ws.Block(x, k), ws.Block(x, k), ws.Block(x, 1), ws.Block(x, 1)
	clear(sums.X)
	clear(votes.X)
	n := 0
	for i := range k {
		for j := i + 1; j < k; j++ {
			e := p.members[n]
			n++
			if err := confidence(e, x, sure, ws); err != nil {
				return err
			}
			if err := e.Compute(estimator.Predict, x, won, ws); err != nil {
				return err
			}
			for r, v := range sure.Col(0) {
				sums.Col(i)[r] -= v
				sums.Col(j)[r] += v
				if won.Col(0)[r] == 0 {
					votes.Col(i)[r]++
				} else {
					votes.Col(j)[r]++
				}
			}
		}
	}
	from := 0
	if k == 2 {
		from = 1
	}
	for c := from; c < k; c++ {
		dst := out.Col(c - from)
		for r, v := range sums.Col(c) {
			dst[r] = votes.Col(c)[r] + v/(3*(math.Abs(v)+1))
		}
	}
	return nil
}

// PerOutput is MultiOutputRegressor: a model for each output.
type PerOutput struct{ group }

// NewPerOutput returns an empty PerOutput for a record to be read into.
func NewPerOutput(class string) *PerOutput { return &PerOutput{group{class: class}} }

// ReadPerOutput reads the attributes of a PerOutput from a file.
func ReadPerOutput(a *estimator.Attributes) estimator.Estimator {
	p := NewPerOutput(a.Class)
	p.read(a, "estimators_")
	return p
}

func (p *PerOutput) Fields(c *estimator.Codec)  { p.fields(c) }
func (p *PerOutput) Parameters() map[string]any { return p.parameters() }

func (p *PerOutput) Check() error {
	if err := p.check(false); err != nil {
		return err
	}
	if p.common(estimator.Predict, max(1, p.features)) != 1 {
		return estimator.Misfit("%s: a model predicts several values", p.class)
	}
	return nil
}

func (p *PerOutput) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict {
		return len(p.members)
	}
	return 0
}

func (p *PerOutput) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	for i, e := range p.members {
		if err := e.Compute(m, x, ws.View(out, i, 1), ws); err != nil {
			return err
		}
	}
	return nil
}

// Dummy is DummyClassifier and DummyRegressor: the same prediction for every row.
type Dummy struct {
	class  string
	labels estimator.Labels
	values []float64 // for the regressor
	best   int       // for the classifier
	odds   []float64
}

// NewDummy returns an empty Dummy for a record to be read into.
func NewDummy(class string) *Dummy { return &Dummy{class: class} }

// ReadDummy reads the attributes of a Dummy from a file.
func ReadDummy(a *estimator.Attributes) estimator.Estimator {
	d := NewDummy(a.Class)
	if a.Class == "DummyRegressor" {
		v := a.Value("constant_")
		if v == 0 || v.Kind() == pickle.KindNone {
			a.Fail("constant_ is missing")
			return d
		}
		d.values, _ = a.ArrayOf(v, "constant_", true, 1, -1)
		a.Agrees("n_outputs_", len(d.values))
		return d
	}
	d.labels = a.Labels("classes_")
	a.Agrees("n_classes_", d.labels.Len())
	a.Agrees("n_outputs_", 1)
	prior := a.Vector("class_prior_", d.labels.Len())
	if a.Err() != nil {
		return d
	}
	strategy := a.Text("_strategy", a.Text("strategy", "prior"))
	switch strategy {
	case "most_frequent", "prior":
		for i, p := range prior {
			if p > prior[d.best] {
				d.best = i
			}
		}
	default:
		a.Unsupported("strategy="+strategy, "use most_frequent or prior; the other strategies are random or constant")
	}
	d.odds = prior
	if strategy == "most_frequent" {
		d.odds = make([]float64, len(prior))
		d.odds[d.best] = 1
	}
	return d
}

func (d *Dummy) Class() string              { return d.class }
func (d *Dummy) Features() int              { return 0 }
func (d *Dummy) Parameters() map[string]any { return map[string]any{} }

// Labels returns nil for the regressor.
func (d *Dummy) Labels() *estimator.Labels {
	if d.labels.Len() == 0 {
		return nil
	}
	return &d.labels
}

func (d *Dummy) Outputs(m estimator.Method, _ int) int {
	switch k := d.labels.Len(); {
	case m == estimator.Predict && k == 0:
		return len(d.values)
	case m == estimator.Predict:
		return 1
	case m == estimator.PredictProba || m == estimator.PredictLogProba:
		return k
	}
	return 0
}

func (d *Dummy) Fields(c *estimator.Codec) {
	d.labels.Fields(c)
	c.Floats(&d.values)
	c.Int(&d.best)
	c.Floats(&d.odds)
}

func (d *Dummy) Check() error {
	k := d.labels.Len()
	if k == 0 && len(d.values) == 0 || k > 0 && (len(d.odds) != k || d.best >= k) {
		return estimator.Misfit("%s: %d values for %d classes", d.class, len(d.values), k)
	}
	return nil
}

func (d *Dummy) Compute(m estimator.Method, _, out *estimator.Block, _ *estimator.Workspace) error {
	for c := range out.Cols {
		var v float64
		switch {
		case d.labels.Len() == 0:
			v = d.values[c]
		case m == estimator.Predict:
			v = d.labels.Values[d.best]
		case m == estimator.PredictProba:
			v = d.odds[c]
		default:
			v = math.Log(d.odds[c])
		}
		dst := out.Col(c)
		for r := range dst {
			dst[r] = v
		}
	}
	return nil
}

// Constant implements estimator.Steady.
func (d *Dummy) Constant() (constant bool, why string) {
	return true, "it is a dummy model, which ignores the row; train a real model"
}
