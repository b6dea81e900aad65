package estimator

import "github.com/fleetscore/fleetscore/sklearn/internal/pickle"

// LossOf is the class of a fitted loss, the attribute that has the first of the names,
// and its link function: each as scikit-learn calls it, empty where there is none. What
// an estimator predicts goes by these, not by its parameters loss and link.
func (a *Attributes) LossOf(names ...string) (class, link string) {
	g := a.b.Graph
	v := a.Value(a.FirstOf(names...))
	c, state := g.Instance(v)
	if c == nil {
		return "", ""
	}
	for e := g.Entries(state); state.Kind() == pickle.KindDict; {
		key, inner, ok := e.Pair()
		if !ok {
			break
		}
		if string(key) != "link" {
			continue
		}
		if l, _ := g.Instance(inner); l != nil {
			link = l.Name
		}
	}
	return c.Name, link
}
