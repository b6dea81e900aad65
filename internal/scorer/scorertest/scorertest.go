// Package scorertest is the conformance suite of scorer.Runtime, and a runtime of
// plain thresholds for tests that need no scikit-learn models.
package scorertest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// Sample is a model and what it says.
type Sample struct {
	Name       string
	Data       []byte
	Traits     scorer.Traits
	Names      []string    // of its features, if it knows them
	Columns    [][]float64 // rows, column by column
	Prediction []float64   // what it predicts for them, exactly
}

// Run checks that a runtime does what package scorer expects of it. It takes at least
// two samples, and bytes that are no model of the runtime's.
func Run(t *testing.T, r scorer.Runtime, samples []Sample, bad [][]byte) {
	if len(samples) < 2 || len(bad) == 0 {
		t.Fatal("the suite needs two models, and bytes that are none")
	}
	for _, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			w := open(t, r)
			check(t, w, s)
			pieces(t, w, s)
			wrongColumns(t, w, s)
			check(t, w, s) // what was refused left nothing behind
		})
	}
	t.Run("one after the other", func(t *testing.T) {
		w := open(t, r)
		for range 3 {
			for _, s := range samples {
				check(t, w, s)
			}
		}
	})
	t.Run("bad models", func(t *testing.T) {
		w := open(t, r)
		for _, data := range bad {
			if m, err := w.Load(t.Context(), data); err == nil {
				t.Errorf("%.40q was read as a model: %+v", data, m.Traits())
			}
			check(t, w, samples[0])
		}
	})
	t.Run("at once", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 4 {
			w := open(t, r)
			all.Go(func() {
				for n := range 2 * len(samples) {
					check(t, w, samples[(i+n)%len(samples)])
				}
			})
		}
		all.Wait()
	})
}

func open(t *testing.T, r scorer.Runtime) scorer.Worker {
	t.Helper()
	w, err := r.Worker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// soon is a deadline that no sample needs.
func soon() time.Time { return time.Now().Add(time.Minute) }

func check(t *testing.T, w scorer.Worker, s Sample) {
	t.Helper()
	m, err := w.Load(context.Background(), s.Data)
	if err != nil {
		t.Errorf("%s: %v", s.Name, err)
		return
	}
	if got := m.Traits(); got != s.Traits {
		t.Errorf("%s: traits %+v, want %+v", s.Name, got, s.Traits)
	}
	names := m.FeatureNames()
	if !slices.Equal(names, s.Names) || m.Traits().Named != (len(names) > 0) || m.Traits().Named && !m.HasFeatureNames(names) {
		t.Errorf("%s: feature names %q, want %q", s.Name, names, s.Names)
	}
	if m.Traits().Named && m.HasFeatureNames(append(slices.Clone(names), "another")) {
		t.Errorf("%s takes other names for its own", s.Name)
	}
	prediction, score := blank(len(s.Prediction)), blank(len(s.Prediction))
	if err := m.Predict(context.Background(), soon(), s.Columns, prediction, score); err != nil {
		t.Errorf("%s: %v", s.Name, err)
	} else if !slices.Equal(prediction, s.Prediction) {
		t.Errorf("%s predicts %v, want %v", s.Name, prediction, s.Prediction)
	}
	if slices.ContainsFunc(score, isBlank) {
		t.Errorf("%s leaves scores out: %v", s.Name, score)
	}
}

// The results are filled with a value that no model gives.
const nobodys = -987654321.5

func blank(n int) []float64 { return slices.Repeat([]float64{nobodys}, n) }

func isBlank(v float64) bool { return v == nobodys }

// pieces scores the rows in pieces of every size, none among them.
func pieces(t *testing.T, w scorer.Worker, s Sample) {
	t.Helper()
	m, err := w.Load(t.Context(), s.Data)
	if err != nil {
		t.Fatal(err)
	}
	n := len(s.Prediction)
	whole, score := blank(n), blank(n)
	if err := m.Predict(t.Context(), soon(), s.Columns, whole, score); err != nil {
		t.Fatal(err)
	}
	for size := range n {
		got, gotScore := blank(n), blank(n)
		for from := 0; from < n; from += max(size, 1) {
			to := min(from+size, n)
			if size == 0 {
				to = from
			}
			var part [][]float64
			for _, c := range s.Columns {
				part = append(part, c[from:to])
			}
			if err := m.Predict(t.Context(), soon(), part, got[from:to], gotScore[from:to]); err != nil {
				t.Fatalf("%d rows at once: %v", to-from, err)
			}
		}
		if size > 0 && (!slices.Equal(got, whole) || !near(gotScore, score)) {
			t.Errorf("%d rows at once give %v and %v, all at once %v and %v", size, got, gotScore, whole, score)
		}
	}
}

// near tells whether scores are the same but for the order of their arithmetic.
func near(a, b []float64) bool {
	for i := range a {
		if d := math.Abs(a[i] - b[i]); d > 1e-9*max(1, math.Abs(a[i])) {
			return false
		}
	}
	return true
}

// wrongColumns gives a model one column too many: an error, and no panic.
func wrongColumns(t *testing.T, w scorer.Worker, s Sample) {
	t.Helper()
	m, err := w.Load(t.Context(), s.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("a column too many panics: %v", fmt.Sprint(p))
		}
	}()
	n := len(s.Prediction)
	more := append(slices.Clone(s.Columns), make([]float64, n))
	if err := m.Predict(t.Context(), soon(), more, blank(n), blank(n)); err == nil && s.Traits.Features > 0 {
		t.Errorf("%d columns for %d features are no error", len(more), s.Traits.Features)
	}
}
