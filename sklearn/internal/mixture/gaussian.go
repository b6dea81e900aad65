package mixture

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// shape is GaussianMixture's covariance_type.
type shape int

const (
	full shape = iota
	tied
	diag
	spherical
)

var shapeNames = [...]string{"full", "tied", "diag", "spherical"}

// GaussianMixture predicts the most likely of several normal distributions.
type GaussianMixture struct {
	features int
	shape    shape
	weights  []float64
	means    []float64 // components × features
	cholesky []float64 // the Cholesky factors of the precisions, in the form of the shape
}

// ReadGaussianMixture reads the attributes of a GaussianMixture from a file.
func ReadGaussianMixture(a *estimator.Attributes) estimator.Estimator {
	g := &GaussianMixture{weights: a.Vector("weights_", -1)}
	k := len(g.weights)
	g.means, _, g.features = a.Matrix("means_", k, -1)
	d := g.features
	const name = "precisions_cholesky_"
	switch t := a.Text("covariance_type", "full"); t {
	case "full":
		g.cholesky, _ = a.Array(name, true, k, d, d)
	case "tied":
		g.shape = tied
		g.cholesky, _ = a.Array(name, true, d, d)
	case "diag":
		g.shape = diag
		g.cholesky, _ = a.Array(name, true, k, d)
	case "spherical":
		g.shape = spherical
		g.cholesky, _ = a.Array(name, true, k)
	default:
		a.Unsupported("covariance_type="+t, "use full, tied, diag or spherical")
	}
	return g
}

// Class implements estimator.Estimator, as do the methods below.
func (g *GaussianMixture) Class() string { return "GaussianMixture" }

func (g *GaussianMixture) Features() int { return g.features }

func (g *GaussianMixture) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict, estimator.ScoreSamples:
		return 1
	case estimator.PredictProba:
		return len(g.weights)
	}
	return 0
}

func (g *GaussianMixture) Parameters() map[string]any {
	return map[string]any{"n_components": len(g.weights), "covariance_type": shapeNames[g.shape]}
}

func (g *GaussianMixture) Fields(c *estimator.Codec) {
	s := int(g.shape)
	c.Int(&g.features)
	c.Int(&s)
	g.shape = shape(s)
	c.Floats(&g.weights)
	c.Floats(&g.means)
	c.Floats(&g.cholesky)
}

func (g *GaussianMixture) Check() error {
	k, d := len(g.weights), g.features
	if g.shape > spherical || k < 1 || d < 1 || len(g.means) != k*d || len(g.cholesky) != [...]int{k * d * d, d * d, k * d, k}[g.shape] {
		return estimator.Misfit("GaussianMixture: the shapes of the attributes don't fit %d components of %d features", k, d)
	}
	return nil
}

// logs writes the logarithm of weight × density of each component.
func (g *GaussianMixture) logs(x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(g.Class()); err != nil {
		return err
	}
	d := g.features
	row := ws.Floats(d)
	for k, w := range g.weights {
		mean := g.means[k*d : (k+1)*d]
		constant := -0.5*float64(d)*math.Log(2*math.Pi) + math.Log(w) + g.logDeterminant(k)
		dst := out.Col(k)
		for r := range dst {
			x.Row(r, row)
			for c, m := range mean {
				row[c] -= m
			}
			dst[r] = -0.5*g.squared(k, row) + constant
		}
	}
	return nil
}

func (g *GaussianMixture) logDeterminant(k int) float64 {
	d, sum := g.features, 0.0
	for c := range d {
		switch g.shape {
		case full:
			sum += math.Log(g.cholesky[k*d*d+c*d+c])
		case tied:
			sum += math.Log(g.cholesky[c*d+c])
		case diag:
			sum += math.Log(g.cholesky[k*d+c])
		default:
			sum += math.Log(g.cholesky[k])
		}
	}
	return sum
}

// squared returns the squared length of a centred row times the factor.
func (g *GaussianMixture) squared(k int, row []float64) float64 {
	d, sum := g.features, 0.0
	switch g.shape {
	case full, tied:
		m := g.cholesky
		if g.shape == full {
			m = m[k*d*d : (k+1)*d*d]
		}
		for c := range d {
			dot := 0.0
			for i, v := range row {
				dot += float64(v * m[i*d+c])
			}
			sum += float64(dot * dot)
		}
	case diag:
		for c, v := range row {
			v *= g.cholesky[k*d+c]
			sum += float64(v * v)
		}
	default:
		for _, v := range row {
			v *= g.cholesky[k]
			sum += float64(v * v)
		}
	}
	return sum
}

