package tree

import (
	"math"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Forest is one tree, or several trees whose leaves' values are averaged: DecisionTree,
// ExtraTree, RandomForest and ExtraTrees, each as classifier and regressor.
type Forest struct {
	Trees
	class  string
	width  int              // the number of values in a leaf: classes, or outputs
	labels estimator.Labels // for classifiers
	values []float64        // nodes × width; the values of inner nodes are 0
	zeros  []float64        // as many as width
}

// NewForest returns an empty Forest for a record to be read into.
func NewForest(class string) *Forest { return &Forest{class: class} }

// ReadForest reads the attributes of a forest or a single tree.
func ReadForest(a *estimator.Attributes) estimator.Estimator {
	f := NewForest(a.Class)
	g := a.Graph()
	if f.features = a.Features(); f.features == 0 {
		a.Fail("n_features_ is missing")
		return f
	}
	classifier := strings.HasSuffix(a.Class, "Classifier") // until 0.20, regressors have a list of None
	if v := a.Value("classes_"); classifier && v.Kind() == pickle.KindList {
		return readOutputs(a)
	}
	if classifier {
		f.labels = a.Labels("classes_")
		a.Agrees("n_classes_", f.labels.Len())
	}
	var p parsed
	defer p.release(a)
	if a.Has("tree_") {
		f.addTree(a, a, &p, a.Value("tree_"))
		f.agree(a)
		return f
	}
	list := a.Value("estimators_")
	if list.Kind() != pickle.KindList || g.Count(list) == 0 {
		a.Fail("estimators_ is missing or empty")
		return f
	}
	f.expected = g.Count(list)
	for e := g.Entries(list); ; {
		v, ok := e.Item()
		if !ok || a.Err() != nil {
			f.agree(a)
			return f
		}
		a.Nested(v, "a tree of estimators_", func(in *estimator.Attributes) { f.addTree(in, a, &p, in.Value("tree_")) })
	}
}

// agree checks n_outputs_.
func (f *Forest) agree(a *estimator.Attributes) {
	outputs := 1
	if f.labels.Len() == 0 {
		outputs = f.width
	}
	a.Agrees("n_outputs_", outputs)
}

// takesNaN reports whether scikit-learn accepts NaN for such trees. This depends on
// splitter, criterion and release: since 1.3 for trees with best splits, since 1.4 for
// forests of such trees, since 1.6 for all trees with random splits; until 1.9 only for
// some criteria.
func (f *Forest) takesNaN(a *estimator.Attributes) bool {
	splitter := a.Text("splitter", "")
	fits := false
	switch f.class {
	case "DecisionTreeClassifier", "DecisionTreeRegressor":
		fits = a.AtLeast(1, 6) || a.AtLeast(1, 3) && splitter == "best"
	case "RandomForestClassifier", "RandomForestRegressor":
		fits = a.AtLeast(1, 4)
	case "ExtraTreesClassifier", "ExtraTreesRegressor":
		fits = a.AtLeast(1, 6)
	default: // ExtraTreeClassifier and ExtraTreeRegressor; for the regressor, 1.6 doesn't check the splitter
		best := a.AtLeast(1, 3) && !a.AtLeast(1, 6) || a.AtLeast(1, 6) && !a.AtLeast(1, 7) && f.class == "ExtraTreeRegressor"
		fits = splitter == "best" && best || splitter == "random" && a.AtLeast(1, 6)
	}
	if !fits || a.Has("monotonic_cst") && !a.AtLeast(1, 9) {
		return false
	}
	if a.AtLeast(1, 9) {
		return true
	}
	switch a.Text("criterion", "") {
	case "gini", "log_loss", "entropy":
		return f.labels.Len() > 0
	case "squared_error", "friedman_mse", "poisson":
		return f.labels.Len() == 0
	}
	return false
}

func (f *Forest) addTree(a, forest *estimator.Attributes, p *parsed, v pickle.Value) {
	if p.parse(a, v, true); a.Err() == nil {
		f.addParsed(a, forest, p)
	}
}

// addParsed appends a tree.
func (f *Forest) addParsed(a, forest *estimator.Attributes, p *parsed) {
	if classes := f.labels.Len(); classes > 0 && (p.outputs != 1 || p.width != classes) {
		a.Fail("a tree has %d values per leaf, but there are %d classes", p.width, classes)
		return
	} else if classes == 0 && p.width != p.outputs {
		a.Fail("a tree of a regressor has %d values per leaf, but %d outputs", p.width, p.outputs)
		return
	}
	if f.width == 0 {
		f.width = p.width
	}
	if f.width != p.width {
		a.Fail("the trees have different numbers of outputs: %d and %d", f.width, p.width)
		return
	}
	first := f.count()
	order := f.add(a, p, nil, p.missing && f.takesNaN(forest))
	if f.values = f.like(a, f.values, f.width); a.Err() != nil { // the new values are zeros, because the memory is new
		return
	}
	counts := f.labels.Len() > 0 && !a.AtLeast(1, 4) // since 1.4 the values are fractions
	for i, at := range order {
		if !p.nodes[at].leaf() {
			continue
		}
		to := f.values[(first+i)*f.width : (first+i+1)*f.width]
		copy(to, p.values[int(at)*f.width:])
		if counts {
			best := top(to)
			fractions(to)
			if a == forest { // a single tree
				prefer(to, best)
			}
		}
	}
}

// top returns the index of the largest value, the first one if several are equal.
func top(x []float64) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// prefer makes a value the largest by its last digit if division rounded it to the same
// as a value before it: a single tree predicts by its counts.
func prefer(x []float64, best int) {
	for top(x) != best {
		x[best] = math.Nextafter(x[best], 2)
	}
}

// fractions divides the values by their sum.
func fractions(x []float64) {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	if sum == 0 {
		sum = 1
	}
	for i := range x {
		x[i] /= sum
	}
}

// Class implements estimator.Estimator, as do the methods below.
func (f *Forest) Class() string { return f.class }

// Labels returns nil for regressors.
func (f *Forest) Labels() *estimator.Labels {
	if f.labels.Len() == 0 {
		return nil
	}
	return &f.labels
}

func (f *Forest) Outputs(m estimator.Method, _ int) int {
	switch {
	case m == estimator.Predict && f.labels.Len() > 0:
		return 1
	case m == estimator.Predict:
		return f.width
	case (m == estimator.PredictProba || m == estimator.PredictLogProba) && f.labels.Len() > 0:
		return f.width
	}
	return 0
}

func (f *Forest) Parameters() map[string]any {
	p := map[string]any{"trees": f.trees, "nodes": f.size}
	if n := f.labels.Len(); n > 0 {
		p["classes"] = n
	}
	return p
}

// outcome returns the leaves' values, which are added up.
func (f *Forest) outcome() outcome {
	return outcome{first: f.zeros, values: f.values, width: f.width}
}

func (f *Forest) Fields(c *estimator.Codec) {
	c.Int(&f.width)
	f.labels.Fields(c)
	if c.Reading() {
		f.fields(c, &f.values)
	} else {
		t, values := f.forRecord(f.outcome())
		t.fields(c, &values)
	}
}

func (f *Forest) Check() error {
	if f.width < 1 || f.width > 1<<20 || (f.labels.Len() > 0 && f.labels.Len() != f.width) {
		return estimator.Misfit("%s: %d values per node", f.class, f.width)
	}
	if len(f.zeros) != f.width {
		f.zeros = make([]float64, f.width)
	}
	o := f.outcome()
	if err := f.check(f.class, &o); err != nil {
		return err
	}
	if f.labels.Len() > 0 {
		return f.labels.Check(f.class)
	}
	return nil
}

// mean writes the leaves' values, averaged over the trees in their order.
func (f *Forest) mean(x, out *estimator.Block, ws *estimator.Workspace) error {
	o := f.outcome()
	if err := f.sum(f.class, x, out, &o, ws); err != nil {
		return err
	}
	if f.trees > 1 {
		for k := range f.width {
			kernel.Standardize(out.Lanes(k), out.Lanes(k), 0, float64(f.trees))
		}
	}
	return nil
}

// Choose implements estimator.Chooser for classifiers.
func (f *Forest) Choose(p *estimator.Block, label []float64) {
	if f.width == 1 {
		for i := range label {
			label[i] = f.labels.Values[0]
		}
		return
	}
	estimator.Choose(p, label, &f.labels)
}

func (f *Forest) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if f.labels.Len() == 0 {
		return f.mean(x, out, ws)
	}
	if m == estimator.Predict {
		p := ws.Block(x, f.width)
		if err := f.mean(x, p, ws); err != nil {
			return err
		}
		f.Choose(p, out.Col(0))
		return nil
	}
	err := f.mean(x, out, ws)
	if m == estimator.PredictLogProba {
		estimator.Log(out)
	}
	return err
}
