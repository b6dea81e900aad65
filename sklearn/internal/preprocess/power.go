package preprocess

import (
	"math"
	"sort"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// PowerTransformer makes columns more similar to a normal distribution, by the
// Yeo-Johnson or the Box-Cox transformation.
type PowerTransformer struct {
	transformer
	boxCox bool
	powers bool // until 1.8, Yeo-Johnson is computed by powers, which lose digits near 0
	lambda []float64
	scaler estimator.Estimator // nil if standardize is off
}

// ReadPowerTransformer reads the attributes of a PowerTransformer from a file.
func ReadPowerTransformer(a *estimator.Attributes) estimator.Estimator {
	t := &PowerTransformer{lambda: a.PerFeature("lambdas_")}
	t.features, t.powers = a.Features(), !a.AtLeast(1, 9)
	switch method := a.Text("method", "yeo-johnson"); method {
	case "yeo-johnson":
	case "box-cox":
		t.boxCox = true
	default:
		a.Unsupported("method=\""+method+"\"", "use yeo-johnson or box-cox")
	}
	if a.Bool("standardize", true) {
		if v := a.Value("_scaler"); v != 0 {
			t.scaler = a.Hidden(v)
		} else {
			a.Fail("_scaler is missing")
		}
	}
	return t
}

func (t *PowerTransformer) Class() string                          { return "PowerTransformer" }
func (t *PowerTransformer) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (t *PowerTransformer) Parameters() map[string]any {
	method := "yeo-johnson"
	if t.boxCox {
		method = "box-cox"
	}
	return map[string]any{"method": method, "standardize": t.scaler != nil}
}

func (t *PowerTransformer) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Bool(&t.boxCox)
	c.Bool(&t.powers)
	c.Floats(&t.lambda)
	scaled := t.scaler != nil
	c.Bool(&scaled)
	if scaled {
		c.Child(&t.scaler)
	} else {
		t.scaler = nil
	}
}

func (t *PowerTransformer) Check() error {
	if len(t.lambda) != t.features || t.features == 0 {
		return misfit(t.Class(), "lambdas_", len(t.lambda), t.features)
	}
	if t.scaler == nil {
		return nil
	}
	s, ok := t.scaler.(*StandardScaler)
	if !ok || s.features != t.features {
		return estimator.Misfit("PowerTransformer: _scaler isn't a StandardScaler with %d features", t.features)
	}
	return s.Check()
}

func (t *PowerTransformer) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckNotInfinite(t.Class()); err != nil {
		return err
	}
	to := out
	if t.scaler != nil {
		to = ws.Block(x, x.Cols)
	}
	for c := range x.Cols {
		l, dst := t.lambda[c], to.Col(c)
		for i, v := range x.Col(c) {
			if !t.boxCox {
				if t.powers {
					dst[i] = yeoJohnsonPowers(v, l)
				} else {
					dst[i] = yeoJohnson(v, l)
				}
				continue
			}
			if v <= 0 {
				return estimator.Refuse("PowerTransformer got %v in row %d, feature %d; the Box-Cox transformation takes only numbers above 0", v, x.First+i, c)
			}
			dst[i] = boxCox(v, l)
		}
	}
	if t.scaler != nil {
		return t.scaler.Compute(m, to, out, ws)
	}
	return nil
}

// boxCox is scipy.special.boxcox.
func boxCox(x, l float64) float64 {
	if math.Abs(l) < 1e-19 {
		return estimator.Ln(x)
	}
	log := estimator.Ln(x)
	if l*log < 709.78 {
		return math.Expm1(l*log) / l
	}
	return math.Copysign(1, l)*estimator.Exp(l*log-estimator.Ln(math.Abs(l))) - 1/l
}

// yeoJohnsonPowers is the formula that scikit-learn used until 1.8.
func yeoJohnsonPowers(x, l float64) float64 {
	const eps = 0x1p-52 // np.spacing(1.)
	switch {
	case x != x:
		return x
	case x >= 0 && math.Abs(l) < eps:
		return math.Log1p(x)
	case x >= 0:
		return (math.Pow(x+1, l) - 1) / l
	case math.Abs(l-2) > eps:
		return -(math.Pow(-x+1, 2-l) - 1) / (2 - l)
	}
	return -math.Log1p(-x)
}

