package preprocess

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// PolynomialFeatures writes all products of columns up to a degree.
type PolynomialFeatures struct {
	transformer
	low, high   int // the least and the greatest degree
	interaction bool
	bias        bool
}

// maxPolynomial is the largest number of columns.
const maxPolynomial = estimator.MaxFeatures

// ReadPolynomialFeatures reads the attributes of a PolynomialFeatures from a file.
func ReadPolynomialFeatures(a *estimator.Attributes) estimator.Estimator {
	t := &PolynomialFeatures{interaction: a.Bool("interaction_only", false), bias: a.Bool("include_bias", true)}
	if a.Features() == 0 && a.Has("n_input_features_") {
		t.features = a.Int("n_input_features_", 1, estimator.MaxFeatures)
	} else if t.features = a.Features(); t.features == 0 {
		a.Fail("n_features_in_ is missing")
	}
	degree := a.Value("degree")
	switch pair := a.Graph().Tuple(degree); {
	case a.Has("_max_degree"):
		t.low, t.high = a.Int("_min_degree", 0, 64), a.Int("_max_degree", 0, 64)
	case degree.Kind() == pickle.KindTuple && len(pair) == 2 && pair[0].Kind() == pickle.KindInt && pair[1].Kind() == pickle.KindInt:
		t.low, t.high = int(a.Graph().Int(pair[0])), int(a.Graph().Int(pair[1]))
	default:
		t.high = a.Int("degree", 0, 64)
	}
	return t
}

func (t *PolynomialFeatures) Class() string { return "PolynomialFeatures" }

func (t *PolynomialFeatures) Outputs(m estimator.Method, _ int) int {
	if m != estimator.Transform {
		return 0
	}
	n := 0
	if t.bias {
		n = 1
	}
	for d := max(1, t.low); d <= t.high; d++ {
		n += t.terms(d)
	}
	return n
}

// terms returns the number of products of a degree: n choose d, or n+d−1 choose d with
// repetition.
func (t *PolynomialFeatures) terms(d int) int {
	n := t.features
	if !t.interaction {
		n += d - 1
	}
	if d > n {
		return 0
	}
	out := 1.0
	for i := range d {
		if out = out * float64(n-i) / float64(i+1); out > maxPolynomial*2 {
			return maxPolynomial * 2
		}
	}
	return int(math.Round(out))
}

func (t *PolynomialFeatures) Parameters() map[string]any {
	return map[string]any{"min_degree": t.low, "max_degree": t.high, "interaction_only": t.interaction, "include_bias": t.bias}
}

func (t *PolynomialFeatures) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Int(&t.low)
	c.Int(&t.high)
	c.Bool(&t.interaction)
	c.Bool(&t.bias)
}

func (t *PolynomialFeatures) Check() error {
	if t.features < 1 || t.low < 0 || t.high < t.low || t.high > 64 {
		return estimator.Misfit("PolynomialFeatures: degrees %d to %d don't fit %d features", t.low, t.high, t.features)
	}
	if n := t.Outputs(estimator.Transform, 0); n > maxPolynomial || n == 0 {
		return estimator.Misfit("PolynomialFeatures: the output has %d columns; from 1 to %d are supported", n, maxPolynomial)
	}
	return nil
}

// Compute multiplies each product of the next lower degree by one more column. The
// order is scikit-learn's: the first factor is multiplied last.
func (t *PolynomialFeatures) Compute(_ estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(t.Class()); err != nil {
		return err
	}
	at := 0
	if t.bias {
		for i := range out.Lanes(0) {
			out.Lanes(0)[i] = 1
		}
		at = 1
	}
	if t.high == 0 {
		return nil
	}
	// from[f] is the first product of the degree whose first factor is f.
	from := ws.Int32s(t.features + 1)
	prior := x
	for f := range from {
		from[f] = int32(f)
	}
	for d := 1; d <= t.high; d++ {
		level := x
		if d > 1 {
			level = ws.Block(x, max(1, t.terms(d)))
			t.raise(x, prior, level, from)
		}
		if d >= t.low && t.terms(d) > 0 {
			n := copy(out.X[at*out.Stride:], level.X[:t.terms(d)*level.Stride])
			at += n / out.Stride
		}
		prior = level
	}
	return nil
}

func (t *PolynomialFeatures) raise(x, prior, level *estimator.Block, from []int32) {
	next := int32(0)
	end := from[t.features]
	for f := range t.features {
		start := from[f]
		if t.interaction {
			start = from[f+1]
		}
		from[f] = next
		a := x.Lanes(f)
		for p := start; p < end; p++ {
			dst := level.Lanes(int(next))
			for i, v := range prior.Lanes(int(p)) {
				dst[i] = v * a[i]
			}
			next++
		}
	}
	from[t.features] = next
}

