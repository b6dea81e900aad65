package pickle

import (
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// foreign is a class or function that isn't on the list. To name one does nothing, as
// in a parameter scoring=my_function, which no prediction depends on, nor does an empty
// object of it; so it is refused only where it would be called with arguments, or where
// its meaning is asked for.
type foreign struct{ module, name string }

// pushForeign pushes a name that isn't on the list.
func (g *Graph) pushForeign(module, name []byte) error {
	f := foreign{Clean(module), Clean(name)}
	if runs(f.module, f.name) {
		return g.names.refusal(f, true)
	}
	if err := g.Charge(2*64 + len(f.module) + len(f.name)); err != nil {
		return err
	}
	g.foreign = append(g.foreign, f)
	return g.push(makeValue(kindForeign, len(g.foreign)-1))
}

// Foreign is the refusal of a class or function which isn't on the list, or of an object
// of such a class; nil for anything else.
func (g *Graph) Foreign(v Value) error {
	if v = g.classOf(v); v.kind() != kindForeign {
		return nil
	}
	return g.names.refusal(g.foreign[v.index()], false)
}

// called refuses what isn't on the list and would be called with arguments.
func (g *Graph) called(callable Value) error {
	return g.names.refusal(g.foreign[callable.index()], true)
}

// refusal explains a class or function that isn't on the list; called says that
// Python would call it with arguments that the file gives.
func (n *Names) refusal(f foreign, called bool) error {
	full := f.module + "." + f.name
	top, _, _ := strings.Cut(f.module, ".")
	is := func(reason refusal.Reason, message string) *fleetscore.Error {
		return refusal.Of(refusal.Refusal{Reason: reason, Class: full}, message, full)
	}
	const unsupported = "%s is not supported"
	if way, ok := libraries[top]; ok {
		return is(refusal.Library, unsupported+": it belongs to the library "+top+", not to scikit-learn").WithHint("%s", way)
	}
	switch {
	case f.module == "joblib.numpy_pickle_compat" || strings.HasPrefix(f.name, "NDArrayWrapper"):
		return is(refusal.Class, unsupported).WithHint("joblib before 0.10 kept arrays in files beside this one; write the model again with a newer joblib")
	case strings.HasPrefix(f.module, "scipy.sparse"):
		return is(refusal.Parameter, unsupported).WithHint("the model was fitted on sparse data; fit it on a dense array, such as X.toarray()")
	case top == "sklearn":
		return is(refusal.Class, unsupported).WithHint("supported are %s; train the model with these, or save the supported estimator in it, such as best_estimator_ or a step of a pipeline; %s", n.supported, later)
	case called || runs(f.module, f.name):
		return is(refusal.Code, unsupported+": Python would run it with what the file says when it reads the file").
			WithHint("no supported model needs it, nothing was run; if you don't know why it is there, don't open the file with Python's pickle either")
	case top == "numpy" || top == "scipy":
		return is(refusal.Class, unsupported).WithHint("fit the model on plain arrays of numbers, and write it again with pickle.dump")
	case top == "pandas" || top == "polars":
		return is(refusal.Class, unsupported).WithHint("write the fitted estimator alone, without tables of data beside it")
	case top == "__main__":
		return is(refusal.Class, unsupported).WithHint("classes and functions of a training script are code, which a file doesn't hold; save the fitted estimator of scikit-learn within it; supported are %s; %s", n.supported, later)
	}
	return is(refusal.Class, unsupported).WithHint("it is none of scikit-learn's classes; save the fitted estimator of scikit-learn within it; supported are %s; %s", n.supported, later)
}

const later = "a later release will run other models in an isolated Python"

// libraries are those whose models people have beside scikit-learn's, and what to do
// with each.
var libraries = func() map[string]string {
	out := map[string]string{}
	add := func(way string, names ...string) {
		for _, n := range names {
			out[n] = way
		}
	}
	add("train one of scikit-learn's, such as HistGradientBoosting; a later release will score such models by a runtime of their own or as ONNX",
		"xgboost", "lightgbm", "catboost", "ngboost", "h2o", "cuml", "interpret", "snapml", "daal4py", "sklearnex", "onedal")
	add("save the estimator of scikit-learn within it, such as its attribute detector_, if it has one; "+later, "pyod", "adtk", "alibi_detect")
	add("samplers change training rows alone: put the fitted steps other than the sampler into a Pipeline of scikit-learn and save that; "+later, "imblearn")
	add(later+", or as ONNX", "torch", "torchvision", "keras", "tensorflow", "tensorflow_core", "skorch", "fastai", "pytorch_lightning", "lightning", "jax", "jaxlib", "flax", "mxnet", "paddle", "transformers", "scikeras", "pytorch_tabnet")
	add("a later release will score ONNX models", "onnx", "onnxruntime", "skl2onnx", "onnxmltools")
	add("save the fitted estimator of scikit-learn within it, such as best_estimator_, fitted_pipeline_ or the model of the last step; "+later,
		"mlflow", "pycaret", "tpot", "autosklearn", "flaml", "skopt", "optuna", "optuna_integration", "hyperopt", "hpsklearn", "dask_ml", "dask", "distributed", "ray", "tune_sklearn", "evalml", "autogluon", "sklearn_genetic", "mapie", "econml", "shap", "sklearn_pandas", "mlxtend", "yellowbrick", "eli5", "dice_ml", "alibi", "river", "bentoml", "snorkel")
	add("encode or transform the columns by what scikit-learn has, or before the rows reach the model; "+later,
		"category_encoders", "feature_engine", "sklego", "umap", "tsfresh", "sktime", "tslearn", "aeon", "pyts", "skrub", "dirty_cat", "sklearn_extra", "sklearn_crfsuite", "formulaic", "patsy", "pywt", "librosa", "featuretools", "stumpy")
	add(later, "statsmodels", "pmdarima", "prophet", "fbprophet", "neuralprophet", "darts", "lifelines", "sksurv", "hdbscan", "fastcluster", "gensim", "spacy", "nltk", "textblob", "surprise", "implicit", "lightfm", "pymc", "pymc3", "pystan", "cmdstanpy", "pyro", "numpyro", "gpy", "GPy", "gpflow", "gpytorch", "celer", "glum", "pygam", "pyearth", "gplearn", "pysr", "cupy", "skfuzzy", "deepchem", "polyglot", "pyspark", "py4j", "skmultiflow", "pomegranate", "hmmlearn", "filterpy", "kneed", "ruptures", "merlion", "kats", "orbit", "gluonts", "rrcf", "isotree", "eif", "sparkml")
	return out
}()

// runs reports whether a name is that of something by which a file can run code or
// reach outside itself. Such a name is refused wherever it stands.
func runs(module, name string) bool {
	top, _, _ := strings.Cut(module, ".")
	if top == "builtins" || top == "__builtin__" {
		return !harmless[name]
	}
	return dangerous[top]
}

var dangerous = set("os posix posixpath nt ntpath subprocess _posixsubprocess commands popen2 sys importlib imp runpy pty shutil socket _socket socketserver ctypes _ctypes cffi code codeop timeit pdb bdb profile cProfile trace " +
	"webbrowser platform marshal pickle _pickle cPickle pickletools shelve types operator _operator multiprocessing concurrent threading _thread thread asyncio signal ssl http httplib urllib urllib2 ftplib smtplib telnetlib xmlrpc " +
	"pip setuptools distutils pkgutil zipimport zipfile tarfile inspect linecache tempfile io _io fileinput glob sqlite3 tkinter idlelib doctest unittest test requests aiohttp site sysconfig venv ensurepip nntplib poplib imaplib logging gc weakref atexit builtin pydoc")

var harmless = set("int float complex bool str bytes bytearray list tuple dict set frozenset slice range object type NoneType unicode long max min sum len abs round sorted any all print property ValueError TypeError KeyError Exception Warning UserWarning FutureWarning DeprecationWarning RuntimeWarning")

func set(words string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}