// yeoJohnson is scipy.stats.yeojohnson with a given lambda, which scikit-learn has used
// since 1.9. It computes powers minus one by expm1, which loses no digits near 0.
func yeoJohnson(x, l float64) float64 {
	const eps = 0x1p-52 // np.spacing(1.)
	switch {
	case x >= 0 && math.Abs(l) < eps:
		return math.Log1p(x)
	case x >= 0:
		return math.Expm1(l*math.Log1p(x)) / l
	case math.Abs(l-2) > eps:
		return -math.Expm1((2-l)*math.Log1p(-x)) / (2 - l)
	}
	return -math.Log1p(-x)
}

// QuantileTransformer maps each column to a uniform or normal distribution, by the
// quantiles of training.
type QuantileTransformer struct {
	transformer
	normal     bool
	wide       bool      // until 0.20, a value near a bound counts as beyond it
	references []float64 // the quantiles' levels
	quantiles  []float64 // features × references, each column's values ascend
}

// ReadQuantileTransformer reads the attributes of a QuantileTransformer from a file.
func ReadQuantileTransformer(a *estimator.Attributes) estimator.Estimator {
	t := &QuantileTransformer{}
	switch d := a.Text("output_distribution", "uniform"); d {
	case "uniform":
	case "normal":
		t.normal = true
	default:
		a.Unsupported("output_distribution=\""+d+"\"", "use uniform or normal")
	}
	t.refusesNaN, t.wide = !a.AtLeast(0, 20), !a.AtLeast(0, 21)
	t.references = a.Vector("references_", -1)
	n := -1
	if a.Features() > 0 {
		n = a.Features()
	}
	q, rows, cols := a.Matrix("quantiles_", len(t.references), n)
	t.features = cols
	if err := a.Graph().Charge(8 * len(q)); err != nil {
		a.Fail("%w", err)
		return t
	}
	t.quantiles = make([]float64, 0, len(q))
	for c := range cols {
		for r := range rows {
			t.quantiles = append(t.quantiles, q[r*cols+c])
		}
	}
	return t
}

func (t *QuantileTransformer) Class() string                          { return "QuantileTransformer" }
func (t *QuantileTransformer) Outputs(m estimator.Method, in int) int { return same(m, in) }
func (t *QuantileTransformer) Parameters() map[string]any {
	d := "uniform"
	if t.normal {
		d = "normal"
	}
	return map[string]any{"output_distribution": d, "quantiles": len(t.references)}
}

func (t *QuantileTransformer) Fields(c *estimator.Codec) {
	t.fields(c)
	c.Bool(&t.normal)
	c.Bool(&t.wide)
	c.Floats(&t.references)
	c.Floats(&t.quantiles)
}

func (t *QuantileTransformer) Check() error {
	n := len(t.references)
	if n == 0 || t.features == 0 || len(t.quantiles) != n*t.features {
		return misfit(t.Class(), "quantiles_", len(t.quantiles), t.features)
	}
	return nil
}

func (t *QuantileTransformer) of(c int) []float64 {
	n := len(t.references)
	return t.quantiles[c*n : (c+1)*n]
}

// TrainingRange implements estimator.Ranged.
func (t *QuantileTransformer) TrainingRange() (low, high []float64) {
	for c := range t.features {
		q := t.of(c)
		low, high = append(low, q[0]), append(high, q[len(q)-1])
	}
	return low, high
}

func (t *QuantileTransformer) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	const bounds = 1e-7 // scikit-learn's BOUNDS_THRESHOLD
	if err := t.checkScaled(t.Class(), x); err != nil {
		return err
	}
	clipLow, clipHigh := normalQuantile(bounds-0x1p-52), normalQuantile(1-(bounds-0x1p-52))
	for c := range x.Cols {
		q, dst := t.of(c), out.Col(c)
		for i, v := range x.Col(c) {
			if v != v {
				dst[i] = v
				continue
			}
			low, high := v == q[0], v == q[len(q)-1]
			if t.normal || t.wide {
				low, high = v-bounds < q[0], v+bounds > q[len(q)-1]
			}
			y := 0.5 * (interpolate(v, q, t.references, 1) - interpolate(-v, q, t.references, -1))
			switch { // in this order: if both conditions hold, the lower bound wins
			case low:
				y = 0
			case high:
				y = 1
			}
			if t.normal {
				y = min(max(normalQuantile(y), clipLow), clipHigh)
			} else if t.wide {
				y = min(max(y, bounds-0x1p-52), 1-(bounds-0x1p-52))
			}
			dst[i] = y
		}
	}
	return nil
}

