package estimator

import "strconv"

// Labels are a classifier's classes_.
type Labels struct {
	Values []float64 // numbers; of text labels the place, from 0
	Texts  []string  // of text labels; else nil
}

// Len is how many there are.
func (l *Labels) Len() int { return len(l.Values) }

// Text is label i as people read it.
func (l *Labels) Text(i int) string {
	if l.Texts != nil {
		return l.Texts[i]
	}
	return strconv.FormatFloat(l.Values[i], 'g', -1, 64)
}

// All are the labels as people read them.
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

// Check judges them: there is at least one, and texts are as many as numbers.
func (l *Labels) Check(class string) error {
	if len(l.Values) == 0 || (l.Texts != nil && len(l.Texts) != len(l.Values)) {
		return Misfit("%s: classes_ has %d labels and %d names", class, len(l.Values), len(l.Texts))
	}
	return nil
}

// LabelsOf are those of a classifier, or of a pipeline's last step; nil for
// anything else.
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

// Size adds up the support vectors and the nodes of estimators and their parts.
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
