package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// HistGradientBoosting is HistGradientBoostingClassifier and
// HistGradientBoostingRegressor. Its trees compare float64 values, and every node has a
// side for NaN.
type HistGradientBoosting struct {
	class    string
	features int
	labels   estimator.Labels
	baseline []float64 // one for each column of raw predictions
	logLink  bool      // predictions are e^raw
	trees    int       // tree t adds to column t mod len(baseline)
	size     int       // the number of nodes
	nodes    kernel.WideNodes
	roots    []uint32
	depths   []uint32
	nanLeft  []uint32 // one bit for each node
	values   []float64
	steps    steps[uint64] // for one feature, in native records; then there are no nodes
}

// NewHistGradientBoosting returns an empty HistGradientBoosting for a record to be read into.
func NewHistGradientBoosting(class string) *HistGradientBoosting {
	return &HistGradientBoosting{class: class}
}

// ReadHistGradientBoosting reads the attributes of a HistGradientBoosting from a file.
func ReadHistGradientBoosting(a *estimator.Attributes) estimator.Estimator {
	h := NewHistGradientBoosting(a.Class)
	g := a.Graph()
	if h.features = a.Features(); h.features == 0 {
		h.features = a.Int("_n_features", 1, estimator.MaxFeatures)
	}
	if a.Has("is_categorical_") && a.Count("is_categorical_") > 0 {
		a.Unsupported("categorical features", "train it with categorical_features=None, with categories as numbers in a useful order")
		return h
	}
	if a.Class == "HistGradientBoostingClassifier" {
		h.labels = a.Labels("classes_")
	}
	switch loss, link := a.LossOf("_loss", "loss_"); { // the name is loss_ until 0.24
	case link == "LogLink", loss == "Poisson": // before 1.1 a loss includes its link
		h.logLink = true
	case loss == "":
		a.Fail("_loss is missing")
	}
	v := a.Value("_baseline_prediction")
	if f, ok := g.Number(v); ok {
		h.baseline = []float64{f}
	} else if arr, err := g.Array(v); err != nil {
		a.Fail("_baseline_prediction %w", err)
	} else if h.baseline, err = g.Floats(&arr, true); err != nil {
		a.Fail("_baseline_prediction %w", err)
	}
	for iterations := g.Entries(a.Value("_predictors")); a.Err() == nil; {
		v, ok := iterations.Item()
		if !ok {
			break
		}
		n := 0
		for trees := g.Entries(v); a.Err() == nil; n++ {
			t, ok := trees.Item()
			if !ok {
				break
			}
			a.Nested(t, "a tree of _predictors", func(in *estimator.Attributes) { h.addTree(in) })
		}
		if n != len(h.baseline) {
			a.Fail("an iteration has %d trees, but there are %d columns", n, len(h.baseline))
		}
	}
	a.Agrees("n_trees_per_iteration_", len(h.baseline))
	a.Unset("_in_fit")
	a.OwnMethod("_raw_predict") // since 1.4, early stopping with a scorer leaves this attribute
	return h
}

