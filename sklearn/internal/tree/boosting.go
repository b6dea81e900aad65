package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// GradientBoosting is GradientBoostingClassifier and GradientBoostingRegressor: a first
// guess plus the sum of the trees' values.
type GradientBoosting struct {
	Trees
	class       string
	labels      estimator.Labels
	first       []float64 // one for each column of raw predictions
	values      []float64 // one for each node, times the learning rate; tree t adds to column t mod len(first)
	exponential bool
	tieIsSecond bool // a raw prediction of 0 means the second class
}

// NewGradientBoosting returns an empty GradientBoosting for a record to be read into.
func NewGradientBoosting(class string) *GradientBoosting { return &GradientBoosting{class: class} }

// ReadGradientBoosting reads the attributes of a GradientBoosting from a file.
func ReadGradientBoosting(a *estimator.Attributes) estimator.Estimator {
	b := NewGradientBoosting(a.Class)
	g := a.Graph()
	if b.features = a.Features(); b.features == 0 {
		a.Fail("n_features_in_ is missing")
		return b
	}
	if a.Class == "GradientBoostingClassifier" {
		b.labels = a.Labels("classes_")
	}
	loss, _ := a.LossOf("_loss", "loss_")
	b.exponential = loss == "ExponentialLoss"
	b.tieIsSecond = b.exponential || a.AtLeast(1, 4)
	arr, err := g.Array(a.Value("estimators_"))
	if err != nil || arr.Dims != 2 || arr.Size() == 0 {
		a.Fail("estimators_ isn't a table of trees")
		return b
	}
	width := arr.Shape[1]
	a.Agrees("n_trees_per_iteration_", width)
	b.firstGuess(a, width)
	rate := a.Float("learning_rate")
	trees, err := g.Objects(&arr)
	if err != nil {
		a.Fail("estimators_ %w", err)
	}
	b.expected = arr.Size()
	var p parsed
	defer p.release(a)
	for a.Err() == nil {
		v, ok := trees.Item()
		if !ok {
			break
		}
		a.Nested(v, "a tree of estimators_", func(in *estimator.Attributes) {
			p.parse(in, in.Value("tree_"), true)
			if in.Err() == nil && p.width != 1 {
				in.Fail("a tree has %d values per leaf", p.width)
			}
			first := b.count()
			order := b.add(in, &p, nil, false)
			if b.values = b.like(in, b.values, 1); in.Err() != nil {
				return
			}
			for i, at := range order {
				if p.nodes[at].leaf() {
					b.values[first+i] = rate * p.values[at]
				}
			}
		})
	}
	return b
}

// firstGuess reads init_: a number for each column of raw predictions.
func (b *GradientBoosting) firstGuess(a *estimator.Attributes, width int) {
	g := a.Graph()
	if err := g.Charge(8 * width); err != nil {
		a.Fail("%w", err)
		return
	}
	b.first = make([]float64, width)
	v := a.Value("init_")
	if t, ok := g.Text(v); ok && string(t) == "zero" {
		return
	}
	class, _ := g.Instance(v)
	if class == nil {
		a.Fail("init_ is %s", g.Describe(v))
		return
	}
	a.Nested(v, "init_", func(in *estimator.Attributes) {
		switch class.Name {
		case "DummyClassifier":
			if s := in.Text("strategy", ""); s != "prior" {
				in.Unsupported("init with strategy="+s, "use init=None or init=\"zero\"")
				return
			}
			b.link(in.Vector("class_prior_", b.labels.Len()), a.AtLeast(1, 4))
		case "DummyRegressor":
			c, _ := in.ArrayOf(in.Value("constant_"), "constant_", true, 1, 1)
			copy(b.first, c)
		case "LogOddsEstimator", "ScaledLogOddsEstimator": // until 0.20, like the case below
			b.first[0] = in.Float("prior")
		case "PriorProbabilityEstimator":
			copy(b.first, in.Vector("priors", width))
		case "MeanEstimator":
			b.first[0] = in.Float("mean")
		case "QuantileEstimator":
			b.first[0] = in.Float("quantile")
		case "ZeroEstimator":
		default:
			in.Unsupported("init="+class.Name, "use init=None or init=\"zero\"")
		}
	})
}

