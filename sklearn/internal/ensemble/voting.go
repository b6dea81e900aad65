package ensemble

import (
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// named reads the members that people gave names to. They are in estimators_, and their
// names are in the parameter estimators, which also lists dropped members.
func (g *group) named(a *estimator.Attributes) (weights []float64) {
	g.class, g.features = a.Class, a.Features()
	graph := a.Graph()
	var given []float64
	switch v := a.Value("weights"); {
	case graph.IsArray(v):
		given = a.Vector("weights", -1)
	case v.Kind() == pickle.KindList || v.Kind() == pickle.KindTuple:
		for e := graph.Entries(v); ; {
			w, ok := e.Item()
			if !ok {
				break
			}
			f, ok := graph.Number(w)
			if !ok || f-f != 0 {
				a.Fail("weights holds something other than numbers")
				return nil
			}
			given = append(given, f)
		}
	case v != 0 && v.Kind() != pickle.KindNone:
		a.Fail("weights is %s", graph.Describe(v))
	}
	i := 0
	for e := graph.Entries(a.Value("estimators")); a.Err() == nil; i++ {
		pair, ok := e.Item()
		if !ok {
			break
		}
		items := graph.Entries(pair)
		first, _ := items.Item()
		est, ok := items.Item()
		if !ok {
			a.Fail("estimators holds something other than pairs")
			return nil
		}
		if t, isText := graph.Text(est); est.Kind() == pickle.KindNone || isText && string(t) == "drop" {
			continue
		}
		t, _ := graph.Text(first)
		g.names = append(g.names, pickle.Clean(t))
		if i < len(given) {
			weights = append(weights, given[i])
		}
	}
	n := 0
	for e := graph.Entries(a.Value("estimators_")); a.Err() == nil; n++ {
		v, ok := e.Item()
		if !ok {
			break
		}
		name := ""
		if n < len(g.names) {
			name = g.names[n]
		}
		if m := a.ChildOf(v, name); m != nil {
			g.members = append(g.members, m)
			if g.features == 0 {
				g.features = m.Features()
			}
		}
	}
	if a.Err() == nil && (n == 0 || len(given) > 0 && len(weights) != n) {
		a.Fail("%d models have %d weights", n, len(weights))
	}
	return weights
}

// parts returns the members with their names.
func (g *group) parts() []estimator.Part {
	out := make([]estimator.Part, len(g.members))
	for i, e := range g.members {
		out[i].Est = e
		if i < len(g.names) {
			out[i].Name = g.names[i]
		}
	}
	return out
}

// people is a group whose members are shown as steps.
type people struct{ group }

// SupportVectors returns 0, because the vectors are counted with the parts.
func (p *people) SupportVectors() int { return 0 }

// Nodes returns 0, because the nodes are counted with the parts.
func (p *people) Nodes() int { return 0 }

// Parts implements estimator.Parent.
func (p *people) Parts() []estimator.Part { return p.parts() }

// Voting is VotingClassifier and VotingRegressor: the members' mean, or the majority of
// their votes.
type Voting struct {
	people
	hard    bool
	spread  bool      // transform returns three dimensions
	weights []float64 // nil if all are equal
}

// NewVoting returns an empty Voting for a record to be read into.
func NewVoting(class string) *Voting { return &Voting{people: people{group{class: class}}} }

// ReadVoting reads the attributes of a Voting from a file.
func ReadVoting(a *estimator.Attributes) estimator.Estimator {
	v := NewVoting(a.Class)
	v.weights = v.named(a)
	if a.Class == "VotingClassifier" {
		v.labels = a.Labels("classes_")
		if a.Has("le_") { // predict reads le_
			a.Nested(a.Value("le_"), "le_", func(in *estimator.Attributes) { v.labels = in.Labels("classes_") })
		}
		switch how := a.Text("voting", "hard"); how {
		case "hard":
			v.hard = true
		case "soft":
		default:
			a.Unsupported("voting="+how, "use hard or soft")
		}
		v.spread = !v.hard && !a.Bool("flatten_transform", true)
	}
	return v
}

func (v *Voting) Fields(c *estimator.Codec) {
	v.fields(c)
	c.Bool(&v.hard)
	c.Bool(&v.spread)
	c.Floats(&v.weights)
}

func (v *Voting) Parameters() map[string]any {
	p := v.parameters()
	p["weighted"] = v.weights != nil
	if v.labels.Len() > 0 {
		p["voting"] = "soft"
		if v.hard {
			p["voting"] = "hard"
		}
	}
	return p
}

func (v *Voting) Check() error {
	if err := v.check(false); err != nil {
		return err
	}
	if v.weights != nil && len(v.weights) != len(v.members) {
		return estimator.Misfit("%s: %d weights for %d models", v.class, len(v.weights), len(v.members))
	}
	if v.labels.Len() > 0 {
		if err := v.places(); err != nil {
			return err
		}
		for _, e := range v.members {
			if l := estimator.LabelsOf(e); v.hard && l != nil && l.Texts != nil {
				return refusal.Of(refusal.Refusal{Reason: refusal.Parameter, Class: v.class, Parameter: "voting"},
					"%s: voting=\"hard\" with a %s that was fitted on text labels is not supported, and scikit-learn can't count these votes either", v.class, e.Class()).
					WithHint("use voting=\"soft\", or don't freeze it")
			}
		}
	}
	method, want := v.method()
	for _, e := range v.members {
		if n := e.Outputs(method, max(1, v.features)); n != want || v.labels.Len() > 0 && estimator.LabelsOf(e) == nil {
			return estimator.Misfit("%s: %s of %s returns %d columns instead of %d", v.class, method, e.Class(), n, want)
		}
	}
	return nil
}

// method returns the method of the members that is used, and its number of columns.
func (v *Voting) method() (estimator.Method, int) {
	if v.labels.Len() > 0 && !v.hard {
		return estimator.PredictProba, v.labels.Len()
	}
	return estimator.Predict, 1
}

func (v *Voting) Outputs(m estimator.Method, _ int) int {
	_, cols := v.method()
	switch {
	case m == estimator.Predict:
		return 1
	case m == estimator.PredictProba && v.labels.Len() > 0 && !v.hard:
		return cols
	case m == estimator.Transform && !v.spread:
		return cols * len(v.members)
	}
	return 0
}

func (v *Voting) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	method, cols := v.method()
	all := out
	if m != estimator.Transform {
		all = ws.Block(x, cols*len(v.members))
	}
	for i, e := range v.members {
		if err := e.Compute(method, x, ws.View(all, i*cols, cols), ws); err != nil {
			return err
		}
	}
	switch {
	case m == estimator.Transform:
		return nil
	case v.labels.Len() == 0 || m == estimator.PredictProba:
		v.mean(all, out)
	case v.hard:
		votes := ws.Block(x, v.labels.Len())
		clear(votes.X)
		for i := range v.members {
			for r, p := range all.Col(i) {
				votes.X[int(p)*votes.Stride+r] += v.weight(i)
			}
		}
		largest(votes, out.Col(0), &v.labels)
	default:
		mean := ws.Block(x, cols)
		v.mean(all, mean)
		largest(mean, out.Col(0), &v.labels)
	}
	return nil
}

