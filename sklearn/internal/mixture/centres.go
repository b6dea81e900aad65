// Package mixture computes scikit-learn's models with centres and spreads: KMeans,
// GaussianMixture, GaussianNB and EllipticEnvelope.
package mixture

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// KMeans predicts the index of the nearest centre.
type KMeans struct {
	class    string
	features int
	centres  []float64 // centres × features
}

// NewKMeans returns an empty KMeans for a record to be read into.
func NewKMeans(class string) *KMeans { return &KMeans{class: class} }

// ReadKMeans reads the attributes of KMeans and MiniBatchKMeans.
func ReadKMeans(a *estimator.Attributes) estimator.Estimator {
	k := NewKMeans(a.Class)
	cols := -1
	if a.Features() > 0 {
		cols = a.Features()
	}
	k.centres, _, k.features = a.Matrix("cluster_centers_", -1, cols)
	return k
}

// Class implements estimator.Estimator, as do the methods below.
func (k *KMeans) Class() string { return k.class }

func (k *KMeans) Features() int { return k.features }

func (k *KMeans) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict:
		return 1
	case estimator.Transform:
		return len(k.centres) / k.features
	}
	return 0
}

func (k *KMeans) Parameters() map[string]any {
	return map[string]any{"n_clusters": len(k.centres) / k.features}
}

func (k *KMeans) Fields(c *estimator.Codec) {
	c.Int(&k.features)
	c.Floats(&k.centres)
}

func (k *KMeans) Check() error {
	if k.features < 1 || len(k.centres) == 0 || len(k.centres)%k.features != 0 {
		return estimator.Misfit("%s: %d numbers don't fit centres with %d features", k.class, len(k.centres), k.features)
	}
	return nil
}

func (k *KMeans) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(k.class); err != nil {
		return err
	}
	n := len(k.centres) / k.features
	d := out
	if m == estimator.Predict {
		d = ws.Block(x, n)
	}
	clear(d.X)
	for i := range n {
		dst := d.Col(i)
		for c, w := range k.centres[i*k.features : (i+1)*k.features] {
			for r, v := range x.Col(c) {
				e := v - w
				dst[r] += float64(e * e)
			}
		}
		if m == estimator.Transform {
			for r, v := range dst {
				dst[r] = math.Sqrt(v)
			}
		}
	}
	if m == estimator.Predict {
		for r := range out.Col(0) {
			best := 0
			for i := 1; i < n; i++ {
				if d.X[i*d.Stride+r] < d.X[best*d.Stride+r] {
					best = i
				}
			}
			out.Col(0)[r] = float64(best)
		}
	}
	return nil
}

// EllipticEnvelope is an outlier detector that uses the distance from a centre: a
// decision of at least 0 means an inlier.
type EllipticEnvelope struct {
	features  int
	location  []float64
	precision []float64 // features × features
	offset    float64
	// In release 0.19 the decision is a difference of powers.
	powers bool
}

// ReadEllipticEnvelope reads the attributes of an EllipticEnvelope from a file.
func ReadEllipticEnvelope(a *estimator.Attributes) estimator.Estimator {
	e := &EllipticEnvelope{location: a.PerFeature("location_"), powers: !a.AtLeast(0, 20)}
	e.features = len(e.location)
	if a.Bool("store_precision", true) && a.Has("precision_") {
		e.precision, _, _ = a.Matrix("precision_", e.features, e.features)
	} else { // the model was fitted with store_precision=False
		covariance, _, _ := a.Matrix("covariance_", e.features, e.features)
		if a.Err() == nil {
			if e.features > maxInverted {
				a.Unsupported("store_precision=False with so many features", "train it with store_precision=True")
				return e
			}
			g := a.Graph()
			if err := g.Charge(3 * 8 * len(covariance)); err != nil {
				a.Fail("%w", err)
				return e
			}
			if e.precision = pseudoInverse(covariance, e.features, g.Spend); e.precision == nil {
				a.Fail("covariance_ takes too much work to invert")
			}
		}
	}
	if e.powers {
		e.offset = -a.Float("threshold_")
	} else {
		e.offset = a.Float("offset_")
	}
	return e
}

func (e *EllipticEnvelope) Class() string { return "EllipticEnvelope" }
func (e *EllipticEnvelope) Features() int { return e.features }

func (e *EllipticEnvelope) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict || m == estimator.DecisionFunction || (m == estimator.ScoreSamples && !e.powers) {
		return 1
	}
	return 0
}

func (e *EllipticEnvelope) Parameters() map[string]any { return map[string]any{"offset": e.offset} }

func (e *EllipticEnvelope) Fields(c *estimator.Codec) {
	c.Int(&e.features)
	c.Floats(&e.location)
	c.Floats(&e.precision)
	c.Float(&e.offset)
	c.Bool(&e.powers)
}

func (e *EllipticEnvelope) Check() error {
	if e.features < 1 || len(e.location) != e.features || len(e.precision) != e.features*e.features {
		return estimator.Misfit("EllipticEnvelope: location_ and precision_ don't fit %d features", e.features)
	}
	return nil
}

// samples writes the negative squared Mahalanobis distances.
func (e *EllipticEnvelope) samples(x *estimator.Block, dst []float64, ws *estimator.Workspace) error {
	if err := x.CheckFinite(e.Class()); err != nil {
		return err
	}
	row := ws.Floats(e.features)
	for r := range dst {
		x.Row(r, row)
		for c, l := range e.location {
			row[c] -= l
		}
		sum := 0.0
		for c, v := range row {
			dot := 0.0
			for k, p := range e.precision[c*e.features : (c+1)*e.features] {
				dot += float64(p * row[k])
			}
			sum += float64(dot * v)
		}
		dst[r] = -sum
	}
	return nil
}

func (e *EllipticEnvelope) Decide(x *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	if score == nil {
		score = ws.Floats(x.Rows)
	}
	score = score[:x.Rows]
	if err := e.samples(x, score, ws); err != nil {
		return err
	}
	for i, s := range score {
		d := s - e.offset
		score[i] = d
		if e.powers {
			score[i] = math.Pow(-e.offset, 0.33) - math.Pow(-s, 0.33)
		}
		if prediction != nil {
			prediction[i] = 1
			if d < 0 {
				prediction[i] = -1
			}
		}
	}
	return nil
}

func (e *EllipticEnvelope) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	switch m {
	case estimator.Predict:
		return e.Decide(x, out.Col(0), nil, ws)
	case estimator.ScoreSamples:
		return e.samples(x, out.Col(0), ws)
	}
	return e.Decide(x, nil, out.Col(0), ws)
}

// Degenerate implements estimator.Detector. The centre is the row with the largest
// decision.
func (e *EllipticEnvelope) Degenerate() (label int, why string) {
	flat := true
	for _, p := range e.precision {
		flat = flat && p == 0
	}
	if flat && 0-e.offset >= 0 {
		return 1, "its precision is 0, so every row is at the centre; train it again with rows that vary"
	}
	if 0-e.offset < 0 {
		return -1, "even the centre is an outlier; train it again with less contamination"
	}
	return 0, ""
}

// Constant implements estimator.Steady.
func (k *KMeans) Constant() (constant bool, why string) {
	return len(k.centres) == k.features, "it has one cluster; train it with more clusters"
}
