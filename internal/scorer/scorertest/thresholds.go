package scorertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// Threshold is a model of the runtime Thresholds: rows whose features add up to more
// than Above are outliers. It is kept as JSON.
type Threshold struct {
	Count int      // of features
	Names []string // of the features; nil if it knows none
	Above float64
}

// Bytes is the model as a runtime reads it.
func (h Threshold) Bytes() []byte {
	data, err := json.Marshal(h)
	if err != nil {
		panic(err) // a number that JSON can't hold
	}
	return data
}

// Thresholds is a runtime in this process whose models are Thresholds.
type Thresholds struct{}

// Worker implements scorer.Runtime.
func (Thresholds) Worker() (scorer.Worker, error) { return &threshold{}, nil }

type threshold struct{ Threshold }

// Load implements scorer.Worker.
func (h *threshold) Load(_ context.Context, data []byte) (scorer.Model, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var read Threshold
	if err := dec.Decode(&read); err != nil {
		return nil, fmt.Errorf("it is no threshold: %w", err)
	}
	if read.Count < 1 || read.Names != nil && len(read.Names) != read.Count {
		return nil, fmt.Errorf("a threshold of %d features, %d names", read.Count, len(read.Names))
	}
	h.Threshold = read
	return h, nil
}

// Close implements scorer.Worker.
func (h *threshold) Close() {}

// Traits implements scorer.Model.
func (h *threshold) Traits() scorer.Traits {
	return scorer.Traits{Features: h.Count, Named: h.Names != nil, OutlierDetector: true}
}

// HasFeatureNames implements scorer.Model.
func (h *threshold) HasFeatureNames(names []string) bool { return slices.Equal(h.Names, names) }

// FeatureNames implements scorer.Model.
func (h *threshold) FeatureNames() []string { return h.Names }

// Predict implements scorer.Model.
func (h *threshold) Predict(ctx context.Context, _ time.Time, columns [][]float64, prediction, score []float64) error {
	if len(columns) != h.Count {
		return fmt.Errorf("%d columns for %d features", len(columns), h.Count)
	}
	for i := range prediction {
		sum := 0.0
		for _, c := range columns {
			sum += c[i]
		}
		prediction[i], score[i] = 1, h.Above-sum
		if sum > h.Above {
			prediction[i] = -1
		}
	}
	return ctx.Err()
}
