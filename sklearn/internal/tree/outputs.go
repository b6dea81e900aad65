package tree

import (
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Several is the end of the class names of classifiers with several labels per row.
const Several = ", several outputs"

// Outputs is a classifier with several labels per row: a forest for each label. The
// trees of all forests have the same nodes, with the values of the label.
type Outputs struct {
	class   string
	members []estimator.Estimator // each is a *Forest
}

// partBytes is the memory that is charged for the forest of an output, besides its
// trees.
const partBytes = 512

// NewOutputs returns an empty Outputs for a record to be read into.
func NewOutputs(class string) *Outputs { return &Outputs{class: class} }

// readOutputs reads a tree or a forest whose classes_ is a list.
func readOutputs(a *estimator.Attributes) estimator.Estimator {
	o := NewOutputs(a.Class + Several)
	g := a.Graph()
	var forests []*Forest
	for e := g.Entries(a.Value("classes_")); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		if err := g.Charge(partBytes); err != nil {
			a.Fail("%w", err)
			break
		}
		f := NewForest(a.Class)
		f.features, f.labels = a.Features(), a.LabelsOf(v, "classes_")
		forests = append(forests, f)
		o.members = append(o.members, f)
	}
	a.Agrees("n_outputs_", len(forests))
	if _, ok := g.Number(a.Value("n_classes_")); ok {
		a.Fail("n_classes_ is one number, but there are %d outputs", len(forests))
	}
	var p parsed
	defer p.release(a)
	add := func(in *estimator.Attributes) {
		if p.parse(in, in.Value("tree_"), true); in.Err() != nil {
			return
		}
		if p.outputs != len(forests) {
			in.Fail("a tree has %d outputs, but classes_ has %d", p.outputs, len(forests))
			return
		}
		most := p.width / p.outputs
		for i, f := range forests {
			one, k := p, f.labels.Len()
			if k > most {
				in.Fail("a tree has %d values, but there are %d classes", most, k)
				return
			}
			if err := g.Charge(8 * len(p.nodes) * k); err != nil {
				in.Fail("%w", err)
				return
			}
			one.outputs, one.width, one.values = 1, k, make([]float64, 0, len(p.nodes)*k)
			for n := range p.nodes {
				from := n*p.width + i*most
				one.values = append(one.values, p.values[from:from+k]...)
			}
			f.addParsed(in, a, &one)
			g.Refund(8 * len(p.nodes) * k)
		}
	}
	if a.Has("tree_") {
		add(a)
		return o
	}
	list := a.Value("estimators_")
	if list.Kind() != pickle.KindList || g.Count(list) == 0 {
		a.Fail("estimators_ is missing or empty")
	}
	for e := g.Entries(list); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		a.Nested(v, "a tree of estimators_", add)
	}
	return o
}

// Class implements estimator.Estimator, as do the methods below.
func (o *Outputs) Class() string { return o.class }

func (o *Outputs) Features() int { return o.members[0].Features() }

// SupportVectors implements estimator.Sized.
func (o *Outputs) SupportVectors() int { return 0 }

// Nodes implements estimator.Sized.
func (o *Outputs) Nodes() int { _, n := estimator.Size(o.members); return n }

// LabelSets returns the labels of each output.
func (o *Outputs) LabelSets() []*estimator.Labels {
	var out []*estimator.Labels
	for _, e := range o.members {
		out = append(out, estimator.LabelsOf(e))
	}
	return out
}

func (o *Outputs) Outputs(m estimator.Method, in int) int {
	n := 0
	for _, e := range o.members {
		n += e.Outputs(m, in)
	}
	return n
}

func (o *Outputs) Parameters() map[string]any {
	return map[string]any{"outputs": len(o.members), "nodes": o.Nodes()}
}

func (o *Outputs) Fields(c *estimator.Codec) { c.Children(&o.members) }

func (o *Outputs) Check() error {
	if len(o.members) == 0 {
		return estimator.Misfit("%s has no outputs", o.class)
	}
	for _, e := range o.members {
		f, ok := e.(*Forest)
		if !ok || f.labels.Len() == 0 || f.features != o.members[0].Features() || f.class+Several != o.class {
			return estimator.Misfit("%s: an output is a %s instead of a forest", strings.TrimSuffix(o.class, Several), e.Class())
		}
		if err := f.Check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Outputs) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	at := 0
	for _, e := range o.members {
		n := e.Outputs(m, x.Cols)
		if err := e.Compute(m, x, ws.View(out, at, n), ws); err != nil {
			return err
		}
		at += n
	}
	return nil
}
