package estimator

import "github.com/fleetscore/fleetscore/sklearn/internal/pickle"

// OwnMethod refuses an attribute with the name of a method, unless it is the
// estimator's own method: some releases write it as an attribute.
func (a *Attributes) OwnMethod(name string) {
	g := a.b.Graph
	v := a.Value(name)
	if v == 0 {
		return
	}
	class, args, _ := g.Call(v)
	if class != nil && class.Name == "getattr" && len(args) == 2 && args[0] == a.self {
		if t, ok := g.Text(args[1]); ok && string(t) == name {
			return
		}
	}
	a.unknown = name
	a.judge(a.Class)
}

// LossOf returns the class of a fitted loss and of its link function, in scikit-learn's
// notation, or "" if there is none. The loss is in the attribute with the first of the
// names. Predictions depend on the fitted loss, not on the parameters loss and link.
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