func (v *Voting) weight(i int) float64 {
	if v.weights == nil {
		return 1
	}
	return v.weights[i]
}

// mean writes np.average over the members.
func (v *Voting) mean(all, out *estimator.Block) {
	total := 0.0
	for i := range v.members {
		total += v.weight(i)
	}
	for c := range out.Cols {
		dst := out.Col(c)
		clear(dst)
		for i := range v.members {
			w := v.weight(i)
			for r, p := range all.Col(i*out.Cols + c) {
				dst[r] += float64(p * w)
			}
		}
		for r := range dst {
			dst[r] /= total
		}
	}
}

// Stacking is StackingClassifier and StackingRegressor: a final model whose features
// are the other models' predictions.
type Stacking struct {
	people
	methods     []int32 // for each member
	final       estimator.Estimator
	passthrough bool
}

// NewStacking returns an empty Stacking for a record to be read into.
func NewStacking(class string) *Stacking { return &Stacking{people: people{group{class: class}}} }

// ReadStacking reads the attributes of a Stacking from a file.
func ReadStacking(a *estimator.Attributes) estimator.Estimator {
	s := NewStacking(a.Class)
	s.named(a)
	s.passthrough = a.Bool("passthrough", false)
	if a.Class == "StackingClassifier" {
		s.labels = a.Labels("classes_")
		if a.Has("_label_encoder") { // predict reads _label_encoder
			a.Nested(a.Value("_label_encoder"), "_label_encoder", func(in *estimator.Attributes) { s.labels = in.Labels("classes_") })
		}
	}
	g := a.Graph()
	for e := g.Entries(a.Value("stack_method_")); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		t, ok := g.Text(v)
		if !ok {
			continue // this member was dropped
		}
		method := -1
		for m := range estimator.Methods {
			if m.String() == string(t) {
				method = int(m)
			}
		}
		if method < 0 {
			a.Unsupported("stack_method="+pickle.Clean(t), "use auto")
		}
		s.methods = append(s.methods, int32(method))
	}
	s.final = a.Child("final_estimator_")
	return s
}

