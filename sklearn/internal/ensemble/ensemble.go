// Package ensemble computes scikit-learn's models that consist of other models:
// bagging, weighted boosting, voting, stacking, and one model for each class, pair of
// classes or output.
package ensemble

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// group holds the models of an ensemble.
type group struct {
	class    string
	features int
	labels   estimator.Labels // for classifiers
	members  []estimator.Estimator
	names    []string // the members' names, if people named them
}

// Class implements estimator.Estimator, as do the methods below and those of the
// types that embed a group.
func (g *group) Class() string { return g.class }

func (g *group) Features() int { return g.features }

// Labels returns nil for regressors.
func (g *group) Labels() *estimator.Labels {
	if g.labels.Len() == 0 {
		return nil
	}
	return &g.labels
}

// SupportVectors implements estimator.Sized.
func (g *group) SupportVectors() int { n, _ := estimator.Size(g.members); return n }

// Nodes implements estimator.Sized.
func (g *group) Nodes() int { _, n := estimator.Size(g.members); return n }

func (g *group) parameters() map[string]any {
	p := map[string]any{"models": len(g.members), "of": g.members[0].Class()}
	if n := g.labels.Len(); n > 0 {
		p["classes"] = n
	}
	return p
}

func (g *group) fields(c *estimator.Codec) {
	c.Int(&g.features)
	g.labels.Fields(c)
	c.Children(&g.members)
}

// read reads the members of a list, and the number of columns that they take.
func (g *group) read(a *estimator.Attributes, list string) {
	g.class, g.features = a.Class, a.Features()
	graph := a.Graph()
	v := a.Value(list)
	entries := graph.Entries(v)
	if graph.IsArray(v) {
		arr, err := graph.Array(v)
		if err == nil {
			entries, err = graph.Objects(&arr)
		}
		if err != nil {
			a.Fail("%s %w", list, err)
			return
		}
	}
	for a.Err() == nil {
		m, ok := entries.Item()
		if !ok {
			break
		}
		if e := a.Hidden(m); e != nil {
			g.members = append(g.members, e)
		}
	}
	if len(g.members) == 0 {
		a.Fail("%s is missing or empty", list)
		return
	}
	for _, e := range g.members {
		if g.features == 0 {
			g.features = e.Features()
		}
	}
}

// check checks what all members have in common. If subsets is true, each member takes
// only some of the columns.
func (g *group) check(subsets bool) error {
	if len(g.members) == 0 || g.features < 0 {
		return estimator.Misfit("%s has no models", g.class)
	}
	for _, e := range g.members {
		if n := e.Features(); !subsets && n > 0 && n != g.features {
			return estimator.Misfit("%s: %s takes %d features instead of %d", g.class, e.Class(), n, g.features)
		}
		if e.Outputs(estimator.Predict, max(1, e.Features())) == 0 {
			return estimator.Misfit("%s: %s doesn't predict", g.class, e.Class())
		}
	}
	if g.labels.Len() > 0 {
		return g.labels.Check(g.class)
	}
	return nil
}

// common returns how many columns a method of every member writes, or 0 if this
// differs.
func (g *group) common(m estimator.Method, in int) int {
	n := g.members[0].Outputs(m, in)
	for _, e := range g.members[1:] {
		if e.Outputs(m, in) != n {
			return 0
		}
	}
	return n
}

// places finds the index of each member's classes among the group's classes. Members of
// ensembles have these indexes as labels, numbers from 0.
func (g *group) places() error {
	for _, e := range g.members {
		l := estimator.LabelsOf(e)
		if l == nil {
			continue
		}
		for _, v := range l.Values {
			if v < 0 || v >= float64(g.labels.Len()) || v != float64(int(v)) {
				return estimator.Misfit("%s: a %s that was fitted on other labels, such as %v, is not supported", g.class, e.Class(), v).
					WithHint("fit the model as a part of %s, or on labels that are numbers from 0 without gaps", g.class)
			}
		}
	}
	return nil
}

