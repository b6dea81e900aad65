// Package preprocess computes scikit-learn's preprocessing, impute and decomposition
// modules: the steps before a model.
package preprocess

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// transformer holds the fields that all transformers have.
type transformer struct {
	features   int
	refusesNaN bool // until release 0.20 the scalers refused NaN
}

// fields reads or writes these fields.
func (t *transformer) fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Bool(&t.refusesNaN)
}

// checkScaled refuses the rows that scikit-learn's scalers refuse.
func (t *transformer) checkScaled(class string, x *estimator.Block) error {
	if t.refusesNaN {
		return x.CheckFinite(class)
	}
	return x.CheckNotInfinite(class)
}

func (t *transformer) Features() int { return t.features }

// same implements Outputs for transformers that keep the number of columns.
func same(m estimator.Method, in int) int {
	if m == estimator.Transform {
		return in
	}
	return 0
}

func misfit(class, attribute string, got, want int) error {
	return estimator.Misfit("%s: %s has %d numbers for %d features", class, attribute, got, want)
}

// StandardScaler subtracts, then divides: (x − mean) / scale.
type StandardScaler struct {
	transformer
	mean, scale []float64 // nil if the step is off
}

// ReadStandardScaler reads the attributes of a StandardScaler from a file.
func ReadStandardScaler(a *estimator.Attributes) estimator.Estimator {
	s := &StandardScaler{}
	if a.Bool("with_mean", true) {
		s.mean = a.PerFeature("mean_")
	}
	if a.Bool("with_std", true) {
		s.scale = a.PerFeature("scale_")
	}
	s.features, s.refusesNaN = a.Features(), !a.AtLeast(0, 20)
	return s
}

// Class implements estimator.Estimator, as do the methods below.
func (s *StandardScaler) Class() string { return "StandardScaler" }

func (s *StandardScaler) Outputs(m estimator.Method, in int) int { return same(m, in) }

func (s *StandardScaler) Parameters() map[string]any {
	return map[string]any{"with_mean": s.mean != nil, "with_std": s.scale != nil}
}

func (s *StandardScaler) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Floats(&s.mean)
	c.Floats(&s.scale)
}

func (s *StandardScaler) Check() error {
	if err := perFeature(s.Class(), s.features, named{"mean_", s.mean}, named{"scale_", s.scale}); err != nil {
		return err
	}
	for i, f := range s.scale {
		if !(f > 0) {
			return estimator.Misfit("StandardScaler: scale_ is %v for feature %d, but must be above 0", f, i)
		}
	}
	return nil
}

type named struct {
	name   string
	values []float64
}

// perFeature checks vectors. Each must be nil or have one number for each feature.
func perFeature(class string, features int, vectors ...named) error {
	for _, v := range vectors {
		if v.values != nil && len(v.values) != features {
			return misfit(class, v.name, len(v.values), features)
		}
	}
	return nil
}

// Compute divides and doesn't multiply by a reciprocal: that would round differently
// than scikit-learn, and a row could get another label.
func (s *StandardScaler) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	return s.standardize(s.Class(), x, out, s.mean, s.scale)
}

// standardize writes (x − mean) / scale. A nil mean means 0, and a nil scale means 1.
// If the results are finite, so were the rows; only other rows are checked.
func (t *transformer) standardize(class string, x, out *estimator.Block, mean, scale []float64) error {
	finite := true
	for c := range x.Cols {
		m, s := 0.0, 1.0
		if mean != nil {
			m = mean[c]
		}
		if scale != nil {
			s = scale[c]
		}
		finite = kernel.Standardize(out.Lanes(c), x.Lanes(c), m, s) && finite
	}
	if out.Finite = finite; finite {
		return nil
	}
	return t.checkScaled(class, x)
}

// MinMaxScaler computes x·scale + min, within a range if it clips.
type MinMaxScaler struct {
	transformer
	scale, min        []float64
	dataMin, dataMax  []float64
	clip              bool
	clipLow, clipHigh float64
}

// ReadMinMaxScaler reads the attributes of a MinMaxScaler from a file.
func ReadMinMaxScaler(a *estimator.Attributes) estimator.Estimator {
	s := &MinMaxScaler{scale: a.PerFeature("scale_"), min: a.PerFeature("min_"), clip: a.Bool("clip", false), clipHigh: 1}
	if a.Has("data_min_") && a.Has("data_max_") {
		s.dataMin, s.dataMax = a.PerFeature("data_min_"), a.PerFeature("data_max_")
	}
	if s.clip {
		pair := a.Graph().Tuple(a.Value("feature_range"))
		low, high, ok := 0.0, 0.0, len(pair) == 2
		if ok {
			var okHigh bool
			low, ok = a.Graph().Number(pair[0])
			high, okHigh = a.Graph().Number(pair[1])
			ok = ok && okHigh
		}
		if !ok {
			a.Fail("feature_range isn't a pair of numbers")
		}
		s.clipLow, s.clipHigh = low, high
	}
	s.features, s.refusesNaN = a.Features(), !a.AtLeast(0, 20)
	return s
}

