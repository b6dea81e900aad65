package sklearn

import (
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// Info describes a loaded model. It marshals to JSON with stable names.
type Info struct {
	Format          string     `json:"format"`                   // how the file is written: "pickle", "joblib", "skops" or "record"
	Protocol        int        `json:"protocol"`                 // the pickle protocol, 0 to 5
	Within          string     `json:"within,omitempty"`         // where the model stood in a dict, list or tuple, such as ["model"]
	Steps           []Step     `json:"steps"`                    // the estimators, outer ones first
	Versions        []string   `json:"versions"`                 // scikit-learn releases the file records, each once
	Features        int        `json:"features"`                 // columns a row must have; 0 for any number
	FeatureNames    []string   `json:"feature_names"`            // their names, where the model was fitted with names
	OutlierDetector bool       `json:"outlier_detector"`         // predictions are +1 and −1
	Classes         []string   `json:"classes"`                  // a classifier's labels
	OutputClasses   [][]string `json:"output_classes,omitempty"` // those of each output, of a classifier that gives several labels a row
	Methods         []string   `json:"methods"`                  // what can be computed, such as "predict_proba"
	SupportVectors  int        `json:"support_vectors"`          // of all its support vector machines
	Nodes           int        `json:"nodes"`                    // of all its trees
	Training        []Range    `json:"training"`                 // per feature, what it was trained on; empty where the file doesn't say
	Typical         []Range    `json:"typical"`                  // per feature, where most of its values in training lay; empty where the file doesn't say
	Health          []Finding  `json:"health"`                   // what is wrong with it; empty when nothing is known
}

// Step is one estimator of a model.
type Step struct {
	Name       string         `json:"name"`       // its name in the pipeline, such as "prepare__scaler"; empty outside one
	Class      string         `json:"class"`      // such as "StandardScaler"
	Version    string         `json:"version"`    // the scikit-learn release that wrote it; may be empty
	Parameters map[string]any `json:"parameters"` // what governs its scores; numbers, strings and booleans
}

// Range is the least and the greatest value of a feature in training.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// FindingCode says what kind of thing is wrong with a model.
type FindingCode string

// The findings.
const (
	// FlagsEverything: every row is an outlier, whatever its values.
	FlagsEverything FindingCode = "flags_everything"
	// FlagsNothing: no row is an outlier, whatever its values.
	FlagsNothing FindingCode = "flags_nothing"
	// Constant: a classifier or regressor gives the same for every row.
	Constant FindingCode = "constant"
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
	return slices.ContainsFunc(i.Health, func(f Finding) bool { return f.Code == FlagsEverything || f.Code == FlagsNothing || f.Code == Constant })
}

// Chain is the classes of the steps that rows pass, such as "StandardScaler →
// OneClassSVM". Pipelines themselves are left out.
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

// Info describes the model. It is made anew by each call, so the caller may keep
// and change it.
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

// walk lists an estimator and its parts.
func (i *Info) walk(e estimator.Estimator, name string) {
	i.Steps = append(i.Steps, Step{Name: name, Class: e.Class(), Parameters: e.Parameters()})
	if p, ok := e.(estimator.Parent); ok {
		for _, part := range p.Parts() {
			i.walk(part.Est, part.Name)
		}
	}
}
