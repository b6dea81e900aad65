"""Reads models of any library from the bytes of their files, and asks them to predict.

The worker runs this text as a module once NumPy is there (_worker.py).
"""
import importlib
import io
import os
import pickle
import re
import shutil
import sys
import tempfile

import numpy as np


def load(data, name):
    """The model in a file's bytes, whatever library wrote it."""
    forget()
    return read(data)


def read(data):
    start = bytes(data[:4])
    if start == b"PK\x03\x04":
        return load_zip(data)
    if start[:1] in (b"\x08", b"\x0a"):
        return load_onnx(data)
    if start[:1] == b"{":
        return load_xgboost(data)
    if start == b"tree":
        import lightgbm
        return lightgbm.Booster(model_str=bytes(data).decode())
    if start[:1] == b"\x80" and re.search(b"joblib", data) is None:
        return pickle.loads(data)  # joblib, which can read it too, takes many times as long
    try:
        import joblib
    except ImportError:
        try:
            from sklearn.externals import joblib
        except ImportError:
            if start[:1] != b"\x80":
                raise
            joblib = pickle
    return joblib.load(io.BytesIO(data))


def load_zip(data):
    import zipfile
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        names = z.namelist()
        if "schema.json" in names:
            import skops.io
            return skops.io.loads(bytes(data), trusted=skops.io.get_untrusted_types(data=bytes(data)))
        if "MLmodel" in names:
            return load_mlflow(z)
    raise ValueError("the zip file is neither a skops model nor a folder of MLflow: it has no schema.json and no MLmodel")


def flavors(text):
    """The flavors of an MLmodel file with their settings: two levels of names, each with a text.

    MLflow's own reader needs its package, or one for YAML, which an environment may lack.
    """
    found, flavor, inside = {}, None, False
    for line in text.splitlines():
        indent, (name, _, value) = len(line) - len(line.lstrip(" ")), line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if indent == 0:
            inside = name == "flavors"
        elif inside and indent == 2:
            flavor = found.setdefault(name, {})
        elif inside and indent == 4 and flavor is not None:
            flavor[name] = value.strip().strip("'\"")
    return found


def load_mlflow(z):
    """The model in the archive of an MLflow folder, by its flavor's own library where that is known, else by MLflow."""
    have = flavors(z.read("MLmodel").decode())
    for name, file in (("sklearn", "pickled_model"), ("xgboost", "data"), ("lightgbm", "data"), ("onnx", "data")):
        flavor = have.get(name)
        if not flavor or flavor.get(file) not in z.namelist():
            continue
        code = flavor.get("code", "null")
        if code not in ("", "null", "~"):  # with modules of its own
            sys.path.insert(0, os.path.join(unpack(z), code))
        return load_flavor(name, flavor, z.read(flavor[file]))
    if "python_function" not in have:
        raise ValueError("the MLflow folder has no flavor sklearn, xgboost, lightgbm, onnx or python_function with its file; it has %s" % (", ".join(have) or "none"))
    import mlflow.pyfunc
    return mlflow.pyfunc.load_model(unpack(z))


unpacked = None  # the folder with the files of the model that was loaded last


def unpack(z):
    """Writes the files of an archive into a folder, which stays until the next model is loaded."""
    global unpacked
    unpacked = tempfile.mkdtemp(prefix="mlflow-")
    z.extractall(unpacked)  # which leaves out what would lead elsewhere
    return unpacked


def unfold(data, path):
    """Writes the archive of a folder of MLflow as a folder; False if it is another file."""
    if bytes(data[:4]) != b"PK\x03\x04":
        return False
    import zipfile
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        if "MLmodel" not in z.namelist():
            return False
        if os.path.exists(path):
            os.unlink(path)
        z.extractall(path)
    return True


def forget():
    """Removes the last model's folder and the modules of its own: the next model may have others of the same names."""
    global unpacked
    if unpacked is None:
        return
    within = os.path.join(unpacked, "")
    sys.path[:] = [p for p in sys.path if not p.startswith(within)]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(within):
            del sys.modules[name]
    shutil.rmtree(unpacked, ignore_errors=True)
    importlib.invalidate_caches()
    unpacked = None


def load_flavor(name, flavor, data):
    kind = flavor.get("model_class", "")
    if name == "xgboost" and kind:
        module, _, cls = kind.rpartition(".")
        model = getattr(importlib.import_module(module), cls)()
        model.load_model(bytearray(data))
        return model
    return read(memoryview(data))


def load_onnx(data):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(bytes(data), options, providers=["CPUExecutionProvider"])


def load_xgboost(data):
    import xgboost
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    return booster


def library(model):
    return type(model).__module__.split(".")[0]


