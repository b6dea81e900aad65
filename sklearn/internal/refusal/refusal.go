// Package refusal says why a file is refused as a model: it has a closed list of
// reasons, and keeps the class and the parameter at fault. All errors of loading are
// made here, so that callers needn't parse messages.
//
// The package does no I/O. A Refusal is immutable.
package refusal

import (
	"errors"
	"fmt"

	"github.com/fleetscore/fleetscore"
)

// Op is the operation in the errors of files.
const Op = "load model"

// Reason is why a file is refused.
type Reason uint8

// The reasons. Their numbers and names never change.
const (
	// Damaged: no writer of models makes such bytes, or parts of the file contradict
	// each other.
	Damaged Reason = iota + 1
	// Cut: the file ends too early.
	Cut
	// NotModel: the file has another format, or holds something other than a model.
	NotModel
	// Code: Python would run code that no model needs if it read the file.
	Code
	// Library: the model comes from a library other than scikit-learn.
	Library
	// Class: a class or function in the file isn't supported.
	Class
	// Parameter: a parameter, or how the model was fitted, isn't supported.
	Parameter
	// NotFitted: the estimator was written before it was fitted.
	NotFitted
	// NotFinite: the model holds NaN or infinity in numbers that scores depend on.
	NotFinite
	// TooLarge: reading the file needs more memory or work than is allowed.
	TooLarge
	// Late: the time for loading ended.
	Late
	// Several: the file holds several models, and nothing says which one to score.
	Several
)

var names = [...]string{"unknown", "damaged", "cut", "no_model", "code", "library", "class", "parameter", "not_fitted", "not_finite", "too_large", "late", "several"}

// String returns the reason's name in JSON and reports, such as "not_fitted".
func (r Reason) String() string {
	if int(r) < len(names) {
		return names[r]
	}
	return names[0]
}

// MarshalText writes the name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name. A name that this release doesn't know becomes 0.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = 0
	for i, n := range names {
		if n == string(text) {
			*r = Reason(i)
		}
	}
	return nil
}

// Refusal is why a file was refused. It is wrapped in a [fleetscore.Error], whose Hint
// says what to do.
type Refusal struct {
	Reason    Reason
	Class     string // the class, function or library at fault, such as "sklearn.cluster._dbscan.DBSCAN", "OneClassSVM" or "xgboost"; may be empty
	Step      string // the estimator's name within the model, such as "prepare__scaler"; may be empty
	Parameter string // the parameter or attribute at fault, such as "kernel"; may be empty
	err       error
}

// Error returns the message without the hint.
func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap returns the cause, or nil.
func (r *Refusal) Unwrap() error { return errors.Unwrap(r.err) }

// New returns a refusal with a formatted message. The verb %w wraps an error.
func New(reason Reason, format string, args ...any) *fleetscore.Error {
	return Of(Refusal{Reason: reason}, format, args...)
}

// Of returns a refusal like r, with a formatted message. The verb %w wraps an error.
func Of(r Refusal, format string, args ...any) *fleetscore.Error {
	kind := fleetscore.Invalid
	if r.Reason == Late {
		kind = fleetscore.Unavailable
	}
	r.err = fmt.Errorf(format, args...)
	return &fleetscore.Error{Op: Op, Kind: kind, Err: &r}
}

// Is reports whether err is a refusal for the reason r.
func (r Reason) Is(err error) bool {
	var of *Refusal
	return errors.As(err, &of) && of.Reason == r
}
