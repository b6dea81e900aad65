package sklearn

import (
	"strings"
	"unicode"

	"github.com/fleetscore/fleetscore"
)

// globalID says what a class or function means to us, whatever module it is
// written under.
type globalID uint8

const (
	globalPipeline globalID = iota + 1
	globalStandardScaler
	globalOneClassSVM
	globalReconstruct // numpy: an array, its contents follow by BUILD
	globalFrombuffer  // numpy: an array from bytes
	globalScalar      // numpy: one number
	globalNdarray
	globalDtype
	globalEncode        // bytes, as a string and a codec
	globalReconstructor // an object, in protocols 0 and 1
	globalNewobj        // the same, by another name
	globalObject
	globalBytes
	globalBytearray
	globalOrderedDict
	globalInert // may stand in a file, is never read
)

// global is one name a file may contain. Nothing is ever called: a name only
// says how the values beside it are to be read.
type global struct {
	module, name string
	id           globalID
	retired      bool // a module that current scikit-learn doesn't have
}

// globals is the whole list. A name that isn't on it refuses the file.
var globals = [...]global{
	{"sklearn.pipeline", "Pipeline", globalPipeline, false},
	{"sklearn.preprocessing._data", "StandardScaler", globalStandardScaler, false},
	{"sklearn.preprocessing.data", "StandardScaler", globalStandardScaler, true},
	{"sklearn.svm._classes", "OneClassSVM", globalOneClassSVM, false},
	{"sklearn.svm.classes", "OneClassSVM", globalOneClassSVM, true},

	{"numpy.core.multiarray", "_reconstruct", globalReconstruct, false},
	{"numpy._core.multiarray", "_reconstruct", globalReconstruct, false},
	{"numpy.core.multiarray", "scalar", globalScalar, false},
	{"numpy._core.multiarray", "scalar", globalScalar, false},
	{"numpy.core.numeric", "_frombuffer", globalFrombuffer, false},
	{"numpy._core.numeric", "_frombuffer", globalFrombuffer, false},
	{"numpy", "ndarray", globalNdarray, false},
	{"numpy", "dtype", globalDtype, false},

	{"_codecs", "encode", globalEncode, false},
	{"copy_reg", "_reconstructor", globalReconstructor, false},
	{"copyreg", "_reconstructor", globalReconstructor, false},
	{"copy_reg", "__newobj__", globalNewobj, false},
	{"copyreg", "__newobj__", globalNewobj, false},
	{"__builtin__", "object", globalObject, false},
	{"builtins", "object", globalObject, false},
	{"__builtin__", "bytes", globalBytes, false},
	{"builtins", "bytes", globalBytes, false},
	{"__builtin__", "bytearray", globalBytearray, false},
	{"builtins", "bytearray", globalBytearray, false},
	{"collections", "OrderedDict", globalOrderedDict, false},

	// A random_state that was an object.
	{"numpy.random", "__RandomState_ctor", globalInert, false},
	{"numpy.random._pickle", "__randomstate_ctor", globalInert, false},
	{"numpy.random._pickle", "__bit_generator_ctor", globalInert, false},
	{"numpy.random._mt19937", "MT19937", globalInert, false},
}

// globalIndex finds a global by module, then name.
var globalIndex = func() map[string]map[string]int {
	m := map[string]map[string]int{}
	for i, g := range globals {
		if m[g.module] == nil {
			m[g.module] = map[string]int{}
		}
		m[g.module][g.name] = i
	}
	return m
}()

// class is the short name that messages and Info use.
func (id globalID) class() string {
	switch id {
	case globalPipeline:
		return "Pipeline"
	case globalStandardScaler:
		return "StandardScaler"
	case globalOneClassSVM:
		return "OneClassSVM"
	}
	return ""
}

const supported = "Pipeline, StandardScaler and OneClassSVM with kernel=\"rbf\""

// refusal explains a class or function that isn't on the list.
func refusal(module, name []byte) error {
	mod := clean(module)
	full := mod + "." + clean(name)
	err := fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%s is not supported", full)
	top, _, _ := strings.Cut(mod, ".")
	switch {
	case mod == "joblib" || strings.HasPrefix(mod, "joblib.") || strings.HasPrefix(mod, "sklearn.externals.joblib"):
		return err.WithHint("the file was written by joblib; write it with pickle.dump")
	case top == "scipy":
		return err.WithHint("the model was fitted on sparse data; fit it on a dense array, such as X.toarray()")
	case top == "sklearn":
		return err.WithHint("supported are %s; train the model with these", supported)
	case top == "numpy":
		return err.WithHint("fit the model on plain arrays of numbers, and write it again with pickle.dump")
	case mod == "__main__":
		return err.WithHint("classes and functions of a training script can't be scored; supported are %s", supported)
	}
	return err.WithHint("no supported model needs it, nothing was run; if you don't know why it is there, don't open the file with Python's pickle either; supported are %s", supported)
}

// clean makes a name from a file fit for a message.
func clean(b []byte) string {
	const limit = 100
	var s strings.Builder
	for i, r := range string(b[:min(len(b), 4*limit)]) {
		if i >= limit {
			s.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		s.WriteRune(r)
	}
	return s.String()
}
