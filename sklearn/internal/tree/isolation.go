package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// IsolationForest is an outlier detector: a decision of at least 0 means an inlier.
type IsolationForest struct {
	Trees
	lengths     []float64 // for each node, the path length to it if it is a leaf
	denominator float64   // the number of trees × the mean path length for the number of samples of each tree
	offset      float64
	// Until release 0.21 a model could have a threshold besides its decision function.
	// In 0.19 a decision at the threshold means an outlier.
	threshold  float64
	tieOutlies bool
	scores     bool // whether score_samples exists
}

// tie is the distance from its threshold up to which a decision counts as equal to it.
// A threshold is often the score of a training row, and powers of 2 differ between
// machines in their last digit, while different path lengths differ by far more.
const tie = 4e-16

// ReadIsolationForest reads the attributes of an IsolationForest from a file.
func ReadIsolationForest(a *estimator.Attributes) estimator.Estimator {
	f := &IsolationForest{tieOutlies: !a.AtLeast(0, 20), scores: a.AtLeast(0, 20), offset: -0.5}
	f.infinite = a.AtLeast(1, 6) // since 1.6, infinite values aren't refused
	g := a.Graph()
	f.features = a.Features()
	list := a.Value("estimators_")
	if f.features == 0 && g.Count(list) > 0 { // 0.19 has the number only in the trees
		first := g.Entries(list)
		v, _ := first.Item()
		a.Nested(v, "a tree of estimators_", func(in *estimator.Attributes) {
			if in.Has("n_features_") {
				f.features = in.Int("n_features_", 1, estimator.MaxFeatures)
			}
		})
	}
	if f.features == 0 || list.Kind() != pickle.KindList || g.Count(list) == 0 {
		a.Fail("n_features_in_ or estimators_ is missing")
		return f
	}
	name := "max_samples_"
	if a.AtLeast(1, 3) {
		name = "_max_samples"
	}
	samples := a.Float(a.FirstOf(name, "_max_samples", "max_samples_"))
	f.denominator = float64(g.Count(list)) * pathLength(samples, !a.AtLeast(0, 21))
	if a.Has("offset_") {
		f.offset = a.Float("offset_")
	}
	if t := a.FirstOf("_threshold_", "threshold_"); a.Has(t) && !a.AtLeast(0, 22) {
		f.threshold = a.Float(t)
	}
	f.expected = g.Count(list)
	var p parsed
	defer p.release(a)
	subsets := g.Entries(a.Value("estimators_features_"))
	for e := g.Entries(list); a.Err() == nil; {
		v, ok := e.Item()
		if !ok {
			break
		}
		var features []float64
		if s, ok := subsets.Item(); ok {
			if features, _ = a.ArrayOf(s, "estimators_features_", true, -1); len(features) == f.features {
				features = nil // all features, so rows needn't be rearranged
			}
			for i := range features {
				features[i] = whole(features[i])
			}
		}
		a.Nested(v, "a tree of estimators_", func(in *estimator.Attributes) { f.addTree(in, &p, features, a) })
	}
	return f
}

// addTree appends a tree with the path length of each leaf: the leaf's depth, plus the
// mean depth that isolating the leaf's samples would take.
func (f *IsolationForest) addTree(a *estimator.Attributes, p *parsed, features []float64, forest *estimator.Attributes) {
	if p.parse(a, a.Value("tree_"), false); a.Err() != nil {
		return
	}
	if features != nil {
		for i := range p.nodes {
			if at := p.nodes[i].feature; int(at) >= len(features) {
				a.Fail("a tree uses feature %v, but there are %d features", at, len(features))
				return
			}
		}
	}
	first := f.count()
	order := f.add(a, p, features, p.missing && f.infinite)
	if f.lengths = f.like(a, f.lengths, 1); a.Err() != nil {
		return
	}
	since, recent := !forest.AtLeast(0, 21), forest.AtLeast(0, 22)
	depth, lefts, lengths := p.depths[:len(order)], f.nodes.Left[first:], f.lengths[first:]
	depth[0] = 0
	for i, at := range order {
		if left := int(lefts[i]) - first; left != i {
			depth[left], depth[left+1], lengths[i] = depth[i]+1, depth[i]+1, 0
		} else if recent {
			lengths[i] = float64(depth[i]+1) + pathLength(p.nodes[at].samples, false) - 1
		} else {
			lengths[i] = float64(depth[i]) + pathLength(p.nodes[at].samples, since)
		}
	}
}