def last_step(model):
    while hasattr(model, "steps") and model.steps:
        model = model.steps[-1][1]
    if hasattr(model, "best_estimator_"):
        return last_step(model.best_estimator_)
    return model


def is_detector(model):
    """Whether predictions are +1 for an inlier and -1 for an outlier, as scikit-learn's detectors say."""
    step = last_step(model)
    if library(step) == "pyod":  # its detectors say 0 for an inlier and 1 for an outlier
        return False
    if getattr(step, "_estimator_type", None) == "outlier_detector":
        return True
    tags = getattr(step, "__sklearn_tags__", None)
    if tags is None:
        return False
    try:
        return tags().estimator_type == "outlier_detector"
    except Exception:
        return False


# How scikit-learn's detectors predict: by their decision values, which they compute for that. NaN is as there.
detectors = {
    "OneClassSVM": lambda s: s > 0,
    "SGDOneClassSVM": lambda s: s >= 0,
    "EllipticEnvelope": lambda s: s >= 0,
    "IsolationForest": lambda s: ~(s < 0),
    "LocalOutlierFactor": lambda s: ~(s < 0),
}


def by_score(model):
    """How a model's predictions follow from its decision values, so that these needn't be computed twice; None if that isn't known."""
    kind = type(model)
    if kind.__name__ == "Pipeline" and kind.__module__ == "sklearn.pipeline":
        kind = type(model.steps[-1][1])
    if kind.__module__.split(".")[0] != "sklearn" or not hasattr(model, "decision_function"):
        return None
    return detectors.get(kind.__name__)


def last(model, x, good=None):
    """A pipeline's last step and the rows that it gets, as the pipeline itself finds them, which takes it as long as a step.

    If a step gives rows that aren't good, they are None.
    """
    for _, step in getattr(model, "steps", ())[:-1]:
        if step is not None and step != "passthrough":
            x = step.transform(x)
            if good is not None and not good(x):
                return None, None
    return model.steps[-1][1] if hasattr(model, "steps") else model, x


# Steps of scikit-learn that ask whether the rows that they get are finite, and ask that of nothing else.
scalers = "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"
machines = "OneClassSVM", "SGDOneClassSVM"


def asks_rows_alone(model):
    """Whether all that a model checks for being finite is what its steps get, so that it needn't check what is known."""
    steps = [s for _, s in model.steps] if hasattr(model, "steps") else [model]
    for step, known in zip(steps, (scalers,) * (len(steps) - 1) + (machines,)):
        kind = type(step)
        if kind.__name__ not in known or not kind.__module__.startswith("sklearn.") or callable(getattr(step, "kernel", None)):
            return False
    return True


def finite(x):
    return type(x) is np.ndarray and np.isfinite(x).all()


def decision_values(model, x, rows):
    """The decision values of a detector, step by step.

    scikit-learn looks for numbers that aren't finite in each step, twice in the last one, and this takes it a tenth of
    the time. Where the rows are known to be finite, it is told so by its own setting; where they aren't,
    it looks itself, and says what is wrong.
    """
    if finite(x) and asks_rows_alone(model):
        sklearn = sys.modules["sklearn"]
        before = sklearn.get_config()["assume_finite"]
        sklearn.set_config(assume_finite=True)  # config_context takes ten times as long
        try:
            step, z = last(model, x, finite)
            if z is not None:
                return scores(step, z, rows)
        finally:
            sklearn.set_config(assume_finite=before)
    return scores(*last(model, x), rows)


def column(values, rows, what):
    """A method's result as one float64 per row."""
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,):
        raise ValueError("%s gives an array of shape %s for %d rows; one value per row is needed" % (what, values.shape, rows))
    if values.dtype.kind not in "fiub":
        raise TypeError("%s gives %s, not numbers" % (what, values.dtype))
    return values.astype("<f8", copy=False)


def scores(model, x, rows):
    """The decision value, as the native runtime gives it."""
    if hasattr(model, "decision_function"):
        s = np.asarray(model.decision_function(x), dtype="<f8")
        if s.ndim == 2:
            s = s[:, 0] if s.shape[1] == 1 else s.max(axis=1)
        return column(s, rows, "decision_function")
    if hasattr(model, "predict_proba"):
        p = np.asarray(model.predict_proba(x), dtype="<f8")
        if p.ndim == 2:
            p = p[:, 1] if p.shape[1] == 2 else p.max(axis=1)
        return column(p, rows, "predict_proba")
    return np.full(rows, np.nan)


