package sklearn

import (
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// Info describes a loaded model. The JSON names of its fields don't change.
type Info struct {
	Format          string     `json:"format"`                   // how the file is written: "pickle", "joblib", "skops", "mlflow" or "record"
	Protocol        int        `json:"protocol"`                 // the pickle protocol, 0 to 5; 0 for a record
	Within          string     `json:"within,omitempty"`         // the place of the model if the file holds a dict, list or tuple, such as ["model"]
	Steps           []Step     `json:"steps"`                    // the estimators; an outer estimator comes before those in it
	Versions        []string   `json:"versions"`                 // the scikit-learn releases that the file names, each once
	Features        int        `json:"features"`                 // the number of columns that a row must have; 0 if the model takes any number
	FeatureNames    []string   `json:"feature_names"`            // the features' names; empty if the model was fitted without names
	OutlierDetector bool       `json:"outlier_detector"`         // whether predictions are +1 (inlier) and −1 (outlier)
	Classes         []string   `json:"classes"`                  // a classifier's labels
	OutputClasses   [][]string `json:"output_classes,omitempty"` // the labels of each output, for a classifier with several labels per row
	Methods         []string   `json:"methods"`                  // the methods that can be computed, such as "predict_proba"
	SupportVectors  int        `json:"support_vectors"`          // the number of support vectors in all parts of the model
	Nodes           int        `json:"nodes"`                    // the number of nodes in all trees of the model
	Training        []Range    `json:"training"`                 // for each feature, the least and the greatest value in training; empty if the file doesn't hold them
	Typical         []Range    `json:"typical"`                  // for each feature, the range of most values in training; empty if the file doesn't hold it
	Health          []Finding  `json:"health"`                   // the known faults of the model
}

// Step is one estimator of a model.
type Step struct {
	Name       string         `json:"name"`       // the name in the pipeline, such as "prepare__scaler"; empty outside a pipeline
	Class      string         `json:"class"`      // such as "StandardScaler"
	Version    string         `json:"version"`    // the scikit-learn release that wrote it; empty if the file doesn't say
	Parameters map[string]any `json:"parameters"` // the parameters that scores depend on; numbers, strings and booleans
}

// Range holds the least and the greatest value of a feature in training.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// FindingCode names a kind of fault that a model can have.
type FindingCode string

// The kinds of findings.
const (
	// FlagsEverything: every row is an outlier, whatever its values.
	FlagsEverything FindingCode = "flags_everything"
	// FlagsNothing: no row is an outlier, whatever its values.
	FlagsNothing FindingCode = "flags_nothing"
	// Constant: a classifier or regressor predicts the same for every row.
	Constant FindingCode = "constant"
	// TooOld: a current scikit-learn can't load or score the file.
	TooOld FindingCode = "too_old"
)

// Finding is one fault of a model.
type Finding struct {
	Code    FindingCode `json:"code"`
	Message string      `json:"message"` // what, why, and what to do
}

// Degenerate reports whether every row gets the same prediction, whatever its values.
func (i Info) Degenerate() bool {
	return slices.ContainsFunc(i.Health, func(f Finding) bool { return f.Code == FlagsEverything || f.Code == FlagsNothing || f.Code == Constant })
}

// Chain returns the classes of the steps that rows pass through, in order, such as
// "StandardScaler → OneClassSVM". It leaves out the pipelines themselves.
func (i Info) Chain() string {
	s := ""
	for _, step := range i.Steps {
		if step.Class == "Pipeline" && len(i.Steps) > 1 {
			continue
		}
		if s != "" {
			s += " → "
		}
		s += step.Class
	}
	return s
}

// Info returns a description of the model. Each call makes a new one, so the caller may
// keep it and change it.
func (m *Model) Info() Info {
	i := Info{
		Format: "record", Features: m.features, OutlierDetector: m.detector != nil, Health: m.health(),
		Steps: []Step{}, Versions: []string{}, FeatureNames: []string{}, Classes: []string{}, Methods: []string{}, Training: []Range{}, Typical: []Range{},
	}
	if f := m.file; f != nil {
		i.Format, i.Protocol, i.Within = f.format, f.protocol, f.within
		i.Versions = append(i.Versions, f.versions...)
		for _, s := range f.steps {
			i.Steps = append(i.Steps, Step{Name: s.Name, Class: s.Est.Class(), Version: s.Version, Parameters: s.Est.Parameters()})
		}
	} else if m.root != nil {
		i.walk(m.root, "")
	}
	i.FeatureNames = append(i.FeatureNames, m.FeatureNames()...)
	i.SupportVectors, i.Nodes = estimator.Size([]estimator.Estimator{m.root})
	i.Classes = append(i.Classes, m.Classes()...)
	if several, ok := m.last.(interface{ LabelSets() []*estimator.Labels }); ok {
		for _, l := range several.LabelSets() {
			i.OutputClasses = append(i.OutputClasses, l.All())
		}
	}
	for _, method := range m.Methods() {
		i.Methods = append(i.Methods, method.String())
	}
	first := m.last
	if len(m.front) > 0 {
		first = m.front[0]
	}
	if r, ok := first.(estimator.Ranged); ok {
		i.Training = ranges(r.TrainingRange())
	}
	if t, ok := first.(estimator.Typical); ok {
		i.Typical = ranges(t.TypicalRange())
	}
	return i
}

func ranges(low, high []float64) []Range {
	out := make([]Range, len(low))
	for c := range low {
		out[c] = Range{low[c], high[c]}
	}
	return out
}

// walk adds an estimator and its parts to the description.
func (i *Info) walk(e estimator.Estimator, name string) {
	i.Steps = append(i.Steps, Step{Name: name, Class: e.Class(), Parameters: e.Parameters()})
	if p, ok := e.(estimator.Parent); ok {
		for _, part := range p.Parts() {
			i.walk(part.Est, part.Name)
		}
	}
}