// largest writes the label of each row's largest column. If several are equal, the
// first counts.
func largest(b *estimator.Block, dst []float64, labels *estimator.Labels) {
	for r := range dst {
		best := 0
		for c := 1; c < b.Cols; c++ {
			if b.X[c*b.Stride+r] > b.X[best*b.Stride+r] {
				best = c
			}
		}
		dst[r] = labels.Values[best]
	}
}

// Bagging is BaggingClassifier and BaggingRegressor: the average of models, each
// trained on some of the rows and columns.
type Bagging struct {
	group
	columns []int32 // the first model's columns, then the next model's; nil if every model takes all columns
	strict  bool    // refuses NaN itself, as release 0.19 does
}

// NewBagging returns an empty Bagging for a record to be read into.
func NewBagging(class string) *Bagging { return &Bagging{group: group{class: class}} }

// ReadBagging reads the attributes of a Bagging from a file.
func ReadBagging(a *estimator.Attributes) estimator.Estimator {
	b := NewBagging(a.Class)
	b.read(a, "estimators_")
	b.strict = !a.AtLeast(0, 20)
	if a.Class == "BaggingClassifier" {
		b.labels = a.Labels("classes_")
		a.Agrees("n_classes_", b.labels.Len())
	}
	g := a.Graph()
	if v := a.Value("estimators_features_"); v.Kind() == pickle.KindList {
		for e := g.Entries(v); a.Err() == nil; {
			list, ok := e.Item()
			if !ok {
				break
			}
			f, _ := a.ArrayOf(list, "estimators_features_", true, -1)
			if err := g.Charge(12 * len(f)); err != nil {
				a.Fail("%w", err)
				break
			}
			for _, c := range f {
				b.columns = append(b.columns, int32(c))
			}
		}
	}
	return b
}

func (b *Bagging) Fields(c *estimator.Codec) {
	b.fields(c)
	c.Int32s(&b.columns)
	c.Bool(&b.strict)
}

func (b *Bagging) Parameters() map[string]any { return b.parameters() }

func (b *Bagging) Check() error {
	if err := b.check(true); err != nil {
		return err
	}
	if b.features < 1 || len(b.columns)%len(b.members) != 0 {
		return estimator.Misfit("%s: %d columns for %d models", b.class, len(b.columns), len(b.members))
	}
	for _, c := range b.columns {
		if c < 0 || int(c) >= b.features {
			return estimator.Misfit("%s: a model takes column %d, but there are %d columns", b.class, c, b.features)
		}
	}
	for _, e := range b.members {
		if n := e.Features(); n > 0 && n != b.taken() {
			return estimator.Misfit("%s: %s takes %d features instead of %d", b.class, e.Class(), n, b.taken())
		}
		l := estimator.LabelsOf(e)
		if b.labels.Len() > 0 && (l == nil || e.Outputs(estimator.Predict, b.taken()) != 1) {
			return estimator.Misfit("%s: %s isn't a classifier", b.class, e.Class())
		}
		if n := e.Outputs(estimator.PredictProba, b.taken()); b.labels.Len() > 0 && n > 0 && n != l.Len() {
			return estimator.Misfit("%s: %s returns %d probabilities", b.class, e.Class(), n)
		}
	}
	if b.labels.Len() > 0 {
		return b.places()
	}
	if b.common(estimator.Predict, b.taken()) == 0 {
		return estimator.Misfit("%s: the models have different numbers of outputs", b.class)
	}
	return nil
}

// taken returns how many columns each model takes.
func (b *Bagging) taken() int {
	if b.columns == nil {
		return b.features
	}
	return len(b.columns) / len(b.members)
}

func (b *Bagging) Outputs(m estimator.Method, _ int) int {
	switch k := b.labels.Len(); {
	case k == 0 && m == estimator.Predict:
		return b.common(m, b.taken())
	case k == 0:
		return 0
	case m == estimator.Predict:
		return 1
	case m == estimator.PredictProba || m == estimator.PredictLogProba:
		return k
	case m == estimator.DecisionFunction:
		return b.common(m, b.taken())
	}
	return 0
}

