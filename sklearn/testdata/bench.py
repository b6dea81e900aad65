"""Writes bench.zip: the models that benchmarks score, and scikit-learn's results for
60 rows of each, in the form of parity.py. Made with

    python -m venv venv && venv/bin/pip install scikit-learn==1.9.1
    venv/bin/python bench.py bench.zip

ref_1 and ref_8 are like the reference architecture's models, of 1 and 8
features; sv200 has some 200 support vectors; the others have 100 trees.
"""

import base64
import io
import json
import pickle
import sys
import zipfile

import joblib
import numpy as np
from sklearn.ensemble import (ExtraTreesClassifier, GradientBoostingRegressor, HistGradientBoostingRegressor,
                              IsolationForest, RandomForestClassifier)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM


def pack(a):
    return base64.b64encode(np.ascontiguousarray(a, "<f8").tobytes()).decode()


def models(rng):
    for f in (1, 8):
        x = rng.normal(50, 10, (1000, f)) * rng.uniform(0.5, 2, f)
        y = x.sum(axis=1) > np.median(x.sum(axis=1))
        scaled = lambda m: make_pipeline(StandardScaler(), m)
        yield "ref_%d" % f, x, scaled(OneClassSVM(nu=1e-4, gamma=0.01)).fit(x)
        yield "sv200_%d" % f, x, scaled(OneClassSVM(nu=0.195, gamma=0.5 / f)).fit(x)
        yield "if100_%d" % f, x, scaled(IsolationForest(n_estimators=100, max_samples=256, random_state=1)).fit(x)
        if f == 8:
            yield "rf100_8", x, RandomForestClassifier(100, max_depth=6, random_state=1).fit(x, y)
            yield "et100_8", x, ExtraTreesClassifier(100, max_depth=6, random_state=1).fit(x, y)
        yield "gb100_%d" % f, x, GradientBoostingRegressor(random_state=1).fit(x, x[:, 0] ** 2 + x.sum(axis=1))
        yield "hist100_%d" % f, x, HistGradientBoostingRegressor(max_leaf_nodes=15, random_state=1).fit(x, x[:, 0] ** 2 + x.sum(axis=1))


def refuses(model, x):
    try:
        model.predict(x)
    except ValueError:
        return True
    return False


def main():
    rng = np.random.default_rng(7)
    cases, files = [], []
    for name, x, model in models(rng):
        q = x[rng.integers(0, len(x), 60)] + rng.normal(0, 5, (60, x.shape[1]))
        case = {"name": name, "cols": q.shape[1], "x": pack(q), "out": {}, "files": [name + ".joblib"]}
        outputs = lambda q: {m: {"cols": 1 if getattr(model, m)(q).ndim == 1 else getattr(model, m)(q).shape[1], "values": pack(getattr(model, m)(q))}
                             for m in ("predict", "decision_function", "score_samples", "predict_proba", "predict_log_proba") if hasattr(model, m)}
        case["out"] = outputs(q)
        for what, value in (("nan", np.nan), ("inf", np.inf), ("large", 1e39)):
            bad = q[12:16].copy()
            bad[1, 0] = value
            case[what] = refuses(model, bad)
            if not case[what] and what == "nan":
                case["x_nan"], case["out_nan"] = pack(bad), outputs(bad)
        cases.append(case)
        out = io.BytesIO()
        joblib.dump(model, out, compress=("xz", 6))
        files.append((name + ".joblib", out.getvalue()))
        if len(out.getvalue()) < 20000:
            case["files"].append(name + ".pickle")
            files.append((name + ".pickle", pickle.dumps(model, protocol=4)))
    files.append(("cases.json", ("[" + ",\n".join(json.dumps(c, sort_keys=True) for c in cases) + "]\n").encode()))
    with zipfile.ZipFile(sys.argv[1], "w") as z:
        for name, data in files:
            info = zipfile.ZipInfo(name)  # with a fixed time, so that the same cases make the same file
            info.compress_type = zipfile.ZIP_DEFLATED
            z.writestr(info, data)
            print(name, len(data))


main()
