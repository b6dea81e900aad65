"""Reads models of any library from the bytes of their files, and asks them to predict.

The worker runs this text as a module once NumPy is there (_worker.py).
"""
import io

import numpy as np


def load(data, name):
    """The model in a file's bytes, whatever library wrote it."""
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
    try:
        import joblib
    except ImportError:
        try:
            from sklearn.externals import joblib
        except ImportError:
            if start[:1] != b"\x80":
                raise
            import pickle as joblib
    return joblib.load(io.BytesIO(data))


def load_zip(data):
    import zipfile
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        names = z.namelist()
        if "schema.json" in names:
            import skops.io
            return skops.io.loads(bytes(data), trusted=skops.io.get_untrusted_types(data=bytes(data)))
    raise ValueError("the zip file isn't a skops model: it has no schema.json")


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
    if kind == "lightgbm" and type(model).__name__ == "Booster":
        return column(model.predict(x), rows, "predict"), np.full(rows, np.nan), False
    if not hasattr(model, "predict"):
        raise TypeError("%s has no method predict; write a script with run() for such objects" % type(model).__name__)
    x = as_model_wants(model, x, names, outputs, features_by)
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
    import pandas
    wants = [str(w) for w in wants]
    if features_by == "position":
        if len(wants) != x.shape[1]:
            raise ValueError("the model expects %d features, %d are configured" % (len(wants), x.shape[1]))
        return pandas.DataFrame(x, columns=wants)
    for known in (names, outputs):
        if sorted(known) == sorted(wants):
            return pandas.DataFrame(x[:, [known.index(w) for w in wants]], columns=wants)
    raise ValueError("the model was trained with the features %s, but the columns are %s; name the columns that it was trained with, or take them by position" % (", ".join(wants), ", ".join(names)))


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