// interpolate is np.interp(x, xp, fp); with sign −1 it is np.interp(x,
// −xp reversed, −fp reversed).
func interpolate(x float64, xp, fp []float64, sign float64) float64 {
	n := len(xp)
	at := func(i int) (float64, float64) {
		if sign < 0 {
			return -xp[n-1-i], -fp[n-1-i]
		}
		return xp[i], fp[i]
	}
	// The last point that isn't above x.
	j := sort.Search(n, func(i int) bool { p, _ := at(i); return p > x }) - 1
	if j < 0 {
		_, f := at(0)
		return f
	}
	x0, f0 := at(j)
	if j == n-1 || x0 == x {
		return f0
	}
	x1, f1 := at(j + 1)
	slope := (f1 - f0) / (x1 - x0)
	return float64(slope*(x-x0)) + f0
}

// normalQuantile is scipy.stats.norm.ppf. It uses Go's inverse of erfc and one step of
// Halley's method, which corrects the last digits.
func normalQuantile(p float64) float64 {
	switch {
	case p <= 0:
		return math.Inf(-1)
	case p >= 1:
		return math.Inf(1)
	case p > 0.5:
		return -normalQuantile(1 - p)
	}
	x := -math.Sqrt2 * math.Erfcinv(2*p)
	e := 0.5*math.Erfc(-x/math.Sqrt2) - p
	u := e * math.Sqrt(2*math.Pi) * math.Exp(x*x/2)
	return x - u/(1+x*u/2)
}

// KBinsDiscretizer replaces a value by the number of its bin, or by one column for each
// bin.
type KBinsDiscretizer struct {
	transformer
	edges  []float64 // the edges of the first column, then of the next
	ends   []int32   // for each column, the end of its edges
	oneHot bool
	slack  bool // before 1.1, values a little below an edge count as above it
	single bool // values are rounded to float32 first
}

// ReadKBinsDiscretizer reads the attributes of a KBinsDiscretizer from a file.
func ReadKBinsDiscretizer(a *estimator.Attributes) estimator.Estimator {
	t := &KBinsDiscretizer{slack: !a.AtLeast(1, 1)}
	switch dtype := a.Value("dtype"); {
	case dtype == 0 || dtype.Kind() == pickle.KindNone:
	default:
		kind, size := a.Graph().TypeOf(dtype)
		name := ""
		if c := a.Graph().Global(dtype); c != nil && c.Module == "numpy" {
			name = c.Name
		}
		t.single = kind == 'f' && size == 4 || name == "float32"
		if !t.single && (kind != 'f' || size != 8) && name != "float64" {
			a.Unsupported("dtype="+a.Graph().Describe(dtype), "use None, numpy.float32 or numpy.float64")
		}
	}
	switch e := a.Text("encode", "onehot"); e {
	case "ordinal":
	case "onehot", "onehot-dense":
		t.oneHot = true
	default:
		a.Unsupported("encode=\""+e+"\"", "use ordinal or onehot")
	}
	g := a.Graph()
	arr, err := g.Array(a.Value("bin_edges_"))
	if err != nil {
		a.Fail("bin_edges_ %w", err)
		return t
	}
	rows, err := g.Objects(&arr)
	if err != nil {
		a.Fail("bin_edges_ %w", err)
		return t
	}
	for {
		v, ok := rows.Item()
		if !ok || a.Err() != nil {
			break
		}
		e, _ := a.ArrayOf(v, "bin_edges_", false, -1)
		if err := g.Charge(8 + 16*len(e)); err != nil {
			a.Fail("%w", err)
			break
		}
		t.edges = append(t.edges, e...)
		t.ends = append(t.ends, int32(len(t.edges)))
	}
	t.features = len(t.ends)
	if t.oneHot && a.Has("_encoder") {
		a.Nested(a.Value("_encoder"), "_encoder", t.encoder)
	}
	return t
}

