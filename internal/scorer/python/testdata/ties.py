"""Compares what _models.py predicts by decision values with what scikit-learn predicts, where many values are exactly 0.

ties.py _MODELS.PY prints how many decision values were 0.
"""
import sys
import types
import warnings

import numpy as np
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import SGDOneClassSVM
from sklearn.neighbors import LocalOutlierFactor
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
print(ties)