func (s *Stacking) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Int32s(&s.methods)
	c.Child(&s.final)
	c.Bool(&s.passthrough)
}

func (s *Stacking) Parameters() map[string]any {
	p := s.parameters()
	p["passthrough"] = s.passthrough
	return p
}

func (s *Stacking) Parts() []estimator.Part {
	return append(s.parts(), estimator.Part{Name: "final_estimator_", Est: s.final})
}

// given returns how many columns member i writes, and the first column that is used.
// For the probabilities of two classes, only the second column is used.
func (s *Stacking) given(i int) (n, from int) {
	m := estimator.Method(s.methods[i])
	n = s.members[i].Outputs(m, max(1, s.features))
	if m == estimator.PredictProba && s.labels.Len() == 2 {
		from = 1
	}
	return n, from
}

// width returns the number of columns that the final model takes.
func (s *Stacking) width() int {
	total := 0
	for i := range s.members {
		n, from := s.given(i)
		total += n - from
	}
	if s.passthrough {
		total += s.features
	}
	return total
}

func (s *Stacking) Check() error {
	if err := s.check(false); err != nil {
		return err
	}
	if len(s.methods) != len(s.members) || s.final == nil || (s.passthrough && s.features < 1) {
		return estimator.Misfit("%s: %d methods for %d models", s.class, len(s.methods), len(s.members))
	}
	for i, m := range s.methods {
		if m < 0 || m >= int32(estimator.Methods) {
			return estimator.Misfit("%s: method %d", s.class, m)
		}
		if n, from := s.given(i); n <= from {
			return estimator.Misfit("%s: %s has no %s", s.class, s.members[i].Class(), estimator.Method(m))
		}
	}
	if n := s.final.Features(); n > 0 && n != s.width() || s.final.Outputs(estimator.Predict, s.width()) != 1 || s.width() > estimator.MaxFeatures {
		return estimator.Misfit("%s: %s takes %d features, but gets %d", s.class, s.final.Class(), n, s.width())
	}
	if s.labels.Len() == 0 {
		return nil
	}
	l := estimator.LabelsOf(s.final)
	if l == nil {
		return estimator.Misfit("%s: %s isn't a classifier", s.class, s.final.Class())
	}
	last := group{class: s.class, labels: s.labels, members: []estimator.Estimator{s.final}}
	return last.places()
}

func (s *Stacking) Outputs(m estimator.Method, _ int) int {
	switch {
	case m == estimator.Transform:
		return s.width()
	case m == estimator.Predict, s.labels.Len() > 0 && (m == estimator.PredictProba || m == estimator.DecisionFunction):
		return s.final.Outputs(m, s.width())
	}
	return 0
}

func (s *Stacking) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	seen := out
	if m != estimator.Transform {
		seen = ws.Block(x, s.width())
	}
	at := 0
	for i, e := range s.members {
		n, from := s.given(i)
		one := ws.Block(x, n)
		if err := e.Compute(estimator.Method(s.methods[i]), x, one, ws); err != nil {
			return err
		}
		for c := from; c < n; c++ {
			copy(seen.Lanes(at), one.Lanes(c))
			at++
		}
	}
	if s.passthrough {
		for c := range x.Cols {
			copy(seen.Lanes(at+c), x.Lanes(c))
		}
	}
	if m == estimator.Transform {
		return nil
	}
	err := s.final.Compute(m, seen, out, ws)
	if err == nil && m == estimator.Predict && s.labels.Len() > 0 {
		dst := out.Col(0)
		for r, v := range dst {
			dst[r] = s.labels.Values[int(v)]
		}
	}
	return err
}