def predict(model, x, names, outputs, features_by):
    """Prediction and decision value of each row, and whether the model is an outlier detector."""
    rows, kind = len(x), library(model)
    if kind == "onnxruntime":
        return predict_onnx(model, x)
    if kind == "xgboost" and type(model).__name__ == "Booster":
        import xgboost
        p = column(model.predict(xgboost.DMatrix(x, feature_names=model.feature_names)), rows, "predict")
        return p, np.full(rows, np.nan), False
    if kind == "mlflow":
        return predict_mlflow(model, x, names, outputs, features_by)
    if kind == "lightgbm" and type(model).__name__ == "Booster":
        return column(model.predict(x), rows, "predict"), np.full(rows, np.nan), False
    if not hasattr(model, "predict"):
        raise TypeError("%s has no method predict; write a script with run() for such objects" % type(model).__name__)
    x = as_model_wants(model, x, names, outputs, features_by)
    inlier = by_score(model)
    if inlier is not None:
        s = decision_values(model, x, rows)
        return np.where(inlier(s), 1.0, -1.0), s, True
    p = model.predict(x)
    detector = is_detector(model)
    if not detector and np.asarray(p).dtype.kind not in "fiub" and hasattr(model, "classes_"):
        p = np.searchsorted(np.asarray(model.classes_), np.asarray(p))
    return column(p, rows, "predict"), scores(model, x, rows), detector


def as_model_wants(model, x, names, outputs, features_by):
    """The columns in the model's order, as a DataFrame if it was fitted on one."""
    wants = getattr(model, "feature_names_in_", None)
    if wants is None:
        n = getattr(model, "n_features_in_", None)
        if n is not None and n != x.shape[1]:
            raise ValueError("the model expects %d features, %d are configured" % (n, x.shape[1]))
        return x
    return named(x, [str(w) for w in wants], names, outputs, features_by)


def named(x, wants, names, outputs, features_by):
    """The columns as a DataFrame with the names that a model wants, in its order."""
    import pandas
    if features_by == "position":
        if len(wants) != x.shape[1]:
            raise ValueError("the model expects %d features, %d are configured" % (len(wants), x.shape[1]))
        return pandas.DataFrame(x, columns=wants)
    for known in (names, outputs):
        if sorted(known) == sorted(wants):
            return pandas.DataFrame(x[:, [known.index(w) for w in wants]], columns=wants)
    raise ValueError("the model was trained with the features %s, but the columns are %s; name the columns that it was trained with, or take them by position" % (", ".join(wants), ", ".join(names)))


def predict_mlflow(model, x, names, outputs, features_by):
    """Asks a python_function of MLflow, with columns named as its signature says; else as the dataset does."""
    rows, schema = len(x), model.metadata.get_input_schema()
    if schema is not None and schema.is_tensor_spec():
        x = x.astype(schema.input_types()[0], copy=False)
    elif schema is not None and schema.has_input_names():
        x = named(x, [str(n) for n in schema.input_names()], names, outputs, features_by)
    else:
        x = named(x, list(outputs), names, outputs, features_by)
    p = np.asarray(model.predict(x))
    if p.ndim == 2 and p.shape[1] == 2:  # a prediction and its score
        return column(p[:, 0], rows, "predict"), column(p[:, 1], rows, "predict"), False
    return column(p, rows, "predict"), np.full(rows, np.nan), False


def predict_onnx(session, x):
    """Runs an ONNX model: labels from the first output, decision values from the second."""
    rows = len(x)
    wanted = session.get_inputs()
    kinds = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(int64)": "i8"}
    if len(wanted) == 1:
        feed = {wanted[0].name: x.astype(kinds.get(wanted[0].type, "f4"))}
    elif len(wanted) == x.shape[1]:
        feed = {w.name: x[:, i:i + 1].astype(kinds.get(w.type, "f4")) for i, w in enumerate(wanted)}
    else:
        raise ValueError("the model takes %d inputs, %d columns are configured" % (len(wanted), x.shape[1]))
    out = session.run(None, feed)
    p = np.asarray(out[0])
    detector = False
    s = np.full(rows, np.nan)
    if len(out) > 1 and not isinstance(out[1], list):
        s = np.asarray(out[1], dtype="<f8")
        if s.ndim == 2:
            s = s[:, 0] if s.shape[1] == 1 else s[:, 1] if s.shape[1] == 2 else s.max(axis=1)
        names = [o.name for o in session.get_outputs()]
        detector = names[0] == "label" and names[1] == "scores" and p.dtype.kind == "i"
    elif len(out) > 1:  # a list of dictionaries: probabilities by class, as skl2onnx writes them
        s = np.array([sorted(d.items())[1][1] if len(d) == 2 else max(d.values()) for d in out[1]], dtype="<f8")
    return column(p, rows, "the first output"), column(s, rows, "the second output"), detector
