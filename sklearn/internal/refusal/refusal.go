// Package refusal says why a file isn't taken as a model: a closed list of reasons,
// and the class and the parameter at fault. Every error of loading is made here, so
// that a caller never has to look at words.
//
// It does no I/O. A Refusal is immutable once made.
package refusal

import (
	"errors"
	"fmt"

	"github.com/fleetscore/fleetscore"
)

// Op is the operation in the errors of files.
const Op = "load model"

// Reason is why a file isn't taken.
type Reason uint8

// The reasons. Numbers and names never change.
const (
	// Damaged: the bytes are none that a model was written to, or they contradict
	// themselves.
	Damaged Reason = iota + 1
	// Cut: the file ends before what was written does.
	Cut
	// NotModel: the file is of another kind, or holds something else than a model.
	NotModel
	// Code: Python would run code that no model needs when it read the file.
	Code
	// Library: the model is one of a library other than scikit-learn.
	Library
	// Class: a class or function isn't supported.
	Class
	// Parameter: a parameter, or how the model was fitted, isn't supported.
	Parameter
	// NotFitted: the estimator was written before it was fitted.
	NotFitted
	// NotFinite: the model holds NaN or infinity where scores come from.
	NotFinite
	// TooLarge: reading needs more memory or work than is allowed.
	TooLarge
	// Late: the time for loading ended.
	Late
	// Several: the file holds several models, and nothing says which one counts.
	Several
)

var names = [...]string{"unknown", "damaged", "cut", "no_model", "code", "library", "class", "parameter", "not_fitted", "not_finite", "too_large", "late", "several"}

// String is the reason's name in JSON and reports, such as "not_fitted".
func (r Reason) String() string {
	if int(r) < len(names) {
		return names[r]
	}
	return names[0]
}

// MarshalText writes the name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name; one that this release doesn't know becomes 0.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = 0
	for i, n := range names {
		if n == string(text) {
			*r = Reason(i)
		}
	}
	return nil
}

// Refusal is why a file wasn't taken. It stands in a [fleetscore.Error], whose Hint
// says what to do.
type Refusal struct {
	Reason    Reason
	Class     string // the class, function or library at fault, such as "sklearn.cluster._dbscan.DBSCAN", "OneClassSVM" or "xgboost"; may be empty
	Step      string // the estimator's name within the model, such as "prepare__scaler"; may be empty
	Parameter string // the parameter or attribute at fault, such as "kernel"; may be empty
	err       error
}

// Error is the message, without what to do.
func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap gives the cause, if there is one.
func (r *Refusal) Unwrap() error { return errors.Unwrap(r.err) }

// New makes a refusal whose message is the formatted one; %w wraps.
func New(reason Reason, format string, args ...any) *fleetscore.Error {
	return Of(Refusal{Reason: reason}, format, args...)
}

// Of makes a refusal of a reason, class, step and parameter.
func Of(r Refusal, format string, args ...any) *fleetscore.Error {
	kind := fleetscore.Invalid
	if r.Reason == Late {
		kind = fleetscore.Unavailable
	}
	r.err = fmt.Errorf(format, args...)
	return &fleetscore.Error{Op: Op, Kind: kind, Err: &r}
}

// Is reports whether err is a refusal for that reason.
func (r Reason) Is(err error) bool {
	var of *Refusal
	return errors.As(err, &of) && of.Reason == r
}