// link turns the probabilities of the classes into raw predictions.
func (b *GradientBoosting) link(p []float64, recent bool) {
	if len(p) != b.labels.Len() || len(p) < 2 {
		return // the error is recorded already
	}
	eps := 0x1p-23 // the precision of float32, until 1.4
	if recent {
		eps = 0x1p-52
	}
	for i, v := range p {
		p[i] = min(max(v, eps), 1-eps)
	}
	if len(b.first) == 1 {
		b.first[0] = math.Log(p[1] / (1 - p[1]))
		if b.exponential {
			b.first[0] *= 0.5
		}
		return
	}
	mean := 0.0
	if recent { // shifted so that the sum is 0
		for _, v := range p {
			mean += math.Log(v) / float64(len(p))
		}
	}
	for i := range b.first {
		b.first[i] = math.Log(p[i]) - mean
	}
}

// Class implements estimator.Estimator, as do the methods below.
func (b *GradientBoosting) Class() string { return b.class }

// Labels returns nil for regressors.
func (b *GradientBoosting) Labels() *estimator.Labels {
	if b.labels.Len() == 0 {
		return nil
	}
	return &b.labels
}

func (b *GradientBoosting) Outputs(m estimator.Method, _ int) int {
	switch {
	case m == estimator.Predict:
		return 1
	case m == estimator.DecisionFunction && b.labels.Len() > 0:
		return len(b.first)
	case (m == estimator.PredictProba || m == estimator.PredictLogProba) && b.labels.Len() > 0:
		return b.labels.Len()
	}
	return 0
}

func (b *GradientBoosting) Parameters() map[string]any {
	p := map[string]any{"trees": b.trees, "nodes": b.size}
	if n := b.labels.Len(); n > 0 {
		p["classes"] = n
	}
	return p
}

func (b *GradientBoosting) outcome() outcome {
	return outcome{first: b.first, values: b.values, width: 1}
}

func (b *GradientBoosting) Fields(c *estimator.Codec) {
	b.labels.Fields(c)
	c.Floats(&b.first)
	c.Bool(&b.exponential)
	c.Bool(&b.tieIsSecond)
	if c.Reading() {
		b.fields(c, &b.values)
	} else {
		t, values := b.forRecord(b.outcome())
		t.fields(c, &values)
	}
}

func (b *GradientBoosting) Check() error {
	o := b.outcome()
	if err := b.check(b.class, &o); err != nil {
		return err
	}
	k, n := b.labels.Len(), len(b.first)
	if n == 0 || (k == 0 && n != 1) || (k > 0 && k != n && (k != 2 || n != 1)) || b.trees%n != 0 {
		return estimator.Misfit("%s: %d trees with %d columns don't fit %d classes", b.class, b.trees, n, k)
	}
	if k > 0 {
		return b.labels.Check(b.class)
	}
	return nil
}

func (b *GradientBoosting) raw(x, out *estimator.Block, ws *estimator.Workspace) error {
	o := b.outcome()
	return b.sum(b.class, x, out, &o, ws)
}

// Choose implements estimator.Chooser.
func (b *GradientBoosting) Choose(raw *estimator.Block, label []float64) {
	estimator.Choose(raw, label, &b.labels)
	if raw.Cols == 1 && b.tieIsSecond {
		for i, v := range raw.Col(0) {
			if v == 0 {
				label[i] = b.labels.Values[1]
			}
		}
	}
}

func (b *GradientBoosting) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if b.labels.Len() == 0 || m == estimator.DecisionFunction {
		return b.raw(x, out, ws)
	}
	raw := ws.Block(x, len(b.first))
	if err := b.raw(x, raw, ws); err != nil {
		return err
	}
	if m == estimator.Predict {
		b.Choose(raw, out.Col(0))
		return nil
	}
	if raw.Cols > 1 {
		estimator.Softmax(raw, out)
	} else {
		if b.exponential {
			for i, v := range raw.Col(0) {
				raw.Col(0)[i] = 2 * v
			}
		}
		estimator.Logistic(raw, out, true)
	}
	if m == estimator.PredictLogProba {
		estimator.Log(out)
	}
	return nil
}
