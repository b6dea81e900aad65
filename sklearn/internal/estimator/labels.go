package estimator

import "strconv"

// Labels are a classifier's classes_.
type Labels struct {
	Values []float64 // the labels if they are numbers; the index from 0 if they are texts
	Texts  []string  // the labels if they are texts, else nil
}

// Len returns the number of labels.
func (l *Labels) Len() int { return len(l.Values) }

// Text returns label i as text.
func (l *Labels) Text(i int) string {
	if l.Texts != nil {
		return l.Texts[i]
	}
	return strconv.FormatFloat(l.Values[i], 'g', -1, 64)
}

// All returns all labels as text.
func (l *Labels) All() []string {
	out := make([]string, l.Len())
	for i := range out {
		out[i] = l.Text(i)
	}
	return out
}

// Fields reads or writes the labels.
func (l *Labels) Fields(c *Codec) {
	c.Floats(&l.Values)
	c.Texts(&l.Texts)
}

// Check checks that there is at least one label, and as many texts as numbers.
func (l *Labels) Check(class string) error {
	if len(l.Values) == 0 || (l.Texts != nil && len(l.Texts) != len(l.Values)) {
		return Misfit("%s: classes_ has %d labels and %d names", class, len(l.Values), len(l.Texts))
	}
	return nil
}

// LabelsOf returns the labels of a classifier or of a pipeline's last step, and nil for
// any other estimator.
func LabelsOf(e Estimator) *Labels {
	for {
		if c, ok := e.(Classifier); ok {
			return c.Labels()
		}
		p, ok := e.(interface{ Chain() []Estimator })
		if !ok {
			return nil
		}
		chain := p.Chain()
		e = chain[len(chain)-1]
	}
}

// Size returns the number of support vectors and nodes in estimators and their parts.
func Size(ests []Estimator) (vectors, nodes int) {
	for _, e := range ests {
		if s, ok := e.(Sized); ok {
			vectors += s.SupportVectors()
			nodes += s.Nodes()
		}
		if p, ok := e.(Parent); ok {
			for _, part := range p.Parts() {
				v, n := Size([]Estimator{part.Est})
				vectors, nodes = vectors+v, nodes+n
			}
		}
	}
	return vectors, nodes
}
