// Package compose combines estimators like scikit-learn's Pipeline, FeatureUnion and
// ColumnTransformer.
package compose

import (
	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// skipped reports whether there is None or "passthrough" in place of an estimator.
func skipped(a *estimator.Attributes, v pickle.Value) bool {
	t, ok := a.Graph().Text(v)
	return v.Kind() == pickle.KindNone || (ok && string(t) == "passthrough")
}

func dropped(a *estimator.Attributes, v pickle.Value) bool {
	t, ok := a.Graph().Text(v)
	return ok && string(t) == "drop"
}

// placeBytes is the memory that is charged for a step, besides its name and its
// estimator.
const placeBytes = 160

// name returns a copy of a step's name.
func name(a *estimator.Attributes, v pickle.Value) string {
	t, ok := a.Graph().Text(v)
	if !ok {
		a.Fail("a step has no name")
		return ""
	}
	if err := a.Graph().Charge(len(t) + len(a.Name) + placeBytes); err != nil {
		a.Fail("%w", err)
		return ""
	}
	return a.Copy(t)
}

// Pipeline passes rows from step to step.
type Pipeline struct {
	steps []estimator.Part
	ests  []estimator.Estimator // the steps' estimators
}

// ReadPipeline reads the attributes of a Pipeline from a file. Steps that do nothing are left out, except for a
// single step.
func ReadPipeline(a *estimator.Attributes) estimator.Estimator {
	p := &Pipeline{}
	g := a.Graph()
	steps := a.Value("steps")
	if steps.Kind() != pickle.KindList && steps.Kind() != pickle.KindTuple {
		a.Fail("steps isn't a list")
		return p
	}
	if n := g.Count(steps); n <= 16 { // one allocation for the usual lengths
		p.steps = make([]estimator.Part, 0, n)
	}
	for e := g.Entries(steps); ; {
		v, ok := e.Item()
		if !ok || a.Err() != nil {
			break
		}
		items := g.Entries(v)
		first, _ := items.Item()
		est, ok := items.Item()
		if !ok || g.Count(v) != 2 {
			a.Fail("a step isn't a pair of name and estimator")
			break
		}
		n := name(a, first)
		if skipped(a, est) {
			continue
		}
		if s := a.ChildOf(est, n); s != nil {
			p.steps = append(p.steps, estimator.Part{Name: n, Est: s})
		}
	}
	if len(p.steps) == 0 {
		p.steps = append(p.steps, estimator.Part{Est: &FunctionTransformer{}})
	}
	p.ests = make([]estimator.Estimator, len(p.steps))
	for i, s := range p.steps {
		p.ests[i] = s.Est
	}
	return p
}

// Class implements estimator.Estimator, as do the methods below.
func (p *Pipeline) Class() string { return "Pipeline" }

// Parts returns the steps.
func (p *Pipeline) Parts() []estimator.Part { return p.steps }

// Chain returns the steps in order. The last step's results are the pipeline's results.
func (p *Pipeline) Chain() []estimator.Estimator { return p.ests }

func (p *Pipeline) Features() int { return chainFeatures(p.ests) }

// chainFeatures returns the number of columns that the first step with such a number
// takes, if the steps before it keep the number of columns.
func chainFeatures(chain []estimator.Estimator) int {
	for _, e := range chain {
		if n := e.Features(); n > 0 {
			return n
		}
		if e.Outputs(estimator.Transform, 1) != 1 || e.Outputs(estimator.Transform, 2) != 2 {
			return 0
		}
	}
	return 0
}

func (p *Pipeline) Outputs(m estimator.Method, in int) int {
	last := len(p.ests) - 1
	for _, e := range p.ests[:last] {
		in = e.Outputs(estimator.Transform, in)
	}
	return p.ests[last].Outputs(m, in)
}

func (p *Pipeline) Parameters() map[string]any { return map[string]any{} }

func (p *Pipeline) Fields(c *estimator.Codec) { c.Children(&p.ests) }

func (p *Pipeline) Check() error {
	if len(p.ests) == 0 {
		return estimator.Misfit("Pipeline has no steps")
	}
	in := chainFeatures(p.ests)
	for i, e := range p.ests {
		if n := e.Features(); n > 0 && in > 0 && n != in {
			return estimator.Misfit("%s takes %d features, but the step before it returns %d", e.Class(), n, in)
		}
		if i == len(p.ests)-1 {
			break
		}
		out := e.Outputs(estimator.Transform, in)
		if out == 0 && (in > 0 || e.Outputs(estimator.Transform, 1) == 0) {
			return estimator.Misfit("%s isn't the last step of a pipeline, but it doesn't transform", e.Class())
		}
		in = out
	}
	if len(p.steps) != len(p.ests) { // the pipeline was read from a record
		p.steps = p.steps[:0]
		for _, e := range p.ests {
			p.steps = append(p.steps, estimator.Part{Est: e})
		}
	}
	for i, e := range p.ests {
		p.steps[i].Est = e
	}
	return nil
}

func (p *Pipeline) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	last := len(p.ests) - 1
	x, err := Forward(p.ests[:last], p.ests[last], x, ws)
	if err != nil {
		return err
	}
	return p.ests[last].Compute(m, x, out, ws)
}

// Forward passes rows through transformers, and checks that the last step takes as many
// columns as come out. Files of early releases don't say how many columns a model
// takes, so for them only this check finds a wrong number.
func Forward(chain []estimator.Estimator, last estimator.Estimator, x *estimator.Block, ws *estimator.Workspace) (*estimator.Block, error) {
	for _, e := range chain {
		if err := fits(e, x); err != nil {
			return nil, err
		}
		next := ws.Block(x, e.Outputs(estimator.Transform, x.Cols))
		if err := e.Compute(estimator.Transform, x, next, ws); err != nil {
			return nil, err
		}
		x = next
	}
	return x, fits(last, x)
}

func fits(e estimator.Estimator, x *estimator.Block) error {
	if n := e.Features(); n > 0 && n != x.Cols {
		return fleetscore.Errorf(fleetscore.Invalid, "predict", "", "%s takes %d columns, but gets %d", e.Class(), n, x.Cols).
			WithHint("give the model as many features as it was trained with")
	}
	return nil
}
