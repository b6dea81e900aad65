package compose

import (
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// FeatureUnion puts the results of several transformers for the same rows side by side.
type FeatureUnion struct {
	steps   []estimator.Part
	ests    []estimator.Estimator
	weights []float64 // one for each transformer; nil if all are 1
}

// ReadFeatureUnion reads the attributes of a FeatureUnion from a file.
func ReadFeatureUnion(a *estimator.Attributes) estimator.Estimator {
	u := &FeatureUnion{}
	g := a.Graph()
	list := a.Value("transformer_list")
	for e := g.Entries(list); ; {
		v, ok := e.Item()
		if !ok || a.Err() != nil {
			break
		}
		pair := g.Entries(v)
		first, _ := pair.Item()
		est, ok := pair.Item()
		if !ok || g.Count(v) != 2 {
			a.Fail("transformer_list holds something other than pairs")
			break
		}
		n := name(a, first)
		if dropped(a, est) || est.Kind() == pickle.KindNone {
			continue
		}
		var s estimator.Estimator = &FunctionTransformer{}
		if !skipped(a, est) {
			s = a.ChildOf(est, n)
		}
		if s != nil {
			u.steps = append(u.steps, estimator.Part{Name: n, Est: s})
			u.ests = append(u.ests, s)
			u.weights = append(u.weights, weight(a, n))
		}
	}
	if len(u.ests) == 0 {
		a.Fail("transformer_list has no transformer")
	}
	u.weights = plain(u.weights)
	return u
}

// weight returns the weight of a name in transformer_weights.
func weight(a *estimator.Attributes, name string) float64 {
	w := a.Value("transformer_weights")
	if w.Kind() != pickle.KindDict {
		return 1
	}
	for e := a.Graph().Entries(w); ; {
		key, v, ok := e.Pair()
		if !ok {
			return 1
		}
		if string(key) == name {
			f, ok := a.Graph().Number(v)
			if !ok || f-f != 0 {
				a.Fail("the weight of %q in transformer_weights isn't a number", name)
			}
			return f
		}
	}
}

// plain returns weights, or nil if all weights are 1.
func plain(weights []float64) []float64 {
	for _, w := range weights {
		if w != 1 {
			return weights
		}
	}
	return nil
}

func (u *FeatureUnion) Class() string           { return "FeatureUnion" }
func (u *FeatureUnion) Parts() []estimator.Part { return u.steps }
func (u *FeatureUnion) Parameters() map[string]any {
	return map[string]any{"weighted": u.weights != nil}
}

func (u *FeatureUnion) Features() int {
	for _, e := range u.ests {
		if n := e.Features(); n > 0 {
			return n
		}
	}
	return 0
}

func (u *FeatureUnion) Outputs(m estimator.Method, in int) int {
	if m != estimator.Transform {
		return 0
	}
	n := 0
	for _, e := range u.ests {
		n += e.Outputs(m, in)
	}
	return n
}

func (u *FeatureUnion) Fields(c *estimator.Codec) {
	c.Children(&u.ests)
	c.Floats(&u.weights)
}

func (u *FeatureUnion) Check() error {
	in := u.Features()
	for _, e := range u.ests {
		if n := e.Features(); n > 0 && n != in {
			return estimator.Misfit("FeatureUnion: %s takes %d features, but another transformer takes %d", e.Class(), n, in)
		}
		if e.Outputs(estimator.Transform, max(1, in)) == 0 {
			return estimator.Misfit("FeatureUnion: %s doesn't transform", e.Class())
		}
	}
	if n := u.Outputs(estimator.Transform, max(1, in)); n > estimator.MaxFeatures {
		return estimator.Misfit("FeatureUnion returns %d columns, more than %d", n, estimator.MaxFeatures)
	}
	if len(u.ests) == 0 || (u.weights != nil && len(u.weights) != len(u.ests)) {
		return estimator.Misfit("FeatureUnion has %d transformers and %d weights", len(u.ests), len(u.weights))
	}
	u.steps = parts(u.steps, u.ests)
	return nil
}

// parts returns estimators with their names, if they have names.
func parts(named []estimator.Part, ests []estimator.Estimator) []estimator.Part {
	if len(named) != len(ests) {
		named = make([]estimator.Part, len(ests))
	}
	for i, e := range ests {
		named[i].Est = e
	}
	return named
}

func (u *FeatureUnion) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	at := 0
	for i, e := range u.ests {
		n := e.Outputs(m, x.Cols)
		view := ws.View(out, at, n)
		if err := e.Compute(m, x, view, ws); err != nil {
			return err
		}
		if u.weights != nil {
			kernel.Scale(view.X, view.X, u.weights[i])
		}
		at += n
	}
	return nil
}

// ColumnTransformer passes a group of columns to each of its transformers.
type ColumnTransformer struct {
	features int
	steps    []estimator.Part
	ests     []estimator.Estimator
	ends     []int32 // for each transformer, the end of its part of columns
	columns  []int32
	weights  []float64
}