func (s *MinMaxScaler) Class() string                          { return "MinMaxScaler" }
func (s *MinMaxScaler) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (s *MinMaxScaler) Parameters() map[string]any             { return map[string]any{"clip": s.clip} }
func (s *MinMaxScaler) TrainingRange() (low, high []float64)   { return s.dataMin, s.dataMax }
func (s *MinMaxScaler) Check() error {
	if len(s.scale) == 0 || len(s.min) == 0 {
		return misfit(s.Class(), "scale_", 0, s.features)
	}
	return perFeature(s.Class(), s.features, named{"scale_", s.scale}, named{"min_", s.min}, named{"data_min_", s.dataMin}, named{"data_max_", s.dataMax})
}

func (s *MinMaxScaler) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Floats(&s.scale)
	c.Floats(&s.min)
	c.Floats(&s.dataMin)
	c.Floats(&s.dataMax)
	c.Bool(&s.clip)
	c.Float(&s.clipLow)
	c.Float(&s.clipHigh)
}

func (s *MinMaxScaler) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if err := s.checkScaled(s.Class(), x); err != nil {
		return err
	}
	for c := range x.Cols {
		scale, low := s.scale[c], s.min[c]
		dst := out.Col(c)
		for i, v := range x.Col(c) {
			dst[i] = float64(v*scale) + low
		}
		if s.clip {
			clip(dst, s.clipLow, s.clipHigh)
		}
	}
	return nil
}

// clip keeps NaN, as NumPy does.
func clip(x []float64, low, high float64) {
	for i, v := range x {
		if v < low {
			x[i] = low
		} else if v > high {
			x[i] = high
		}
	}
}

// MaxAbsScaler divides by the largest magnitude in training.
type MaxAbsScaler struct {
	transformer
	scale []float64
	clip  bool
}

// ReadMaxAbsScaler reads the attributes of a MaxAbsScaler from a file.
func ReadMaxAbsScaler(a *estimator.Attributes) estimator.Estimator {
	s := &MaxAbsScaler{scale: a.PerFeature("scale_"), clip: a.Bool("clip", false)}
	s.features, s.refusesNaN = a.Features(), !a.AtLeast(0, 20)
	return s
}

func (s *MaxAbsScaler) Class() string                          { return "MaxAbsScaler" }
func (s *MaxAbsScaler) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (s *MaxAbsScaler) Parameters() map[string]any             { return map[string]any{"clip": s.clip} }

func (s *MaxAbsScaler) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Floats(&s.scale)
	c.Bool(&s.clip)
}

func (s *MaxAbsScaler) Check() error {
	if len(s.scale) == 0 {
		return misfit(s.Class(), "scale_", 0, s.features)
	}
	return perFeature(s.Class(), s.features, named{"scale_", s.scale})
}

func (s *MaxAbsScaler) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if err := s.checkScaled(s.Class(), x); err != nil {
		return err
	}
	for c := range x.Cols {
		scale, dst := s.scale[c], out.Col(c)
		for i, v := range x.Col(c) {
			dst[i] = v / scale
		}
		if s.clip {
			clip(dst, -1, 1)
		}
	}
	return nil
}

// RobustScaler subtracts the median, then divides by a range of quantiles.
type RobustScaler struct {
	transformer
	center, scale []float64 // nil if the step is off
}

// ReadRobustScaler reads the attributes of a RobustScaler from a file.
func ReadRobustScaler(a *estimator.Attributes) estimator.Estimator {
	s := &RobustScaler{}
	if a.Bool("with_centering", true) {
		s.center = a.PerFeature("center_")
	}
	if a.Bool("with_scaling", true) {
		s.scale = a.PerFeature("scale_")
	}
	s.features, s.refusesNaN = a.Features(), !a.AtLeast(0, 20)
	return s
}

func (s *RobustScaler) Class() string                          { return "RobustScaler" }
func (s *RobustScaler) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (s *RobustScaler) Parameters() map[string]any {
	return map[string]any{"with_centering": s.center != nil, "with_scaling": s.scale != nil}
}

func (s *RobustScaler) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Floats(&s.center)
	c.Floats(&s.scale)
}

