package pickle

import (
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// foreign is a class or function that isn't on the list. A name alone does nothing, for
// example in a parameter scoring=my_function, on which no prediction depends. An empty
// object of a class does nothing either. So a foreign name is refused only if Python
// would call it with arguments, or if a prediction depends on it.
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

// Foreign returns the refusal of a class or function that isn't on the list, or of an
// object of such a class. It returns nil for any other value.
func (g *Graph) Foreign(v Value) error {
	if v = g.classOf(v); v.kind() != kindForeign {
		return nil
	}
	return g.names.refusal(g.foreign[v.index()], false)
}

// called refuses a callable that isn't on the list and would be called with arguments.
func (g *Graph) called(callable Value) error {
	return g.names.refusal(g.foreign[callable.index()], true)
}

// refusal returns the refusal of a class or function that isn't on the list. called
// says that Python would call it with arguments from the file.
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
		return is(refusal.Class, unsupported).WithHint("joblib before 0.10 stored arrays in separate files beside the model; write the model again with a newer joblib")
	case strings.HasPrefix(f.module, "scipy.sparse"):
		return is(refusal.Parameter, unsupported).WithHint("the model was fitted on sparse data; fit it on a dense array, such as X.toarray()")
	case top == "sklearn":
		return is(refusal.Class, unsupported).WithHint("%s are supported; train the model with these, or save the supported estimator in it, such as best_estimator_ or a step of a pipeline; or %s", n.supported, inPython)
	case called || runs(f.module, f.name):
		return is(refusal.Code, unsupported+": Python would run it, with arguments from the file, when it reads the file").
			WithHint("no supported model needs it, and Fleetscore ran nothing; if you don't know why the file contains it, don't open the file with Python's pickle")
	case top == "numpy" || top == "scipy":
		return is(refusal.Class, unsupported).WithHint("fit the model on plain arrays of numbers, and write it again with pickle.dump")
	case top == "pandas" || top == "polars":
		return is(refusal.Class, unsupported).WithHint("write the fitted estimator alone, without tables of data")
	case top == "__main__":
		return is(refusal.Class, unsupported).WithHint("classes and functions of a training script are code, and a model's file doesn't contain code; save the scikit-learn estimator inside this object; %s are supported; or %s", n.supported, inPython)
	}
	return is(refusal.Class, unsupported).WithHint("this isn't a class of scikit-learn; save the scikit-learn estimator inside this object; %s are supported; or %s", n.supported, inPython)
}

const inPython = "score it in Python with the runtime auto (docs/python.md)"

// libraries maps other libraries with models to what the user can do with such a model.
var libraries = func() map[string]string {
	out := map[string]string{}
	add := func(way string, names ...string) {
		for _, n := range names {
			out[n] = way
		}
	}
	add("train a model of scikit-learn, such as HistGradientBoosting; or "+inPython,
		"xgboost", "lightgbm", "catboost", "ngboost", "h2o", "cuml", "interpret", "snapml", "daal4py", "sklearnex", "onedal")
	add("save the scikit-learn estimator inside the model, such as its attribute detector_, if it has one; or "+inPython, "pyod", "adtk", "alibi_detect")
	add("a sampler changes only training rows: put the other fitted steps into a scikit-learn Pipeline and save that; or "+inPython, "imblearn")
	add(inPython+", or as ONNX", "torch", "torchvision", "keras", "tensorflow", "tensorflow_core", "skorch", "fastai", "pytorch_lightning", "lightning", "jax", "jaxlib", "flax", "mxnet", "paddle", "transformers", "scikeras", "pytorch_tabnet")
	add("score the file in the format ONNX itself, in Python with the runtime auto (docs/python.md)", "onnx", "onnxruntime", "skl2onnx", "onnxmltools")
	add("save the scikit-learn estimator inside the model, such as best_estimator_, fitted_pipeline_ or the model of the last step; or "+inPython,
		"mlflow", "pycaret", "tpot", "autosklearn", "flaml", "skopt", "optuna", "optuna_integration", "hyperopt", "hpsklearn", "dask_ml", "dask", "distributed", "ray", "tune_sklearn", "evalml", "autogluon", "sklearn_genetic", "mapie", "econml", "shap", "sklearn_pandas", "mlxtend", "yellowbrick", "eli5", "dice_ml", "alibi", "river", "bentoml", "snorkel")
	add("encode or transform the columns with scikit-learn's classes, or before the rows reach the model; or "+inPython,
		"category_encoders", "feature_engine", "sklego", "umap", "tsfresh", "sktime", "tslearn", "aeon", "pyts", "skrub", "dirty_cat", "sklearn_extra", "sklearn_crfsuite", "formulaic", "patsy", "pywt", "librosa", "featuretools", "stumpy")
	add(inPython, "statsmodels", "pmdarima", "prophet", "fbprophet", "neuralprophet", "darts", "lifelines", "sksurv", "hdbscan", "fastcluster", "gensim", "spacy", "nltk", "textblob", "surprise", "implicit", "lightfm", "pymc", "pymc3", "pystan", "cmdstanpy", "pyro", "numpyro", "gpy", "GPy", "gpflow", "gpytorch", "celer", "glum", "pygam", "pyearth", "gplearn", "pysr", "cupy", "skfuzzy", "deepchem", "polyglot", "pyspark", "py4j", "skmultiflow", "pomegranate", "hmmlearn", "filterpy", "kneed", "ruptures", "merlion", "kats", "orbit", "gluonts", "rrcf", "isotree", "eif", "sparkml")
	return out
}()

// runs reports whether a file could use this name to run code or to reach outside
// itself. Such a name is refused anywhere in a file.
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