// sum adds up the results of a method of each model, for the model's own columns.
func (b *Bagging) sum(x *estimator.Block, ws *estimator.Workspace, add func(e estimator.Estimator, x *estimator.Block) error) error {
	in := x
	for i, e := range b.members {
		if b.columns != nil {
			in = ws.Block(x, b.taken())
			for to, from := range b.columns[i*in.Cols : (i+1)*in.Cols] {
				copy(in.Lanes(to), x.Lanes(int(from)))
			}
		}
		if err := add(e, in); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bagging) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if b.strict {
		if err := x.CheckFinite(b.class); err != nil {
			return err
		}
	}
	if m == estimator.Predict && b.labels.Len() > 0 {
		p := ws.Block(x, b.labels.Len())
		if err := b.Compute(estimator.PredictProba, x, p, ws); err != nil {
			return err
		}
		largest(p, out.Col(0), &b.labels)
		return nil
	}
	if m == estimator.PredictLogProba {
		return b.logs(x, out, ws)
	}
	clear(out.X[:out.Cols*out.Stride])
	err := b.sum(x, ws, func(e estimator.Estimator, x *estimator.Block) error {
		if m == estimator.PredictProba {
			return b.odds(e, x, out, ws)
		}
		one := ws.Block(x, out.Cols)
		if err := e.Compute(m, x, one, ws); err != nil {
			return err
		}
		for c := range out.Cols {
			dst := out.Col(c)
			for r, v := range one.Col(c) {
				dst[r] += v
			}
		}
		return nil
	})
	for c := range out.Cols {
		dst := out.Col(c)
		for r := range dst {
			dst[r] /= float64(len(b.members))
		}
	}
	return err
}

// odds adds a model's probabilities, or its vote if it has no probabilities.
func (b *Bagging) odds(e estimator.Estimator, x, out *estimator.Block, ws *estimator.Workspace) error {
	labels := estimator.LabelsOf(e)
	n := e.Outputs(estimator.PredictProba, x.Cols)
	if n == 0 {
		vote := ws.Block(x, 1)
		if err := e.Compute(estimator.Predict, x, vote, ws); err != nil {
			return err
		}
		for r, v := range vote.Col(0) {
			out.X[int(v)*out.Stride+r]++
		}
		return nil
	}
	one := ws.Block(x, n)
	if err := e.Compute(estimator.PredictProba, x, one, ws); err != nil {
		return err
	}
	for c, place := range labels.Values {
		dst := out.Col(int(place))
		for r, v := range one.Col(c) {
			dst[r] += v
		}
	}
	return nil
}

// logs is predict_log_proba. It uses the models' own predict_log_proba if all have it.
func (b *Bagging) logs(x, out *estimator.Block, ws *estimator.Workspace) error {
	if b.common(estimator.PredictLogProba, b.taken()) != b.labels.Len() {
		err := b.Compute(estimator.PredictProba, x, out, ws)
		estimator.Log(out)
		return err
	}
	first := true
	err := b.sum(x, ws, func(e estimator.Estimator, x *estimator.Block) error {
		one := ws.Block(x, out.Cols)
		if err := e.Compute(estimator.PredictLogProba, x, one, ws); err != nil {
			return err
		}
		for c := range out.Cols {
			dst := out.Col(c)
			for r, v := range one.Col(c) {
				if first {
					dst[r] = v
				} else {
					dst[r] = logAddExp(dst[r], v)
				}
			}
		}
		first = false
		return nil
	})
	for c := range out.Cols {
		dst := out.Col(c)
		for r := range dst {
			dst[r] -= math.Log(float64(len(b.members)))
		}
	}
	return err
}

// logAddExp is NumPy's function logaddexp.
func logAddExp(a, b float64) float64 {
	switch d := a - b; {
	case a == b:
		return a + math.Ln2
	case d > 0:
		return a + math.Log1p(math.Exp(-d))
	case d <= 0:
		return b + math.Log1p(math.Exp(d))
	default:
		return d
	}
}
