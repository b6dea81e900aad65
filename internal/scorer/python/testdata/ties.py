"""Compares what _models.py predicts by decision values with what scikit-learn predicts: where many values are exactly 0,
and where rows hold numbers that aren't finite, or become such numbers within a pipeline.

ties.py _MODELS.PY prints how many decision values were 0.
"""
import sys
import types
import warnings

import numpy as np
import sklearn
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import SGDOneClassSVM
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import OneClassSVM

warnings.simplefilter("ignore")
models = types.ModuleType("models")
with open(sys.argv[1]) as f:
    exec(compile(f.read(), sys.argv[1], "exec"), models.__dict__)
rng = np.random.default_rng(2)
ties = 0
for seed in range(10):
    train = rng.integers(-3, 4, size=(60, 2)).astype(float)
    x = np.vstack([train, rng.integers(-4, 5, size=(400, 2)).astype(float)])
    for detector in (OneClassSVM(nu=0.1 + 0.02 * seed), OneClassSVM(kernel="linear", nu=0.3), SGDOneClassSVM(random_state=seed), EllipticEnvelope(random_state=seed, support_fraction=1.0),
                     IsolationForest(n_estimators=5, contamination=0.2, random_state=seed), LocalOutlierFactor(novelty=True, contamination=0.2)):
        detector.fit(train)
        assert models.by_score(detector) is not None, detector
        prediction, score, is_detector = models.predict(detector, x, ["a", "b"], ["a", "b"], "name")
        assert is_detector and (prediction == detector.predict(x)).all() and (score == detector.decision_function(x)).all(), detector
        ties += int((score == 0).sum())


def outcome(f):
    try:
        return f().tolist()
    except Exception as e:
        return type(e).__name__, str(e)


def kernel(x, y):
    return np.full((len(x), len(y)), np.nan) if len(x) > 60 else x @ y.T


train = rng.normal(50, 10, size=(60, 2))
tiny = StandardScaler().fit(train)
tiny.scale_ = tiny.scale_ * 1e-310  # its rows are infinite
lost = StandardScaler().fit(train)
lost.mean_ = lost.mean_ * np.nan
machine = OneClassSVM().fit(train)
refused = set()
for model in [make_pipeline(scaler(), OneClassSVM()).fit(train) for scaler in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)] + [
        make_pipeline(StandardScaler(), SGDOneClassSVM()).fit(train), make_pipeline(StandardScaler(), IsolationForest()).fit(train),
        machine, OneClassSVM(kernel=kernel).fit(train), make_pipeline(tiny, machine), make_pipeline(lost, machine)]:
    for number in 50.0, np.nan, np.inf, -np.inf, 1e308:
        x = np.vstack([train, [[number, 50.0]]])
        want = outcome(lambda: model.decision_function(x))
        got = outcome(lambda: models.predict(model, x, ["a", "b"], ["a", "b"], "name")[1])
        assert repr(want) == repr(got), (model, number, want, got)
        assert not sklearn.get_config()["assume_finite"], model
        if type(want) is tuple:
            refused.add(want[1].split("\n")[0])
assert len(refused) >= 3, refused
print(ties)
