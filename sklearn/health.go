package sklearn

import (
	"fmt"
	"math"
	"strings"
)

// health says what is wrong with a model, as far as that can be proved.
func (m *Model) health() []Finding {
	found := []Finding{}
	if svm, ok := m.last.(*oneClassSVM); ok {
		found = append(found, svm.degenerate()...)
	}
	return append(found, m.age()...)
}

// degenerate proves that every row has the same label. The bounds hold for the
// rounded sums as well: kernels lie in [0, 1], and rounding is monotonic, so
// replacing each kernel by its bound, in the same order, bounds the result.
func (m *oneClassSVM) degenerate() []Finding {
	var high, low float64
	for _, c := range m.coef {
		one := float64(c)
		if m.gamma > 0 {
			high += max(one, 0)
			low += min(one, 0)
		} else { // every kernel is 1
			high += one
			low += one
		}
	}
	high += m.intercept
	low += m.intercept
	switch {
	case high <= 0 || m.isolated():
		why := fmt.Sprintf("its %d support vectors lie too far apart or weigh too little", len(m.coef))
		if len(m.coef) == 1 {
			why = "its only support vector is itself just at the limit"
		}
		return []Finding{{FlagsEverything, "every row is an outlier, whatever its values, because no decision can be above 0: " + why +
			"; train again with a larger nu or gamma, or more varied data"}}
	case low > 0:
		return []Finding{{FlagsNothing, "no row is an outlier, whatever its values, because no decision can be 0 or less; train again with a larger nu or gamma"}}
	}
	return nil
}

// maxIsolated limits the quadratic proof.
const maxIsolated = 64

// isolated proves that no decision is above 0 by a sharper bound. Let sv i be
// the one nearest to x: then any other sv j is at least half as far from x as
// from i, so its kernel is at most exp(−gamma·d²/4), where d is the distance
// between the two. A margin covers the rounding of these few operations.
func (m *oneClassSVM) isolated() bool {
	n := len(m.coef)
	if n < 2 || n > maxIsolated || m.intercept >= 0 {
		return false
	}
	centre := make([]float64, m.dims)
	for j := range n {
		for k := range centre {
			centre[k] += m.sv[j*m.dims+k] / float64(n)
		}
	}
	if m.decision(centre) > 0 {
		return false // as for nearly all models; the loops below are for the rest
	}
	for i := range n {
		sum := 0.0
		for j, c := range m.coef {
			dist := 0.0
			for k := range m.dims {
				d := m.sv[i*m.dims+k] - m.sv[j*m.dims+k]
				dist += d * d
			}
			sum += max(c, 0) * math.Exp(-m.gamma*dist/4)
		}
		if sum*(1+1e-12) > -m.intercept {
			return false
		}
	}
	return true
}

// age finds what current scikit-learn can't load or score.
func (m *Model) age() []Finding {
	var why []string
	for _, p := range m.parts {
		if p.module != "" {
			why = append(why, "module "+p.module+" is gone")
		}
	}
	if svm, ok := m.last.(*oneClassSVM); ok && !svm.native {
		why = append(why, "OneClassSVM lacks the attribute _n_support")
	}
	if len(why) == 0 {
		return nil
	}
	release := "an early scikit-learn"
	if len(m.versions) > 0 {
		release = "scikit-learn " + strings.Join(m.versions, ", ")
	}
	return []Finding{{TooOld, "written by " + release + "; a current scikit-learn can't score it (" + strings.Join(why, ", ") +
		"); it is scored here all the same, but train it again before you need it in Python"}}
}