// encoder refuses a OneHotEncoder that was changed after the fit. It must have a column
// for each bin.
func (t *KBinsDiscretizer) encoder(a *estimator.Attributes) {
	a.Unset("drop", "drop_idx_", "_drop_idx_after_grouping", "min_frequency", "max_categories", "_infrequent_enabled", "_legacy_mode")
	if !a.Has("categories_") { // until 0.20, transform fitted the encoder
		return
	}
	g := a.Graph()
	feature, from := 0, 0
	for e := g.Entries(a.Value("categories_")); a.Err() == nil; feature++ {
		v, ok := e.Item()
		if !ok {
			break
		}
		if feature == len(t.ends) {
			a.Fail("categories_ has more than %d features", len(t.ends))
			return
		}
		bins := int(t.ends[feature]) - from - 1
		from = int(t.ends[feature])
		c, _ := a.ArrayOf(v, "categories_", true, bins)
		for i, f := range c {
			if f != float64(i) {
				a.Fail("categories_ has %v instead of the bin number %d", f, i)
				return
			}
		}
	}
	if a.Err() == nil && feature != len(t.ends) {
		a.Fail("categories_ has %d features instead of %d", feature, len(t.ends))
	}
}

func (t *KBinsDiscretizer) Class() string { return "KBinsDiscretizer" }

func (t *KBinsDiscretizer) Outputs(m estimator.Method, in int) int {
	switch {
	case m != estimator.Transform:
		return 0
	case t.oneHot:
		return len(t.edges) - t.features
	}
	return in
}

func (t *KBinsDiscretizer) Parameters() map[string]any { return map[string]any{"one_hot": t.oneHot} }

func (t *KBinsDiscretizer) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Bool(&t.oneHot)
	c.Bool(&t.slack)
	c.Bool(&t.single)
	c.Floats(&t.edges)
	c.Int32s(&t.ends)
}

func (t *KBinsDiscretizer) Check() error {
	last := int32(0)
	for _, e := range t.ends {
		if e < last+2 || int(e) > len(t.edges) {
			return estimator.Misfit("KBinsDiscretizer: bin_edges_ has a feature without bins")
		}
		last = e
	}
	if t.features == 0 || len(t.ends) != t.features || int(last) != len(t.edges) {
		return misfit(t.Class(), "bin_edges_", len(t.ends), t.features)
	}
	return nil
}

func (t *KBinsDiscretizer) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if err := x.CheckFinite(t.Class()); err != nil {
		return err
	}
	if t.oneHot {
		clear(out.X)
	}
	first, column := 0, 0
	for c := range x.Cols {
		edges := t.edges[first:t.ends[c]]
		first = int(t.ends[c])
		inner := edges[1 : len(edges)-1]
		for i, v := range x.Col(c) {
			switch {
			case t.single && math.IsInf(float64(float32(v)), 0):
				return estimator.Refuse("KBinsDiscretizer got %v in row %d, feature %d, which is too large for its dtype float32; scikit-learn refuses it too", v, x.First+i, c)
			case t.single && t.slack:
				f := float32(v)
				slack := float32(1e-5) * float32(math.Abs(float64(f)))
				slack += 1e-8
				v = float64(f + slack)
			case t.single:
				v = float64(float32(v))
			case t.slack:
				v += 1e-8 + 1e-5*math.Abs(v)
			}
			bin := sort.Search(len(inner), func(j int) bool { return inner[j] > v })
			if t.oneHot {
				out.Col(column + bin)[i] = 1
			} else {
				out.Col(c)[i] = float64(bin)
			}
		}
		column += len(edges) - 1
	}
	return nil
}

// TrainingRange implements estimator.Ranged.
func (t *KBinsDiscretizer) TrainingRange() (low, high []float64) {
	first := int32(0)
	for _, end := range t.ends {
		low, high = append(low, t.edges[first]), append(high, t.edges[end-1])
		first = end
	}
	return low, high
}
