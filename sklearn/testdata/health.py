"""Writes health.zip: models with known faults. The name of a file begins with the fault;
models whose name begins with "well" have none.

    python health.py
"""
import os
import pickle
import warnings
import zipfile

import numpy as np
from sklearn.cluster import KMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import Lasso, LogisticRegression, Ridge, SGDOneClassSVM
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsRegressor, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

warnings.simplefilter("ignore")
rng = np.random.RandomState(3)
x = rng.normal(0, 1, (40, 2))
kinds = (x[:, 0] > -1).astype(int)
values = x[:, 0] * 2 + x[:, 1]


def moved(est, offset):
    """Trains a detector and moves its threshold."""
    est = est.fit(x)
    est.offset_ = offset
    return est


def flat(est):
    est = est.fit(x)
    est.coef_ = np.zeros_like(est.coef_)
    return est


models = {
    "flags_everything.svm": OneClassSVM(nu=1e-3, gamma=0.01).fit(np.full((30, 2), 4.5)),
    "flags_everything.forest": moved(IsolationForest(n_estimators=5, random_state=1), 0.5),
    "flags_everything.envelope": moved(EllipticEnvelope(random_state=1), 0.1),
    "flags_everything.lof": moved(LocalOutlierFactor(n_neighbors=5, novelty=True), 0.5),
    "flags_everything.lof2": moved(LocalOutlierFactor(n_neighbors=5, novelty=True), -0.01),
    "flags_everything.sgd": flat(SGDOneClassSVM(random_state=1)),
    "flags_nothing.forest": moved(IsolationForest(n_estimators=5, random_state=1), -2.0),
    "constant.lasso": Lasso(alpha=1e6).fit(x, values),
    "constant.logistic": make_pipeline(StandardScaler(), LogisticRegression(penalty="l1", solver="liblinear", C=1e-9)).fit(x, kinds),
    "constant.svr": SVR(epsilon=100).fit(x, values),
    "constant.tree": DecisionTreeClassifier(min_samples_leaf=40).fit(x, kinds),
    "constant.trees": RandomForestClassifier(n_estimators=5, max_depth=1, min_samples_leaf=19, random_state=1).fit(x, np.arange(40) < 38),
    "constant.regressors": RandomForestRegressor(n_estimators=5, min_samples_leaf=40, random_state=1).fit(x, values),
    "constant.boosting": GradientBoostingRegressor(n_estimators=5, random_state=1).fit(x, np.full(40, 3.0)),
    "constant.kmeans": KMeans(1, n_init=1).fit(x),
    "constant.mixture": GaussianMixture(1).fit(x),
    "constant.neighbours": KNeighborsRegressor().fit(x, np.ones(40)),
    "constant.dummy": DummyClassifier().fit(x, kinds),
    "constant.dummy2": DummyRegressor().fit(x, values),
    "well.svm": make_pipeline(StandardScaler(), OneClassSVM(nu=0.1, gamma=0.3)).fit(x),
    "well.forest": IsolationForest(n_estimators=5, random_state=1).fit(x),
    "well.envelope": EllipticEnvelope(random_state=1).fit(x),
    "well.lof": LocalOutlierFactor(n_neighbors=5, novelty=True).fit(x),
    "well.ridge": Ridge().fit(x, values),
    "well.tree": DecisionTreeRegressor(max_depth=2).fit(x, values),
    "well.trees": RandomForestClassifier(n_estimators=3, random_state=1).fit(x, kinds),
    "well.kmeans": KMeans(2, n_init=1).fit(x),
}
with zipfile.ZipFile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "health.zip"), "w", zipfile.ZIP_DEFLATED) as z:
    for name in sorted(models):
        info = zipfile.ZipInfo(name + ".pickle")  # with a fixed time
        info.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(info, pickle.dumps(models[name], 4))
