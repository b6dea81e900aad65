// Package estimator says what a fitted scikit-learn estimator is here: a value
// that reads its attributes from a file, writes itself into a native record,
// checks itself, and computes on blocks of rows.
//
// The estimators themselves stand in the packages beside it, named as
// scikit-learn's modules. An Estimator is immutable once checked and safe for
// concurrent use; a Workspace belongs to one goroutine at a time.
package estimator

// Method is one of scikit-learn's.
type Method uint8

// The methods.
const (
	Predict Method = iota
	DecisionFunction
	ScoreSamples
	PredictProba
	PredictLogProba
	Transform
	Methods // how many there are
)

var methodNames = [Methods]string{"predict", "decision_function", "score_samples", "predict_proba", "predict_log_proba", "transform"}

// String is scikit-learn's name.
func (m Method) String() string {
	if m < Methods {
		return methodNames[m]
	}
	return "unknown"
}

// Estimator is a fitted estimator.
type Estimator interface {
	// Class is scikit-learn's name.
	Class() string
	// Features is how many columns a row must have; 0 if any number will do.
	Features() int
	// Outputs is how many columns a method gives for rows of in columns; 0 if
	// the estimator doesn't have the method.
	Outputs(m Method, in int) int
	// Compute writes what a method gives into out, which has x's rows and the
	// method's columns. It doesn't change x. An error is of kind Invalid and
	// means that scikit-learn raises one too.
	Compute(m Method, x, out *Block, ws *Workspace) error
	// Parameters are what governs the results, for people: numbers, strings,
	// booleans.
	Parameters() map[string]any
	// Fields reads or writes all state.
	Fields(c *Codec)
	// Check judges state that was read from anywhere: after it, Compute can't
	// reach outside its arrays.
	Check() error
}

// Detector is an outlier detector: predict gives +1 for inliers, −1 for outliers.
type Detector interface {
	Estimator
	// Decide writes decision_function and predict of each row in one go.
	Decide(x *Block, prediction, score []float64, ws *Workspace) error
	// Degenerate says whether every row has the same label, whatever its values:
	// +1 or −1, and why; 0 if that isn't known.
	Degenerate() (label int, why string)
}

// Classifier gives one of several labels.
type Classifier interface {
	Estimator
	Labels() *Labels
}

// Chooser is a classifier whose labels follow from what decision_function gives,
// or predict_proba where it has no such method: then both take one computation.
type Chooser interface {
	Choose(scores *Block, label []float64)
}

// Steady is an estimator, no outlier detector, that may predict the same for
// every row.
type Steady interface {
	// Constant says whether it does, and why; false if that isn't known.
	Constant() (constant bool, why string)
}

// Parent is an estimator that others are part of, for people to look through.
type Parent interface {
	Estimator
	Parts() []Part
}

// Inverter is a transformer that can turn back what it made.
type Inverter interface {
	Invertible() bool
	// Invert replaces what Transform gave by what it was given.
	Invert(b *Block) error
}

// Part is an estimator in its place.
type Part struct {
	Name string // within its parent; may be empty
	Est  Estimator
}

// Ranged knows the range of each feature in training.
type Ranged interface {
	TrainingRange() (low, high []float64)
}

// Typical knows a range of each feature in which most of its values in training
// lay.
type Typical interface {
	TypicalRange() (low, high []float64)
}

// Sized says how large a model is.
type Sized interface {
	SupportVectors() int
	Nodes() int
}

// MaxFeatures bounds how many columns an estimator takes or gives.
const MaxFeatures = 1 << 20