func (s *RobustScaler) Check() error {
	return perFeature(s.Class(), s.features, named{"center_", s.center}, named{"scale_", s.scale})
}

func (s *RobustScaler) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	return s.standardize(s.Class(), x, out, s.center, s.scale)
}

// Normalizer divides each row by its norm.
type Normalizer struct {
	transformer
	norm string
	// tiny is the norm below which a row isn't changed: 0 before release 1.0.
	tiny float64
}

// ReadNormalizer reads the attributes of a Normalizer from a file.
func ReadNormalizer(a *estimator.Attributes) estimator.Estimator {
	s := &Normalizer{norm: a.Text("norm", "l2")}
	s.features = a.Features()
	if a.AtLeast(1, 0) {
		s.tiny = 10 * 0x1p-52
	}
	if a.Err() == nil && s.norm != "l1" && s.norm != "l2" && s.norm != "max" {
		a.Unsupported("norm=\""+s.norm+"\"", "use l1, l2 or max")
	}
	if s.norm == "max" && !a.AtLeast(0, 23) {
		s.norm = "largest" // this release doesn't use magnitudes
	}
	return s
}

func (s *Normalizer) Class() string                          { return "Normalizer" }
func (s *Normalizer) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (s *Normalizer) Parameters() map[string]any             { return map[string]any{"norm": s.norm} }
func (s *Normalizer) Check() error                           { return nil }

func (s *Normalizer) Fields(c *estimator.Codec) {
	c.Int(&s.features)
	c.Text(&s.norm)
	c.Float(&s.tiny)
}

func (s *Normalizer) Compute(_ estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(s.Class()); err != nil {
		return err
	}
	norms := ws.Floats(x.Rows)
	clear(norms)
	for c := range x.Cols {
		for i, v := range x.Col(c) {
			switch s.norm {
			case "l1":
				norms[i] += math.Abs(v)
			case "l2":
				norms[i] += float64(v * v)
			case "max":
				norms[i] = max(norms[i], math.Abs(v))
			default: // releases before 0.23
				if c == 0 {
					norms[i] = v
				}
				norms[i] = max(norms[i], v)
			}
		}
	}
	for i, n := range norms {
		if s.norm == "l2" {
			n = math.Sqrt(n)
		}
		if n == 0 || (s.tiny > 0 && n < s.tiny) {
			n = 1
		}
		norms[i] = n
	}
	for c := range x.Cols {
		dst := out.Col(c)
		for i, v := range x.Col(c) {
			dst[i] = v / norms[i]
		}
	}
	return nil
}

// Invertible implements estimator.Inverter, as do the methods below.
func (s *StandardScaler) Invertible() bool { return true }
func (s *MinMaxScaler) Invertible() bool   { return true }
func (s *MaxAbsScaler) Invertible() bool   { return true }
func (s *RobustScaler) Invertible() bool   { return true }

func (s *StandardScaler) Invert(b *estimator.Block) error { return unscale(b, s.scale, s.mean) }
func (s *MaxAbsScaler) Invert(b *estimator.Block) error   { return unscale(b, s.scale, nil) }
func (s *RobustScaler) Invert(b *estimator.Block) error   { return unscale(b, s.scale, s.center) }

// unscale multiplies by the scale, then adds the shift. Either may be nil.
func unscale(b *estimator.Block, scale, shift []float64) error {
	for c := range b.Cols {
		dst := b.Col(c)
		for i, v := range dst {
			if scale != nil {
				v = float64(v * scale[c])
			}
			if shift != nil {
				v += shift[c]
			}
			dst[i] = v
		}
	}
	return nil
}

func (s *MinMaxScaler) Invert(b *estimator.Block) error {
	for c := range b.Cols {
		dst := b.Col(c)
		for i, v := range dst {
			dst[i] = (v - s.min[c]) / s.scale[c]
		}
	}
	return nil
}

// TypicalRange implements estimator.Typical: three deviations around the mean.
func (s *StandardScaler) TypicalRange() (low, high []float64) { return around(s.mean, s.scale) }

// TypicalRange implements estimator.Typical: three of the scaler's ranges around the
// centre.
func (s *RobustScaler) TypicalRange() (low, high []float64) { return around(s.center, s.scale) }

func around(center, scale []float64) (low, high []float64) {
	for c := range max(len(center), len(scale)) {
		at, by := 0.0, 1.0
		if center != nil {
			at = center[c]
		}
		if scale != nil {
			by = math.Abs(scale[c])
		}
		low, high = append(low, at-3*by), append(high, at+3*by)
	}
	return low, high
}