// ReadColumnTransformer reads the attributes of a ColumnTransformer from a file.
func ReadColumnTransformer(a *estimator.Attributes) estimator.Estimator {
	t := &ColumnTransformer{features: a.Features()}
	if t.features == 0 && a.Has("_n_features") {
		t.features = a.Int("_n_features", 1, estimator.MaxFeatures)
	}
	if t.features == 0 {
		a.Unsupported("a file without the number of columns, from before 0.20.4 or 0.21.3", "train it with a newer scikit-learn")
		return t
	}
	g := a.Graph()
	names := columnNames(a)
	for e := g.Entries(a.Value("transformers_")); ; {
		v, ok := e.Item()
		if !ok || a.Err() != nil {
			break
		}
		items := g.Tuple(v)
		if len(items) < 3 {
			a.Fail("transformers_ holds something other than triples")
			break
		}
		if dropped(a, items[1]) {
			continue
		}
		before := len(t.columns)
		t.columns = selectColumns(a, items[2], names, t.features, t.columns)
		if len(t.columns) == before {
			continue // scikit-learn leaves out a transformer without columns
		}
		n := name(a, items[0])
		var s estimator.Estimator = &FunctionTransformer{}
		if !skipped(a, items[1]) {
			s = a.ChildOf(items[1], n)
		}
		if s == nil {
			break
		}
		t.steps = append(t.steps, estimator.Part{Name: n, Est: s})
		t.ests = append(t.ests, s)
		t.ends = append(t.ends, int32(len(t.columns)))
		t.weights = append(t.weights, weight(a, n))
	}
	t.weights = plain(t.weights)
	return t
}

// columnNames returns the names of the data frame's columns that the transformer was
// fitted on, with their positions.
func columnNames(a *estimator.Attributes) map[string]int32 {
	for _, n := range [...]string{"feature_names_in_", "_feature_names_in"} {
		if !a.Has(n) {
			continue
		}
		list := a.Strings(n)
		a.FittedWith(list)
		if err := a.Graph().Charge(64 * len(list)); err != nil {
			a.Fail("%w", err)
			return nil
		}
		places := make(map[string]int32, len(list))
		for i, name := range list {
			if _, ok := places[name]; !ok {
				places[name] = int32(i)
			}
		}
		return places
	}
	if a.Has("_df_columns") {
		a.Unsupported("columns by name in a file of scikit-learn 0.22 or 0.23", "name them by position, or train it with a newer scikit-learn")
	}
	return nil
}

func (t *ColumnTransformer) Class() string           { return "ColumnTransformer" }
func (t *ColumnTransformer) Features() int           { return t.features }
func (t *ColumnTransformer) Parts() []estimator.Part { return t.steps }
func (t *ColumnTransformer) Parameters() map[string]any {
	return map[string]any{"transformers": len(t.ests), "columns": len(t.columns)}
}

// of returns the columns of transformer i.
func (t *ColumnTransformer) of(i int) []int32 {
	from := int32(0)
	if i > 0 {
		from = t.ends[i-1]
	}
	return t.columns[from:t.ends[i]]
}

func (t *ColumnTransformer) Outputs(m estimator.Method, _ int) int {
	if m != estimator.Transform {
		return 0
	}
	n := 0
	for i, e := range t.ests {
		n += e.Outputs(m, len(t.of(i)))
	}
	return n
}

func (t *ColumnTransformer) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Children(&t.ests)
	c.Int32s(&t.ends)
	c.Int32s(&t.columns)
	c.Floats(&t.weights)
}

func (t *ColumnTransformer) Check() error {
	last := int32(0)
	if len(t.ests) == 0 || len(t.ends) != len(t.ests) || (t.weights != nil && len(t.weights) != len(t.ests)) {
		return estimator.Misfit("ColumnTransformer has %d transformers, %d groups of columns and %d weights", len(t.ests), len(t.ends), len(t.weights))
	}
	for i, e := range t.ests {
		if t.ends[i] <= last || int(t.ends[i]) > len(t.columns) {
			return estimator.Misfit("ColumnTransformer: %s has no columns", e.Class())
		}
		n := int(t.ends[i] - last)
		last = t.ends[i]
		if f := e.Features(); f > 0 && f != n {
			return estimator.Misfit("ColumnTransformer: %s takes %d features, but has %d columns", e.Class(), f, n)
		}
		if e.Outputs(estimator.Transform, n) == 0 {
			return estimator.Misfit("ColumnTransformer: %s doesn't transform", e.Class())
		}
	}
	if n := t.Outputs(estimator.Transform, t.features); n > estimator.MaxFeatures {
		return estimator.Misfit("ColumnTransformer returns %d columns, more than %d", n, estimator.MaxFeatures)
	}
	for _, c := range t.columns {
		if c < 0 || int(c) >= t.features {
			return estimator.Misfit("ColumnTransformer: column %d is selected, but there are %d columns", c, t.features)
		}
	}
	t.steps = parts(t.steps, t.ests)
	return nil
}

func (t *ColumnTransformer) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	at := 0
	for i, e := range t.ests {
		picked := t.of(i)
		in := ws.Block(x, len(picked))
		for to, from := range picked {
			copy(in.Lanes(to), x.Lanes(int(from)))
		}
		n := e.Outputs(m, len(picked))
		view := ws.View(out, at, n)
		if err := e.Compute(m, in, view, ws); err != nil {
			return err
		}
		if t.weights != nil {
			kernel.Scale(view.X, view.X, t.weights[i])
		}
		at += n
	}
	return nil
}