func (h *HistGradientBoosting) addTree(a *estimator.Attributes) {
	g := a.Graph()
	arr, err := g.Array(a.Value("nodes"))
	if err != nil {
		a.Fail("the nodes of a tree: %w", err)
		return
	}
	if !g.HasField(&arr, "missing_go_to_left") {
		a.Unsupported("a file from before 0.22", "train it with a newer scikit-learn")
		return
	}
	var value, column, threshold, nanLeft, left, right, leaf, categorical []float64
	name := "num_threshold"
	if !g.HasField(&arr, name) {
		name = "threshold" // the name until 0.24
	}
	for _, f := range [...]struct {
		name string
		to   *[]float64
	}{{"value", &value}, {"feature_idx", &column}, {name, &threshold}, {"missing_go_to_left", &nanLeft}, {"left", &left}, {"right", &right}, {"is_leaf", &leaf}, {"is_categorical", &categorical}} {
		if f.name == "is_categorical" && !g.HasField(&arr, f.name) {
			categorical = make([]float64, len(leaf)) // until 0.24 there are no categories
			continue
		}
		if *f.to, err = g.Field(&arr, f.name); err != nil {
			a.Fail("the nodes of a tree: %w", err)
			return
		}
	}
	n, first := len(value), len(h.values)
	if n == 0 || first+n > maxNodes {
		a.Fail("a tree has %d nodes", n)
		return
	}
	h.roots = append(h.roots, uint32(first))
	order := append(make([]int32, 0, n), 0)
	level, depth := 1, uint32(0) // level is the start of the next level
	for i := 0; i < len(order); i++ {
		if i == level {
			level = len(order)
			depth++
		}
		at := order[i]
		bit := first + i
		for len(h.nanLeft) <= bit/32 {
			h.nanLeft = append(h.nanLeft, 0)
		}
		if leaf[at] != 0 {
			h.add(math.MaxUint64, value[at], 0, uint32(bit))
			continue
		}
		if categorical[at] != 0 {
			a.Unsupported("categorical features", "train it with categorical_features=None, with categories as numbers in a useful order")
			return
		}
		l, r, c := left[at], right[at], column[at]
		if l != float64(int32(l)) || r != float64(int32(r)) || l <= 0 || r <= 0 || int(l) >= n || int(r) >= n || len(order)+2 > n ||
			c != float64(int32(c)) || c < 0 || int(c) >= h.features || threshold[at] != threshold[at] {
			a.Fail("node %d of a tree has the children %v and %v and the feature %v", at, l, r, c)
			return
		}
		if nanLeft[at] != 0 {
			h.nanLeft[bit/32] |= 1 << (bit % 32)
		}
		h.add(kernel.WideKey(threshold[at]), 0, uint32(c), uint32(first+len(order)))
		order = append(order, int32(l), int32(r))
	}
	if len(order) != n {
		a.Fail("a tree with %d nodes has %d nodes that can't be reached", n, n-len(order))
		return
	}
	h.depths = append(h.depths, depth)
	h.trees, h.size = len(h.roots), len(h.values)
	g.Refund(8 * 8 * n)
	if err := g.Charge(2 * 24 * n); err != nil {
		a.Fail("%w", err)
	}
}

func (h *HistGradientBoosting) add(threshold uint64, value float64, column, left uint32) {
	n := &h.nodes
	n.Thresholds, n.Columns, n.Left = append(n.Thresholds, threshold), append(n.Columns, kernel.WideColumnFactor*column), append(n.Left, left)
	h.values = append(h.values, value)
}

// Class implements estimator.Estimator, as do the methods below.
func (h *HistGradientBoosting) Class() string { return h.class }

func (h *HistGradientBoosting) Features() int       { return h.features }
func (h *HistGradientBoosting) SupportVectors() int { return 0 }
func (h *HistGradientBoosting) Nodes() int          { return h.size }

// Labels returns nil for regressors.
func (h *HistGradientBoosting) Labels() *estimator.Labels {
	if h.labels.Len() == 0 {
		return nil
	}
	return &h.labels
}

func (h *HistGradientBoosting) Outputs(m estimator.Method, _ int) int {
	switch {
	case m == estimator.Predict:
		return 1
	case m == estimator.DecisionFunction && h.labels.Len() > 0:
		return len(h.baseline)
	case m == estimator.PredictProba && h.labels.Len() > 0:
		return h.labels.Len()
	}
	return 0
}

func (h *HistGradientBoosting) Parameters() map[string]any {
	p := map[string]any{"trees": h.trees, "nodes": h.size}
	if n := h.labels.Len(); n > 0 {
		p["classes"] = n
	}
	return p
}

func (h *HistGradientBoosting) outcome() outcome {
	return outcome{first: h.baseline, values: h.values, width: 1}
}

func (h *HistGradientBoosting) Fields(c *estimator.Codec) {
	if c.Reading() {
		h.fields(c)
		return
	}
	w := *h
	if o := h.outcome(); h.features == 1 && len(h.values) > 0 {
		key := [1]uint64{math.MaxUint64}
		nan := func(tree int) uint32 { return h.walkRow(tree, key[:]) }
		if s := sweep(h.nodes.Thresholds, h.nodes.Left, h.roots, &o, maxSweep, nan); len(s.sums) > 0 {
			w.steps, w.nodes, w.roots, w.depths, w.nanLeft, w.values = s, kernel.WideNodes{}, nil, nil, nil, nil
		}
	}
	w.fields(c)
}

func (h *HistGradientBoosting) fields(c *estimator.Codec) {
	h.labels.Fields(c)
	c.Floats(&h.baseline)
	c.Bool(&h.logLink)
	c.Int(&h.features)
	c.Int(&h.trees)
	c.Int(&h.size)
	c.Uint64s(&h.nodes.Thresholds)
	c.Uint32s(&h.nodes.Columns)
	c.Uint32s(&h.nodes.Left)
	c.Uint32s(&h.roots)
	c.Uint32s(&h.depths)
	c.Uint32s(&h.nanLeft)
	c.Floats(&h.values)
	h.steps.fields(c)
}