func (g *GaussianMixture) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	logs := ws.Block(x, len(g.weights))
	if err := g.logs(x, logs, ws); err != nil {
		return err
	}
	switch m {
	case estimator.Predict:
		for r := range out.Col(0) {
			best := 0
			for k := 1; k < logs.Cols; k++ {
				if logs.X[k*logs.Stride+r] > logs.X[best*logs.Stride+r] {
					best = k
				}
			}
			out.Col(0)[r] = float64(best)
		}
	case estimator.PredictProba:
		if logs.Cols == 1 {
			for r := range out.Col(0) {
				out.Col(0)[r] = 1
			}
			return nil
		}
		estimator.Softmax(logs, out)
	default:
		estimator.LogSumExp(logs, out.Col(0))
	}
	return nil
}

// GaussianNB is a classifier with a normal distribution for each class and column.
type GaussianNB struct {
	features   int
	labels     estimator.Labels
	prior      []float64
	means      []float64 // classes × features
	variations []float64
}

// ReadGaussianNB reads the attributes of a GaussianNB from a file.
func ReadGaussianNB(a *estimator.Attributes) estimator.Estimator {
	g := &GaussianNB{labels: a.Labels("classes_")}
	k := g.labels.Len()
	g.prior = a.Vector("class_prior_", k)
	g.means, _, g.features = a.Matrix("theta_", k, -1)
	g.variations, _, _ = a.Matrix(a.FirstOf("var_", "sigma_"), k, g.features)
	return g
}

func (g *GaussianNB) Class() string             { return "GaussianNB" }
func (g *GaussianNB) Features() int             { return g.features }
func (g *GaussianNB) Labels() *estimator.Labels { return &g.labels }

func (g *GaussianNB) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict:
		return 1
	case estimator.PredictProba, estimator.PredictLogProba:
		return g.labels.Len()
	}
	return 0
}

func (g *GaussianNB) Parameters() map[string]any { return map[string]any{"classes": g.labels.Len()} }

func (g *GaussianNB) Fields(c *estimator.Codec) {
	c.Int(&g.features)
	g.labels.Fields(c)
	c.Floats(&g.prior)
	c.Floats(&g.means)
	c.Floats(&g.variations)
}

func (g *GaussianNB) Check() error {
	k, d := g.labels.Len(), g.features
	if d < 1 || len(g.prior) != k || len(g.means) != k*d || len(g.variations) != k*d {
		return estimator.Misfit("GaussianNB: the shapes of the attributes don't fit %d classes of %d features", k, d)
	}
	return g.labels.Check(g.Class())
}

func (g *GaussianNB) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(g.Class()); err != nil {
		return err
	}
	d := g.features
	logs := ws.Block(x, g.labels.Len())
	for k, p := range g.prior {
		mean, variation := g.means[k*d:(k+1)*d], g.variations[k*d:(k+1)*d]
		constant := 0.0
		for _, v := range variation {
			constant += math.Log(2 * math.Pi * v)
		}
		dst := logs.Col(k)
		clear(dst)
		for c := range d {
			for r, v := range x.Col(c) {
				e := v - mean[c]
				dst[r] += e * e / variation[c]
			}
		}
		for r, v := range dst {
			dst[r] = math.Log(p) + (-0.5*constant - 0.5*v)
		}
	}
	switch {
	case m == estimator.Predict && logs.Cols == 1:
		for r := range out.Col(0) {
			out.Col(0)[r] = g.labels.Values[0]
		}
	case m == estimator.Predict:
		estimator.Choose(logs, out.Col(0), &g.labels)
	default:
		sum := ws.Floats(x.Rows)
		estimator.LogSumExp(logs, sum)
		for k := range logs.Cols {
			for r, v := range logs.Col(k) {
				out.Col(k)[r] = v - sum[r]
				if m == estimator.PredictProba {
					out.Col(k)[r] = math.Exp(v - sum[r])
				}
			}
		}
	}
	return nil
}

// Constant implements estimator.Steady.
func (g *GaussianMixture) Constant() (constant bool, why string) {
	return len(g.weights) == 1, "it has one component; train it with more components, or use its score_samples"
}
