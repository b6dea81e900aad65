package scorer

import (
	"context"
	"time"

	"github.com/fleetscore/fleetscore/sklearn"
)

// Runtime is a way to score with models: it reads their bytes and predicts. Package
// scorertest is the suite that every runtime passes. It must be safe for concurrent
// use.
type Runtime interface {
	// Worker makes what one goroutine scores with.
	Worker() (Worker, error)
}

// Worker reads models one after the other. It belongs to one goroutine.
type Worker interface {
	// Load reads a model. It refers to data, and is valid until the next Load. After
	// an error the worker can be used on.
	Load(ctx context.Context, data []byte) (Model, error)
	// Close gives free what the worker holds.
	Close()
}

// Model is a model that a worker has read.
type Model interface {
	Traits() Traits
	// HasFeatureNames tells whether these are the names of the features that the
	// model was trained with. It is asked for every model of a fleet.
	HasFeatureNames(names []string) bool
	// FeatureNames are these names; nil if the model knows none.
	FeatureNames() []string
	// Predict scores rows, given column by column. It fills prediction and score,
	// which are as long as the columns; what the model's score is says the runtime.
	// A runtime that can't be interrupted elsewhere gives up at the deadline or when
	// ctx ends; it is given few rows at a time.
	Predict(ctx context.Context, deadline time.Time, columns [][]float64, prediction, score []float64) error
}

// Traits are what the scorer has to know of a model.
type Traits struct {
	Features        int  // columns that it takes; 0 means any
	Named           bool // it knows its features' names
	OutlierDetector bool // predictions are +1 for an inlier and −1 for an outlier
	Degenerate      bool // it flags everything or nothing, whatever the data
}

// Native is the runtime that reads scikit-learn models as data and scores them in
// this process.
type Native struct{}

// Worker implements Runtime.
func (Native) Worker() (Worker, error) { return &native{}, nil }

// native is a native worker, and the model that it has read.
type native struct {
	record  sklearn.RecordReader
	scratch sklearn.Scratch
	model   *sklearn.Model
}

// Load implements Worker. Native records, which large fleets are made of, are read
// into the same memory again and again.
func (n *native) Load(_ context.Context, data []byte) (Model, error) {
	var err error
	if sklearn.IsRecord(data) {
		n.model, err = n.record.Read(data)
	} else {
		n.model, err = sklearn.Load(data)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Close implements Worker.
func (n *native) Close() {}

// Traits implements Model.
func (n *native) Traits() Traits {
	m := n.model
	return Traits{Features: m.NumFeatures(), Named: m.Named(), OutlierDetector: m.OutlierDetector(), Degenerate: m.Degenerate()}
}

// HasFeatureNames implements Model.
func (n *native) HasFeatureNames(names []string) bool { return n.model.HasFeatureNames(names) }

// FeatureNames implements Model.
func (n *native) FeatureNames() []string { return n.model.FeatureNames() }

// Predict implements Model. It always ends: no model of scikit-learn that is read
// has a loop without an end.
func (n *native) Predict(_ context.Context, _ time.Time, columns [][]float64, prediction, score []float64) error {
	return n.model.PredictColumns(columns, prediction, score, &n.scratch)
}