func (h *HistGradientBoosting) Check() error {
	width, k := len(h.baseline), h.labels.Len()
	if h.features < 1 || h.features > estimator.MaxFeatures || width == 0 || h.trees%width != 0 || (k == 0 && width != 1) || (k > 0 && k != width && (k != 2 || width != 1)) {
		return estimator.Misfit("%s: %d trees with %d columns don't fit %d classes", h.class, h.trees, width, k)
	}
	if len(h.steps.sums) > 0 {
		if h.features != 1 || len(h.values) > 0 || !h.steps.fit(width) || !h.steps.takesNaN() {
			return estimator.Misfit("%s: the steps don't fit together", h.class)
		}
	} else if err := h.checkNodes(); err != nil {
		return err
	}
	if k > 0 {
		return h.labels.Check(h.class)
	}
	return nil
}

func (h *HistGradientBoosting) checkNodes() error {
	n := len(h.values)
	if h.size != n || n > maxNodes || len(h.nodes.Thresholds) != n || len(h.nodes.Columns) != n || len(h.nodes.Left) != n || len(h.nanLeft) < (n+31)/32 ||
		len(h.roots) != h.trees || len(h.depths) != h.trees {
		return estimator.Misfit("%s: the shapes of the %d trees don't fit together", h.class, h.trees)
	}
	for t, root := range h.roots {
		end := uint32(n)
		if t+1 < len(h.roots) {
			end = h.roots[t+1]
		}
		if root >= end || end > uint32(n) || h.depths[t] >= end-root {
			return estimator.Misfit("%s: tree %d has no nodes", h.class, t)
		}
		if at := damaged(h.nodes.Thresholds[:end], h.nodes.Columns[:end], h.nodes.Left[:end], root, kernel.WideColumnFactor, h.features); at >= 0 {
			return estimator.Misfit("%s: node %d of the trees is damaged", h.class, at)
		}
	}
	return nil
}

// raw writes the raw predictions.
func (h *HistGradientBoosting) raw(x, out *estimator.Block, ws *estimator.Workspace) {
	keys, nan := ws.Uint64s(x.Stride*x.Cols), false
	for c := range x.Cols {
		dst := keys[8*c:]
		for i, v := range x.Lanes(c) {
			dst[i/8*8*x.Cols+i%8] = kernel.WideKey(v)
			nan = nan || (v != v && i < x.Rows)
		}
	}
	if len(h.steps.sums) > 0 {
		h.steps.look(keys, out)
		return
	}
	for c, b := range h.baseline {
		dst := out.Lanes(c)
		for i := range dst {
			dst[i] = b
		}
	}
	for t, root := range h.roots {
		dst := out.Lanes(t % len(h.baseline))
		if !nan {
			h.nodes.WalkAdd(root, h.depths[t], keys, x.Cols, h.values, dst)
			continue
		}
		for i := range x.Rows {
			dst[i] += h.values[h.walkRow(t, keys[i/8*8*x.Cols+i%8:])]
		}
	}
}

// walkRow walks one row, which may contain NaN. Each node says to which side NaN goes.
func (h *HistGradientBoosting) walkRow(tree int, key []uint64) uint32 {
	at := h.roots[tree]
	for range h.depths[tree] {
		left, v := h.nodes.Left[at], key[8/kernel.WideColumnFactor*h.nodes.Columns[at]]
		switch {
		case left == at: // the node is a leaf
		case v == math.MaxUint64 && h.nanLeft[at/32]>>(at%32)&1 == 1, v <= h.nodes.Thresholds[at]:
			at = left
		default:
			at = left + 1
		}
	}
	return at
}

// Choose implements estimator.Chooser.
func (h *HistGradientBoosting) Choose(raw *estimator.Block, label []float64) {
	estimator.Choose(raw, label, &h.labels)
}

func (h *HistGradientBoosting) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if h.labels.Len() == 0 {
		h.raw(x, out, ws)
		if h.logLink {
			dst := out.Col(0)
			for i, v := range dst {
				dst[i] = estimator.Exp(v)
			}
		}
		return nil
	}
	if m == estimator.DecisionFunction {
		h.raw(x, out, ws)
		return nil
	}
	raw := ws.Block(x, len(h.baseline))
	h.raw(x, raw, ws)
	switch {
	case m == estimator.Predict:
		h.Choose(raw, out.Col(0))
	case raw.Cols == 1:
		estimator.Logistic(raw, out, true)
	default:
		estimator.Softmax(raw, out)
	}
	return nil
}
