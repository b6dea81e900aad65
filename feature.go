package fleetscore

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// FeatureOrder says how the features of a pipeline are matched to those of a model.
type FeatureOrder string

// The two orders. A model that was fitted without feature names always takes features
// by position.
const (
	FeaturesByName     FeatureOrder = "name"     // a model that knows its feature names gets each column by its name
	FeaturesByPosition FeatureOrder = "position" // the first feature is the model's first, whatever its name
)

// Validate refuses other values. Empty means by name.
func (o FeatureOrder) Validate() error {
	switch o {
	case "", FeaturesByName, FeaturesByPosition:
		return nil
	}
	return Errorf(Invalid, "read features_by", string(o), "the value must be name or position")
}

// SplitFeature splits a feature of a pipeline, "Val=Value" or "Value", into its name
// on output and the dataset's column.
func SplitFeature(s string) (output, column string) {
	if out, col, ok := strings.Cut(s, "="); ok {
		return out, col
	}
	return s, s
}

// MatchFeatures finds for each of a model's feature names the feature of that name:
// order[i] is the place in features of the model's feature i. The names are those of
// the dataset's columns. If those don't match, the names on output are used, so that
// "Pressure=p" matches a model that knows Pressure. Every feature must be used
// exactly once. The error names both lists.
func MatchFeatures(features, names []string) (order []int, err error) {
	var outputs, columns []string
	for _, f := range features {
		out, column := SplitFeature(f)
		outputs, columns = append(outputs, out), append(columns, column)
	}
	byColumn, byOutput := permutation(columns, names), permutation(outputs, names)
	switch {
	case byColumn != nil && byOutput != nil && !slices.Equal(byColumn, byOutput):
		return nil, fmt.Errorf("the model knows the features %s, which match both the columns %s and the output names %s; give the features other output names",
			nameList(names), nameList(columns), nameList(outputs))
	case byColumn != nil:
		return byColumn, nil
	case byOutput != nil:
		return byOutput, nil
	}
	return nil, fmt.Errorf("the model knows the features %s, the rows have %s%s", nameList(names), nameList(features), misfits(names, columns, outputs))
}

// permutation is nil unless the two lists hold the same names, each once.
func permutation(there, names []string) []int {
	if len(there) != len(names) {
		return nil
	}
	places := make(map[string]int, len(there))
	for i, n := range there {
		places[n] = i
	}
	order := make([]int, len(names))
	used := make([]bool, len(there))
	for i, n := range names {
		at, ok := places[n]
		if !ok || used[at] {
			return nil
		}
		order[i], used[at] = at, true
	}
	return order
}

// misfits lists the names that only the model or only the columns have. A list that
// would hold every name is left out.
func misfits(names, columns, outputs []string) string {
	var missing, extra []string
	for _, n := range names {
		if !slices.Contains(columns, n) && !slices.Contains(outputs, n) {
			missing = append(missing, n)
		}
	}
	for i, c := range columns {
		if !slices.Contains(names, c) && !slices.Contains(names, outputs[i]) {
			extra = append(extra, c)
		}
	}
	s := ""
	if len(missing) > 0 && len(missing) < len(names) {
		s += "; missing: " + nameList(missing)
	}
	if len(extra) > 0 && len(extra) < len(columns) {
		s += "; unknown to the model: " + nameList(extra)
	}
	return s
}

// nameList formats at most 24 names in brackets.
func nameList(names []string) string {
	const most = 24
	if len(names) <= most {
		return "[" + strings.Join(names, ", ") + "]"
	}
	return fmt.Sprintf("[%s and %d more]", strings.Join(names[:most], ", "), len(names)-most)
}

// RuntimeName says how models are scored.
type RuntimeName string

// The runtimes.
const (
	RuntimeNative RuntimeName = "native" // read as data and scored by our own kernels; no code of the file is run
	RuntimeAuto   RuntimeName = "auto"   // native where that is possible, else python
	RuntimePython RuntimeName = "python" // loaded and scored by Python in a process of its own
	RuntimeONNX   RuntimeName = "onnx"   // ONNX models, by onnxruntime in that process
	// RuntimeCommand scores by a program of the user's, which is run for each sensor or task.
	RuntimeCommand RuntimeName = "command"
)

// Validate refuses other words. Empty means native.
func (r RuntimeName) Validate() error {
	switch r {
	case "", RuntimeNative, RuntimeAuto, RuntimePython, RuntimeONNX, RuntimeCommand:
		return nil
	}
	return Errorf(Invalid, "read runtime", string(r), "it is not native, auto, python, onnx or command")
}

// Isolation says how far Python and other programs of users are kept apart from the machine
// that they run on.
type Isolation string

// The choices. Only the operator of a machine may say off.
const (
	IsolationBest     Isolation = "best"     // as far as the machine can
	IsolationRequired Isolation = "required" // nothing is run on a machine that can't isolate whole
	IsolationOff      Isolation = "off"      // not at all
)

// RunsPython reports whether the runtime may score models by Python.
func (r RuntimeName) RunsPython() bool {
	return r == RuntimeAuto || r == RuntimePython || r == RuntimeONNX
}

// CommandPer says how often a pipeline's command is run.
type CommandPer string

// The choices.
const (
	CommandPerKey  CommandPer = "key"  // once for each sensor
	CommandPerTask CommandPer = "task" // once for all sensors of a task
)

// Forms of the file with rows that a command finds.
const (
	CommandCSV     = "csv"
	CommandParquet = "parquet"
)

// SplitCommand splits a command into words as a shell does, at spaces that aren't within
// quotes. Nothing else has a meaning: no variable, no pattern, no pipe.
func SplitCommand(text string) (words []string, err error) {
	var word strings.Builder
	begun, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case strings.ContainsRune(" \t\r\n", c):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote %c isn't closed", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

var placeholder = regexp.MustCompile(`\{[^{}\s"',:]+\}`)

// FillPlaceholders replaces the placeholders of a text, such as {Device}, by their values. A
// placeholder without a value is an error.
func FillPlaceholders(text string, value func(name string) (string, bool)) (string, error) {
	var unknown []string
	out := placeholder.ReplaceAllStringFunc(text, func(p string) string {
		v, ok := value(p[1 : len(p)-1])
		if !ok {
			unknown = append(unknown, p)
		}
		return v
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("nothing is known that %s stands for", strings.Join(unknown, ", "))
	}
	return out, nil
}
