package preprocess

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Selector keeps some of the columns: VarianceThreshold, SelectKBest, SelectPercentile,
// SelectFpr and SelectFwe. The columns are found when the file is read.
type Selector struct {
	transformer
	class string
	keep  []int32
	nan   bool // values aren't checked
}

// NewSelector returns an empty Selector for a record to be read into.
func NewSelector(class string) *Selector { return &Selector{class: class} }

// ReadSelector reads the attributes of any selector.
func ReadSelector(a *estimator.Attributes) estimator.Estimator {
	s := NewSelector(a.Class)
	name := map[string]string{"VarianceThreshold": "variances_", "SelectKBest": "scores_", "SelectPercentile": "scores_"}[s.class]
	if name == "" {
		name = "pvalues_"
	}
	n := -1
	if a.Features() > 0 {
		n = a.Features()
	}
	scores, _ := a.Array(name, false, n)
	s.features = len(scores)
	if a.Err() != nil {
		return s
	}
	if err := a.Graph().Charge(24 * len(scores)); err != nil {
		a.Fail("%w", err)
		return s
	}
	if err := a.Graph().Spend(32 * len(scores)); err != nil { // the work of sorting
		a.Fail("%w", err)
		return s
	}
	var mask []bool
	switch s.class {
	case "VarianceThreshold":
		s.nan = a.AtLeast(0, 21)
		t := a.FloatOr("threshold", 0)
		mask = where(scores, func(v float64) bool { return v > t })
	case "SelectKBest":
		k := len(scores)
		if t, ok := a.Graph().Text(a.Value("k")); !ok || string(t) != "all" {
			k = min(a.Int("k", 0, math.MaxInt32), len(scores))
		}
		mask = best(clean(scores), k)
	case "SelectPercentile":
		mask = percentile(clean(scores), a.Float("percentile"))
	case "SelectFpr":
		alpha := a.Float("alpha")
		mask = where(scores, func(v float64) bool { return v < alpha })
	default:
		alpha := a.Float("alpha") / float64(len(scores))
		mask = where(scores, func(v float64) bool { return v < alpha })
	}
	for i, kept := range mask {
		if kept {
			s.keep = append(s.keep, int32(i))
		}
	}
	return s
}

func where(x []float64, is func(float64) bool) []bool {
	out := make([]bool, len(x))
	for i, v := range x {
		out[i] = is(v)
	}
	return out
}

// clean replaces NaN by the least number, as scikit-learn does.
func clean(scores []float64) []float64 {
	for i, v := range scores {
		if v != v {
			scores[i] = -math.MaxFloat64
		}
	}
	return scores
}

// best marks the k largest scores. If scores are equal, the last ones win.
func best(scores []float64, k int) []bool {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case scores[i] < scores[j]:
			return -1
		case scores[i] > scores[j]:
			return 1
		}
		return 0
	})
	mask := make([]bool, len(scores))
	for _, i := range order[len(order)-k:] {
		mask[i] = true
	}
	return mask
}

// percentile marks the scores above the quantile, and as many equal to it as there is
// room for.
func percentile(scores []float64, p float64) []bool {
	n := len(scores)
	switch {
	case p >= 100:
		return where(scores, func(float64) bool { return true })
	case !(p > 0):
		return make([]bool, n)
	}
	sorted := slices.Sorted(slices.Values(scores))
	at := (100 - p) / 100 * float64(n-1)
	i := int(at)
	t := at - float64(i)
	a, b := sorted[i], sorted[min(i+1, n-1)]
	limit := a + float64((b-a)*t)
	if t >= 0.5 {
		limit = b - float64((b-a)*(1-t))
	}
	mask := where(scores, func(v float64) bool { return v > limit })
	room := int(float64(n) * p / 100)
	for _, m := range mask {
		if m {
			room--
		}
	}
	for i, v := range scores {
		if v == limit && room > 0 {
			mask[i] = true
			room--
		}
	}
	return mask
}

func (s *Selector) Class() string { return s.class }

func (s *Selector) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Transform {
		return len(s.keep)
	}
	return 0
}

func (s *Selector) Parameters() map[string]any { return map[string]any{"columns": len(s.keep)} }

func (s *Selector) Fields(c *estimator.Codec) {
	c.Int(&s.features)
	c.Int32s(&s.keep)
	c.Bool(&s.nan)
}

func (s *Selector) Check() error {
	if s.features < 1 {
		return misfit(s.class, "scores", len(s.keep), s.features)
	}
	return columns(s.class, s.keep, s.features)
}

func (s *Selector) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if !s.nan {
		if err := x.CheckFinite(s.class); err != nil {
			return err
		}
	}
	for to, from := range s.keep {
		copy(out.Lanes(to), x.Lanes(int(from)))
	}
	return nil
}

// Binarizer writes 1 for a value above a threshold, else 0.
type Binarizer struct {
	transformer
	threshold float64
}

// ReadBinarizer reads the attributes of a Binarizer from a file.
func ReadBinarizer(a *estimator.Attributes) estimator.Estimator {
	b := &Binarizer{threshold: a.FloatOr("threshold", 0)}
	b.features = a.Features()
	return b
}

func (b *Binarizer) Class() string                          { return "Binarizer" }
func (b *Binarizer) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (b *Binarizer) Check() error                           { return nil }

func (b *Binarizer) Parameters() map[string]any { return map[string]any{"threshold": b.threshold} }

func (b *Binarizer) Fields(c *estimator.Codec) {
	c.Int(&b.features)
	c.Float(&b.threshold)
}

func (b *Binarizer) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if err := x.CheckFinite(b.Class()); err != nil {
		return err
	}
	for c := range x.Cols {
		dst := out.Col(c)
		for i, v := range x.Col(c) {
			dst[i] = 0
			if v > b.threshold {
				dst[i] = 1
			}
		}
	}
	return nil
}

// textual reports whether an attribute holds texts, which rows of numbers can't
// contain.
func textual(a *estimator.Attributes, name string) bool {
	g := a.Graph()
	v := a.Value(name)
	if !g.IsArray(v) {
		return v.Kind() == pickle.KindText
	}
	arr, err := g.Array(v)
	if err != nil {
		return false
	}
	if arr.HoldsText() {
		return true
	}
	items, err := g.Objects(&arr)
	if err != nil {
		return false
	}
	for {
		it, ok := items.Item()
		if !ok {
			return false
		}
		if it.Kind() == pickle.KindText {
			return true
		}
	}
}