// PCA projects onto principal components.
type PCA struct {
	transformer
	components []float64 // components × features
	mean       []float64
	scale      []float64 // the divisors; nil if whiten is off
	outputs    int
	// For score_samples, the density of probabilistic PCA (Tipping and Bishop, 1999):
	// the variances along the components, and the variance of the rest.
	variance []float64
	noise    float64
}

// ReadPCA reads the attributes of a PCA from a file.
func ReadPCA(a *estimator.Attributes) estimator.Estimator {
	t := &PCA{}
	if a.Dims("components_") == 2 && a.Count("components_") == 0 {
		a.Unsupported("a fit without components", "train it with n_components of at least 1")
		return t
	}
	t.components, t.outputs, t.features = a.Matrix("components_", -1, -1)
	if a.Has("mean_") {
		t.mean = a.Vector("mean_", t.features)
	}
	t.variance = a.Vector("explained_variance_", t.outputs)
	t.noise = a.FloatOr("noise_variance_", 0)
	for i, v := range t.variance {
		v = max(v-t.noise, 0)
		if a.Bool("whiten", false) {
			v *= t.variance[i] // as scikit-learn does, although components are unit vectors
		}
		t.variance[i] = v + t.noise
	}
	if a.Bool("whiten", false) {
		t.scale = a.Vector("explained_variance_", t.outputs) // read again, because variance was changed
		for i, v := range t.scale {
			s := math.Sqrt(v)
			if a.AtLeast(1, 5) {
				s = max(s, 0x1p-52)
			}
			if !(s > 0) {
				a.Unsupported("whiten=True with a component without variance", "use fewer components")
			}
			t.scale[i] = s
		}
	}
	return t
}

func (t *PCA) Class() string { return "PCA" }

func (t *PCA) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Transform:
		return t.outputs
	case estimator.ScoreSamples:
		return 1
	}
	return 0
}

func (t *PCA) Parameters() map[string]any {
	return map[string]any{"n_components": t.outputs, "whiten": t.scale != nil}
}

func (t *PCA) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Int(&t.outputs)
	c.Floats(&t.components)
	c.Floats(&t.mean)
	c.Floats(&t.scale)
	c.Floats(&t.variance)
	c.Float(&t.noise)
}

func (t *PCA) Check() error {
	if t.features < 1 || t.outputs < 1 || len(t.components) != t.features*t.outputs || (t.scale != nil && len(t.scale) != t.outputs) || len(t.variance) != t.outputs {
		return misfit(t.Class(), "components_", len(t.components), t.features)
	}
	return perFeature(t.Class(), t.features, named{"mean_", t.mean})
}

func (t *PCA) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(t.Class()); err != nil {
		return err
	}
	centred := x
	if t.mean != nil {
		centred = ws.Block(x, x.Cols)
		for c := range x.Cols {
			kernel.Standardize(centred.Lanes(c), x.Lanes(c), t.mean[c], 1)
		}
	}
	if m == estimator.ScoreSamples {
		t.density(centred, out.Col(0), ws)
		return nil
	}
	for o := range t.outputs {
		dst := out.Lanes(o)
		clear(dst)
		for c, w := range t.components[o*t.features : (o+1)*t.features] {
			kernel.AddScaled(dst, centred.Lanes(c), w)
		}
		if t.scale != nil {
			kernel.Standardize(dst, dst, 0, t.scale[o])
		}
	}
	return nil
}

// density writes the logarithm of the density of centred rows. The components are
// orthonormal, so the covariance needn't be inverted: the part along a component counts
// by the component's variance, and the rest counts by the noise.
func (t *PCA) density(x *estimator.Block, dst []float64, ws *estimator.Workspace) {
	along := ws.Block(x, 1)
	rest := ws.Floats(x.Rows)
	clear(rest)
	for c := range x.Cols {
		for i, v := range x.Col(c) {
			rest[i] += float64(v * v)
		}
	}
	logs := float64(t.features) * math.Log(2*math.Pi)
	clear(dst)
	for o, variance := range t.variance {
		clear(along.X)
		for c, w := range t.components[o*t.features : (o+1)*t.features] {
			kernel.AddScaled(along.Lanes(0), x.Lanes(c), w)
		}
		logs += math.Log(variance)
		for i, v := range along.Col(0) {
			dst[i] += v * v / variance
			rest[i] -= float64(v * v)
		}
	}
	if left := t.features - t.outputs; left > 0 && t.noise > 0 {
		logs += float64(left) * math.Log(t.noise)
		for i, v := range rest {
			dst[i] += v / t.noise
		}
	}
	for i, v := range dst {
		dst[i] = -0.5*v - 0.5*logs
	}
}
