package sklearn

import "slices"

// Info describes a loaded model. It marshals to JSON with stable names.
type Info struct {
	Format          string    `json:"format"`           // how the file is written: "pickle"
	Protocol        int       `json:"protocol"`         // the pickle protocol, 0 to 5
	Steps           []Step    `json:"steps"`            // the estimators a row passes, in order
	Versions        []string  `json:"versions"`         // scikit-learn releases the file records, each once
	Features        int       `json:"features"`         // columns a row must have
	FeatureNames    []string  `json:"feature_names"`    // their names, where the model was fitted with names
	OutlierDetector bool      `json:"outlier_detector"` // predictions are +1 and −1
	SupportVectors  int       `json:"support_vectors"`  // of all its support vector machines
	Health          []Finding `json:"health"`           // what is wrong with it; empty when nothing is known
}

// Step is one estimator of a model.
type Step struct {
	Name       string         `json:"name"`       // its name in the pipeline; empty outside one
	Class      string         `json:"class"`      // such as "StandardScaler", or "passthrough"
	Version    string         `json:"version"`    // the scikit-learn release that wrote it; may be empty
	Parameters map[string]any `json:"parameters"` // what governs its scores; numbers, strings and booleans
}

// FindingCode says what kind of thing is wrong with a model.
type FindingCode string

// The findings.
const (
	// FlagsEverything: every row is an outlier, whatever its values.
	FlagsEverything FindingCode = "flags_everything"
	// FlagsNothing: no row is an outlier, whatever its values.
	FlagsNothing FindingCode = "flags_nothing"
	// TooOld: a current scikit-learn can't load or score the file.
	TooOld FindingCode = "too_old"
)

// Finding is one thing wrong with a model.
type Finding struct {
	Code    FindingCode `json:"code"`
	Message string      `json:"message"` // what, why, and what to do
}

// Degenerate reports whether the model's predictions can't depend on the data.
func (i Info) Degenerate() bool {
	return slices.ContainsFunc(i.Health, func(f Finding) bool { return f.Code == FlagsEverything || f.Code == FlagsNothing })
}

// Chain is the classes of the steps, such as "StandardScaler → OneClassSVM".
func (i Info) Chain() string {
	s := ""
	for n, step := range i.Steps {
		if n > 0 {
			s += " → "
		}
		s += step.Class
	}
	return s
}