// pathLength is scikit-learn's _average_path_length: the mean depth of a leaf in a
// random tree of n samples. Until release 0.20 it is 1 for one sample.
func pathLength(n float64, old bool) float64 {
	const eulerGamma = 0.577215664901532860606512090082402431
	switch {
	case n <= 1 && old:
		return 1
	case n <= 1:
		return 0
	case n == 2 && !old:
		return 1
	}
	return 2*(math.Log(n-1)+eulerGamma) - 2*(n-1)/n
}

// Class implements estimator.Estimator, as do the methods below.
func (f *IsolationForest) Class() string { return "IsolationForest" }

func (f *IsolationForest) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict || m == estimator.DecisionFunction || (m == estimator.ScoreSamples && f.scores) {
		return 1
	}
	return 0
}

func (f *IsolationForest) Parameters() map[string]any {
	return map[string]any{"trees": f.trees, "nodes": f.size, "offset": f.offset}
}

// outcome returns the path lengths, which are added up.
func (f *IsolationForest) outcome() outcome {
	return outcome{first: zero[:], values: f.lengths, width: 1}
}

var zero [1]float64

func (f *IsolationForest) Fields(c *estimator.Codec) {
	if c.Reading() {
		f.fields(c, &f.lengths)
	} else {
		t, values := f.forRecord(f.outcome())
		t.fields(c, &values)
	}
	c.Float(&f.denominator)
	c.Float(&f.offset)
	c.Float(&f.threshold)
	c.Bool(&f.tieOutlies)
	c.Bool(&f.scores)
}

func (f *IsolationForest) Check() error {
	if !(f.denominator >= 0) {
		return estimator.Misfit("IsolationForest: the mean path length is %v", f.denominator)
	}
	o := f.outcome()
	return f.check(f.Class(), &o)
}

// samples writes score_samples.
func (f *IsolationForest) samples(x *estimator.Block, dst []float64, ws *estimator.Workspace) error {
	o := f.outcome()
	out := ws.Block(x, 1)
	if err := f.sum(f.Class(), x, out, &o, ws); err != nil {
		return err
	}
	copy(dst, f.finish(out.Lanes(0)))
	return nil
}

// finish turns path lengths into scores −2^(−length/denominator).
func (f *IsolationForest) finish(lengths []float64) []float64 {
	if f.denominator == 0 {
		for i := range lengths {
			lengths[i] = -0.5
		}
		return lengths
	}
	kernel.Standardize(lengths, lengths, 0, -f.denominator)
	kernel.Exp2(lengths, lengths)
	for i, v := range lengths {
		lengths[i] = -v
	}
	return lengths
}

func (f *IsolationForest) Decide(x *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	if score == nil {
		score = ws.Floats(x.Rows)
	}
	score = score[:x.Rows]
	if err := f.samples(x, score, ws); err != nil {
		return err
	}
	for i, s := range score {
		d := s - f.offset
		score[i] = d
		if prediction == nil {
			continue
		}
		prediction[i] = 1
		if above := d - f.threshold; above < -tie || (f.tieOutlies && above <= tie) {
			prediction[i] = -1
		}
	}
	return nil
}

func (f *IsolationForest) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	switch m {
	case estimator.Predict:
		return f.Decide(x, out.Col(0), nil, ws)
	case estimator.ScoreSamples:
		return f.samples(x, out.Col(0), ws)
	}
	return f.Decide(x, nil, out.Col(0), ws)
}

// Degenerate implements estimator.Detector. No row has a longer path than the deepest
// leaves of all trees together, or a shorter path than the shallowest leaves.
func (f *IsolationForest) Degenerate() (label int, why string) {
	short, long := f.extremes()
	bounds := []float64{long, short}
	f.finish(bounds)
	switch {
	case bounds[0]-f.offset-f.threshold < -tie:
		return -1, "even a row in the deepest leaf of every tree is an outlier; train it again with less contamination or more varied data"
	case bounds[1]-f.offset-f.threshold > tie:
		return 1, "even a row in the shallowest leaf of every tree is an inlier; train it again with more varied data"
	}
	return 0, ""
}

// extremes returns bounds of the sum of path lengths.
func (f *IsolationForest) extremes() (short, long float64) {
	if len(f.steps.sums) > 0 {
		return f.steps.extremes()
	}
	for t, root := range f.roots {
		end := f.count()
		if t+1 < len(f.roots) {
			end = int(f.roots[t+1])
		}
		low, high := math.Inf(1), 0.0
		for i := int(root); i < end; i++ {
			if f.leaf(i) {
				low, high = min(low, f.lengths[i]), max(high, f.lengths[i])
			}
		}
		long, short = long+high, short+low
	}
	return short, long
}
