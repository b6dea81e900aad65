// Package estimator defines fitted scikit-learn estimators. An estimator reads its
// attributes from a file, writes itself into a native record, checks itself, and
// computes on blocks of rows.
//
// The packages beside this one contain the estimators and are named like scikit-learn's
// modules. An Estimator is immutable after its check and safe for concurrent use. One
// goroutine at a time may use a Workspace.
package estimator

// Method is a method of scikit-learn's estimators.
type Method uint8

// The methods.
const (
	Predict Method = iota
	DecisionFunction
	ScoreSamples
	PredictProba
	PredictLogProba
	Transform
	Methods // the number of methods
)

var methodNames = [Methods]string{"predict", "decision_function", "score_samples", "predict_proba", "predict_log_proba", "transform"}

// String returns scikit-learn's name of the method.
func (m Method) String() string {
	if m < Methods {
		return methodNames[m]
	}
	return "unknown"
}

// Estimator is a fitted estimator.
type Estimator interface {
	// Class returns scikit-learn's name of the class.
	Class() string
	// Features returns the number of columns that a row must have, or 0 for any number.
	Features() int
	// Outputs returns the number of columns that a method writes for rows of in
	// columns, or 0 if the estimator doesn't have the method.
	Outputs(m Method, in int) int
	// Compute writes a method's result into out, which has as many rows as x and the
	// method's columns. It doesn't change x. An error is of kind Invalid and means that
	// scikit-learn raises an error too.
	Compute(m Method, x, out *Block, ws *Workspace) error
	// Parameters returns the parameters that results depend on, for people: numbers,
	// strings and booleans.
	Parameters() map[string]any
	// Fields reads or writes the whole state.
	Fields(c *Codec)
	// Check checks a state from any source. If it returns nil, Compute can't reach
	// outside its arrays.
	Check() error
}

// Detector is an outlier detector: predict returns +1 for inliers and −1 for outliers.
type Detector interface {
	Estimator
	// Decide writes decision_function and predict of each row at once.
	Decide(x *Block, prediction, score []float64, ws *Workspace) error
	// Degenerate returns the label that every row gets, +1 or −1, and why, or 0 if the
	// label depends on the row or this isn't known.
	Degenerate() (label int, why string)
}

// Classifier predicts one of several labels.
type Classifier interface {
	Estimator
	Labels() *Labels
}

// Chooser is a classifier whose label follows from its decision_function, or from its
// predict_proba if it has no decision_function. Then one computation returns both.
type Chooser interface {
	Choose(scores *Block, label []float64)
}

// Steady is an estimator, but not an outlier detector, that may predict the same for
// every row.
type Steady interface {
	// Constant reports whether it predicts the same for every row, and why. It returns
	// false if this isn't known.
	Constant() (constant bool, why string)
}

// Parent is an estimator with other estimators in it, which descriptions list.
type Parent interface {
	Estimator
	Parts() []Part
}

// Inverter is a transformer that can undo its transformation.
type Inverter interface {
	Invertible() bool
	// Invert replaces transformed values by the original values.
	Invert(b *Block) error
}

// Part is an estimator in another one.
type Part struct {
	Name string // its name in the parent; may be empty
	Est  Estimator
}

// Ranged is an estimator that holds the range of each feature in training.
type Ranged interface {
	TrainingRange() (low, high []float64)
}

// Typical is an estimator that holds, for each feature, a range with most of its
// training values.
type Typical interface {
	TypicalRange() (low, high []float64)
}

// Sized is an estimator that returns its size.
type Sized interface {
	SupportVectors() int
	Nodes() int
}

// MaxFeatures is the largest number of columns that an estimator may take or write.
const MaxFeatures = 1 << 20
