package scorer

import (
	"errors"
	"fmt"

	"github.com/fleetscore/fleetscore"
)

// shape is feature names that a model had, and where they stand among the
// features. A fleet has few shapes and many models, so they are matched once.
type shape struct {
	names []string
	order []int // nil where the features stand as the model has them
	err   error
}

// maxShapes is how many shapes a worker remembers: models of several kinds come
// in turns.
const maxShapes = 8

// order finds the places of the model's features among those of the rows, by
// name where the model knows names; nil if they stand as they are.
func (r *run) order(w *worker, m Model) ([]int, error) {
	traits := m.Traits()
	got, want := len(r.columns), traits.Features
	if !traits.Named || r.spec.FeaturesBy == fleetscore.FeaturesByPosition {
		if got != want && want != 0 {
			return nil, fmt.Errorf("the model expects %d features, %d are configured", want, got)
		}
		return nil, nil
	}
	for i := range w.shapes {
		if s := &w.shapes[i]; m.HasFeatureNames(s.names) {
			return s.order, s.err
		}
	}
	s := shape{names: m.FeatureNames()}
	if s.order, s.err = fleetscore.MatchFeatures(r.spec.Features, s.names); s.err != nil {
		s.err = errors.New(s.err.Error() + "; name the columns that it was trained with, or take them by position (" + r.spec.byPosition() + ")")
	}
	if inOrder(s.order) {
		s.order = nil
	}
	if len(w.shapes) < maxShapes {
		w.shapes = append(w.shapes, s)
	} else {
		w.shapes[w.oldest] = s
		w.oldest = (w.oldest + 1) % maxShapes
	}
	return s.order, s.err
}

// byPosition is how people ask for features by position.
func (s *Spec) byPosition() string {
	if s.PositionOption != "" {
		return s.PositionOption
	}
	return "features_by: position"
}

func inOrder(order []int) bool {
	for i, at := range order {
		if i != at {
			return false
		}
	}
	return true
}

// arranged are the gathered columns in the order that the model wants.
func (w *worker) arranged(order []int) [][]float64 {
	if order == nil {
		return w.columns
	}
	w.ordered = resize(w.ordered, len(order))
	for i, at := range order {
		w.ordered[i] = w.columns[at]
	}
	return w.ordered
}
