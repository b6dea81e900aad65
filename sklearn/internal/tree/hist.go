package tree

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// HistGradientBoosting is HistGradientBoostingClassifier and -Regressor. Its
// trees compare float64 values, and every node has a side for NaN.
type HistGradientBoosting struct {
	class    string
	features int
	labels   estimator.Labels
	baseline []float64 // one per column of raw predictions
	logLink  bool      // predictions are e^raw
	roots    []int32   // per tree, its first node; tree t adds to column t mod len(baseline)
	// Per node. Children lie side by side, left first; a leaf is its own left.
	thresholds []float64
	values     []float64
	column     []int32
	left       []int32
	nanLeft    []uint32 // a bit per node
}

// NewHistGradientBoosting makes an empty one.
func NewHistGradientBoosting(class string) *HistGradientBoosting {
	return &HistGradientBoosting{class: class}
}

// ReadHistGradientBoosting reads its attributes.
func ReadHistGradientBoosting(a *estimator.Attributes) estimator.Estimator {
	h := NewHistGradientBoosting(a.Class)
	g := a.Graph()
	if h.features = a.Features(); h.features == 0 {
		h.features = a.Int("_n_features", 1, estimator.MaxFeatures)
	}
	if a.Has("is_categorical_") && a.Count("is_categorical_") > 0 {
		a.Unsupported("categorical features", "encode them before, with an encoder that is supported")
		return h
	}
	if a.Class == "HistGradientBoostingClassifier" {
		h.labels = a.Labels("classes_")
	}
	loss := a.Text("loss", "")
	h.logLink = loss == "poisson" || loss == "gamma"
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
			a.Fail("an iteration has %d trees for %d columns", n, len(h.baseline))
		}
	}
	return h
}

func (h *HistGradientBoosting) addTree(a *estimator.Attributes) {
	g := a.Graph()
	arr, err := g.Array(a.Value("nodes"))
	if err != nil {
		a.Fail("the nodes of a tree: %w", err)
		return
	}
	var value, column, threshold, nanLeft, left, right, leaf []float64
	name := "num_threshold"
	if !g.HasField(&arr, name) {
		name = "threshold" // until 0.24
	}
	for _, f := range [...]struct {
		name string
		to   *[]float64
	}{{"value", &value}, {"feature_idx", &column}, {name, &threshold}, {"missing_go_to_left", &nanLeft}, {"left", &left}, {"right", &right}, {"is_leaf", &leaf}} {
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
	h.roots = append(h.roots, int32(first))
	order := append(make([]int32, 0, n), 0)
	for i := 0; i < len(order); i++ {
		at := order[i]
		bit := first + i
		for len(h.nanLeft) <= bit/32 {
			h.nanLeft = append(h.nanLeft, 0)
		}
		if leaf[at] != 0 {
			h.add(math.Inf(1), value[at], 0, int32(bit))
			continue
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
		h.add(threshold[at], 0, int32(c), int32(first+len(order)))
		order = append(order, int32(l), int32(r))
	}
	g.Refund(7 * 8 * n)
	if err := g.Charge(2 * 24 * n); err != nil {
		a.Fail("%w", err)
	}
}

func (h *HistGradientBoosting) add(threshold, value float64, column, left int32) {
	h.thresholds, h.values = append(h.thresholds, threshold), append(h.values, value)
	h.column, h.left = append(h.column, column), append(h.left, left)
}

// Class implements estimator.Estimator, as do the methods below.
func (h *HistGradientBoosting) Class() string { return h.class }

func (h *HistGradientBoosting) Features() int       { return h.features }
func (h *HistGradientBoosting) SupportVectors() int { return 0 }
func (h *HistGradientBoosting) Nodes() int          { return len(h.values) }

// Labels are nil for regressors.
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
	p := map[string]any{"trees": len(h.roots), "nodes": len(h.values)}
	if n := h.labels.Len(); n > 0 {
		p["classes"] = n
	}
	return p
}

func (h *HistGradientBoosting) Fields(c *estimator.Codec) {
	c.Int(&h.features)
	h.labels.Fields(c)
	c.Floats(&h.baseline)
	c.Bool(&h.logLink)
	c.Int32s(&h.roots)
	c.Floats(&h.thresholds)
	c.Floats(&h.values)
	c.Int32s(&h.column)
	c.Int32s(&h.left)
	c.Uint32s(&h.nanLeft)
}

func (h *HistGradientBoosting) Check() error {
	n, width, k := len(h.values), len(h.baseline), h.labels.Len()
	if h.features < 1 || width == 0 || len(h.roots)%width != 0 || len(h.thresholds) != n || len(h.column) != n || len(h.left) != n || len(h.nanLeft) < (n+31)/32 ||
		(k == 0 && width != 1) || (k > 0 && k != width && (k != 2 || width != 1)) {
		return estimator.Misfit("%s: the shapes of its %d trees don't fit", h.class, len(h.roots))
	}
	for t, root := range h.roots {
		end := n
		if t+1 < len(h.roots) {
			end = int(h.roots[t+1])
		}
		if root < 0 || int(root) >= end || end > n {
			return estimator.Misfit("%s: tree %d has no nodes", h.class, t)
		}
		for i := int(root); i < end; i++ {
			l := int(h.left[i])
			if (l != i && (l <= i || l+1 >= end)) || h.column[i] < 0 || int(h.column[i]) >= h.features {
				return estimator.Misfit("%s: node %d of its trees is damaged", h.class, i)
			}
		}
	}
	if k > 0 {
		return h.labels.Check(h.class)
	}
	return nil
}

// raw writes the raw predictions.
func (h *HistGradientBoosting) raw(x, out *estimator.Block) {
	for c, b := range h.baseline {
		dst := out.Lanes(c)
		for i := range dst {
			dst[i] = b
		}
	}
	for t, root := range h.roots {
		dst := out.Col(t % len(h.baseline))
		for r := range dst {
			at := root
			for l := h.left[at]; l != at; l = h.left[at] {
				v := x.X[int(h.column[at])*x.Stride+r]
				switch {
				case v <= h.thresholds[at]:
					at = l
				case v != v && h.nanLeft[at/32]>>(at%32)&1 == 1:
					at = l
				default:
					at = l + 1
				}
			}
			dst[r] += h.values[at]
		}
	}
}

func (h *HistGradientBoosting) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if h.labels.Len() == 0 {
		h.raw(x, out)
		if h.logLink {
			dst := out.Col(0)
			for i, v := range dst {
				dst[i] = math.Exp(v)
			}
		}
		return nil
	}
	if m == estimator.DecisionFunction {
		h.raw(x, out)
		return nil
	}
	raw := ws.Block(x, len(h.baseline))
	h.raw(x, raw)
	switch {
	case m == estimator.Predict:
		estimator.Choose(raw, out.Col(0), &h.labels)
	case raw.Cols == 1:
		estimator.Logistic(raw, out)
	default:
		estimator.Softmax(raw, out)
	}
	return nil
}
