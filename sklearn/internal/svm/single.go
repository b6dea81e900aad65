package svm

import (
	"fmt"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// OneClassSVM is an outlier detector. A row is an inlier if its decision is above 0; a
// decision of exactly 0 means an outlier.
type OneClassSVM struct {
	single
	nu     float64 // NaN if the file doesn't have it
	scores bool    // whether score_samples exists, as since 0.20
	offset float64
}

// ReadOneClassSVM reads the attributes of a OneClassSVM from a file.
func ReadOneClassSVM(a *estimator.Attributes) estimator.Estimator {
	s := &OneClassSVM{nu: math.NaN()}
	s.read(a, "one_class")
	s.scores = a.AtLeast(0, 20)
	if a.Has("nu") {
		s.nu = a.Float("nu")
	}
	s.offset = -s.intercept
	if a.Has("offset_") { // only score_samples uses offset_
		s.offset = a.Float("offset_")
	}
	return s
}

// Class implements estimator.Estimator, as do the methods below.
func (s *OneClassSVM) Class() string { return "OneClassSVM" }

func (s *OneClassSVM) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict || m == estimator.DecisionFunction || (m == estimator.ScoreSamples && s.scores) {
		return 1
	}
	return 0
}

func (s *OneClassSVM) Parameters() map[string]any {
	p := s.parameters()
	p["intercept"] = s.intercept
	if s.nu-s.nu == 0 {
		p["nu"] = s.nu
	}
	return p
}

func (s *OneClassSVM) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Float(&s.nu)
	c.Bool(&s.scores)
	c.Float(&s.offset)
}

func (s *OneClassSVM) Check() error {
	return s.check(s.Class())
}

func (s *OneClassSVM) Decide(x *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	if err := x.CheckFinite(s.Class()); err != nil {
		return err
	}
	if prediction == nil {
		prediction = ws.Floats(x.Rows)
	}
	if score == nil {
		score = ws.Floats(x.Rows)
	}
	s.decide(x, prediction, score, ws)
	return nil
}

func (s *OneClassSVM) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	dst := out.Col(0)
	if m == estimator.Predict {
		return s.Decide(x, dst, nil, ws)
	}
	err := s.Decide(x, nil, dst, ws)
	if m == estimator.ScoreSamples {
		for i := range dst {
			dst[i] += s.offset
		}
	}
	return err
}

// Degenerate implements estimator.Detector: it proves that every row has the same
// label. The bounds also hold for the rounded sums: kernels are in [0, 1], and rounding
// is monotonic, so replacing each kernel by its bound in the same order bounds the
// result.
func (s *OneClassSVM) Degenerate() (label int, why string) {
	if s.kind != rbf {
		return 0, ""
	}
	var high, low float64
	for _, c := range s.coef {
		if s.gamma > 0 {
			high += max(c, 0)
			low += min(c, 0)
		} else { // every kernel is 1
			high += c
			low += c
		}
	}
	high += s.intercept
	low += s.intercept
	switch {
	case high <= 0 || s.isolated():
		why := fmt.Sprintf("its %d support vectors are too far apart, or their weights are too small", len(s.coef))
		if len(s.coef) == 1 {
			why = "its only support vector is exactly at the limit"
		}
		return -1, "no decision can be above 0: " + why + "; train it again with a larger nu or gamma, or more varied data"
	case low > 0:
		return 1, "no decision can be 0 or less; train it again with a larger nu or gamma"
	}
	return 0, ""
}

// maxIsolated limits the number of vectors for the quadratic proof.
const maxIsolated = 64

// isolated proves by a sharper bound that no decision is above 0. Let support vector i
// be the one nearest to x. Then x is at least half as far from any other vector j as j
// is from i. So the kernel of j is at most exp(−gamma·d²/4), where d is the distance
// between i and j. A margin covers the rounding of these operations.
func (s *OneClassSVM) isolated() bool {
	n := len(s.coef)
	if n < 2 || n > maxIsolated || s.intercept >= 0 {
		return false
	}
	centre := estimator.Block{X: make([]float64, s.dims), Rows: 1, Cols: s.dims, Stride: 1}
	for j := range n {
		for k := range centre.X {
			centre.X[k] += s.vectors[j*s.dims+k] / float64(n)
		}
	}
	if s.sum(&centre, 0, s.coef)+s.intercept > 0 {
		return false // nearly all models end here; the loops below are for the others
	}
	for i := range n {
		sum := 0.0
		for j, c := range s.coef {
			dist := 0.0
			for k := range s.dims {
				d := s.vectors[i*s.dims+k] - s.vectors[j*s.dims+k]
				dist += d * d
			}
			sum += max(c, 0) * math.Exp(-s.gamma*dist/4)
		}
		if sum*(1+1e-12) > -s.intercept {
			return false
		}
	}
	return true
}

// Regressor is SVR and NuSVR, which differ only in training.
type Regressor struct {
	single
	class string
}

// ReadSVR reads the attributes of an SVR from a file.
func ReadSVR(a *estimator.Attributes) estimator.Estimator { return readRegressor(a, "epsilon_svr") }

// ReadNuSVR reads the attributes of a NuSVR from a file.
func ReadNuSVR(a *estimator.Attributes) estimator.Estimator { return readRegressor(a, "nu_svr") }

func readRegressor(a *estimator.Attributes, impl string) estimator.Estimator {
	r := NewRegressor(a.Class)
	r.read(a, impl)
	return r
}

// NewRegressor returns an empty Regressor for a record to be read into.
func NewRegressor(class string) *Regressor { return &Regressor{class: class} }

func (r *Regressor) Class() string { return r.class }

func (r *Regressor) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict {
		return 1
	}
	return 0
}

func (r *Regressor) Parameters() map[string]any { return r.parameters() }
func (r *Regressor) Fields(c *estimator.Codec)  { r.fields(c) }
func (r *Regressor) Check() error               { return r.check(r.class) }

func (r *Regressor) Compute(_ estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(r.class); err != nil {
		return err
	}
	dst := out.Col(0)
	for i, v := range r.sums(x, r.coef, ws)[:x.Rows] {
		dst[i] = v + r.intercept
	}
	return nil
}

// Constant implements estimator.Steady.
func (r *Regressor) Constant() (constant bool, why string) {
	for _, c := range r.coef {
		if c != 0 {
			return false, ""
		}
	}
	return true, "it has no support vectors: all training rows were within epsilon; train it again with a smaller epsilon"
}
