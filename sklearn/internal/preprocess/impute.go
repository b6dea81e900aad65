package preprocess

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// SimpleImputer replaces missing values by a number for each column. It leaves out
// columns that had no value in training.
type SimpleImputer struct {
	transformer
	missing    float64 // NaN, or the number that means a missing value
	statistics []float64
	keep       []int32 // the columns that are kept
	indicated  []int32 // the columns for which an output column says where values were missing
}

// ReadSimpleImputer reads the attributes of a SimpleImputer from a file.
func ReadSimpleImputer(a *estimator.Attributes) estimator.Estimator {
	s := &SimpleImputer{missing: math.NaN()}
	g := a.Graph()
	if v := a.Value("missing_values"); v != 0 && v.Kind() != pickle.KindNone {
		f, ok := g.Number(v)
		if t, isText := g.Text(v); isText && string(t) == "NaN" { // written by release 0.19
			f, ok = math.NaN(), true
		}
		if !ok {
			a.Unsupported("missing_values that isn't a number", "rows are numbers here; use NaN or a number")
			return s
		}
		s.missing = f
	}
	n := -1
	if a.Features() > 0 {
		n = a.Features()
	}
	if textual(a, "statistics_") || textual(a, "fill_value") {
		a.Unsupported("columns of text", "rows are numbers here; encode the text before it reaches the model")
		return s
	}
	s.statistics, _ = a.Array("statistics_", false, n)
	s.features = len(s.statistics)
	kind, size := g.TypeOf(a.Value("_fill_dtype")) // since 1.8, fill values have the type of the training data
	for i, f := range s.statistics {
		switch {
		case kind == 'f' && size == 4:
			s.statistics[i] = float64(float32(f))
		case kind == 'i' || kind == 'u':
			s.statistics[i] = math.Trunc(f)
		}
	}
	if err := g.Charge(12 * len(s.statistics)); err != nil {
		a.Fail("%w", err)
		return s
	}
	keepEmpty := a.Bool("keep_empty_features", false)
	if a.Text("strategy", "mean") == "constant" && !a.AtLeast(1, 8) { // fill_value is NaN
		keepEmpty = true
	}
	for i, f := range s.statistics {
		if f == f || keepEmpty {
			s.keep = append(s.keep, int32(i))
		}
	}
	if a.Bool("add_indicator", false) && a.Has("indicator_") {
		a.Nested(a.Value("indicator_"), "indicator_", s.indicator)
	}
	return s
}

// indicator reads the MissingIndicator, which must be unchanged since the fit.
func (s *SimpleImputer) indicator(in *estimator.Attributes) {
	g := in.Graph()
	if !in.Has("features_") {
		return
	}
	if f := in.Text("features", "missing-only"); f != "missing-only" {
		in.Unsupported("features="+f+" of an imputer's indicator", "don't change the indicator after the fit")
	}
	in.Unset("error_on_new")
	if f, ok := g.Number(in.Value("missing_values")); ok && f != s.missing && (f == f || s.missing == s.missing) {
		in.Fail("the indicator has missing_values %v, but the imputer has %v", f, s.missing)
	}
	arr, err := g.Array(in.Value("features_"))
	if err != nil || arr.Dims != 1 {
		in.Fail("indicator_ has no features_")
		return
	}
	f, err := g.Floats(&arr, true)
	if err != nil {
		in.Fail("indicator_: features_ %w", err)
	}
	if err := g.Charge(12 * len(f)); err != nil {
		in.Fail("%w", err)
		return
	}
	for _, v := range f {
		if v < 0 || v >= float64(s.features) || v != float64(int32(v)) {
			in.Fail("indicator_: features_ holds %v", v)
			return
		}
		s.indicated = append(s.indicated, int32(v))
	}
}

func (s *SimpleImputer) Class() string { return "SimpleImputer" }

func (s *SimpleImputer) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Transform {
		return len(s.keep) + len(s.indicated)
	}
	return 0
}

func (s *SimpleImputer) Parameters() map[string]any {
	p := map[string]any{"add_indicator": len(s.indicated) > 0}
	if s.missing == s.missing {
		p["missing_values"] = s.missing
	}
	return p
}

func (s *SimpleImputer) Fields(c *estimator.Codec) {
	c.Int(&s.features)
	c.Float(&s.missing)
	c.Floats(&s.statistics)
	c.Int32s(&s.keep)
	c.Int32s(&s.indicated)
}

func (s *SimpleImputer) Check() error {
	if len(s.statistics) != s.features || s.features == 0 {
		return misfit(s.Class(), "statistics_", len(s.statistics), s.features)
	}
	if err := columns(s.Class(), s.keep, s.features); err != nil {
		return err
	}
	return columns(s.Class(), s.indicated, s.features)
}

// columns checks column numbers.
func columns(class string, picked []int32, features int) error {
	for _, c := range picked {
		if c < 0 || int(c) >= features {
			return estimator.Misfit("%s: column %d is used, but there are %d features", class, c, features)
		}
	}
	return nil
}

func (s *SimpleImputer) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	check := x.CheckNotInfinite
	if s.missing == s.missing {
		check = x.CheckFinite
	}
	if err := check(s.Class()); err != nil {
		return err
	}
	for to, from := range s.keep {
		fill, dst := s.statistics[from], out.Col(to)
		for i, v := range x.Col(int(from)) {
			if v == s.missing || (v != v && s.missing != s.missing) {
				v = fill
			}
			dst[i] = v
		}
	}
	for n, from := range s.indicated {
		dst := out.Col(len(s.keep) + n)
		for i, v := range x.Col(int(from)) {
			dst[i] = 0
			if v == s.missing || (v != v && s.missing != s.missing) {
				dst[i] = 1
			}
		}
	}
	return nil
}
