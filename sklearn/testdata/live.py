"""Fits estimators of every supported class with random parameters on random data,
and writes them, with their own scikit-learn's results for some rows, for the test
TestLiveParity.

    python live.py FOLDER --seed N --rounds N [--only REGEXP]

Each round makes every class once, alone or after transformers. The folder gets a
pickle for each case, and cases.json. If FOLDER ends in .zip, a zip file is written, as for
the fixtures in random/, which are made with --seed 7 --rounds 3 --only
"column|forest_c|tree_c" (frames), or --rounds 2 --only
"search|voting|stacking|bagging|ada_boost|one_vs|target|multi_output|select|dummy|other_linear|lasso".
1.3.0.zip is made with --seed 11 --rounds 1 --only
"tree_c|forest_c|ada|bagging|stacking|voting|one_vs|calibrated". The fixtures in changed/, some of
which are refused, are made with 0.23.0 (--seed 500 --rounds 1
--only "^svr$"), 1.0.2 (--seed 100 --rounds 1 --only
"w_one_vs|w_function|w_isolation"), 1.2.2 (--seed 200 --rounds 1 --only
"one_class_svm|isolation|w_stacking|one_vs|w_trees|dummy|ada_boost" --changed 1), 1.3.2
(--seed 13 --rounds 1 --only
"tree_c|forest_c|w_trees|w_lof|w_knn|w_logistic|w_ridge_c|w_bins|w_threshold") and 1.9.1
(--seed 11 --rounds 2 --only
"w_knn|w_lof|w_bins|w_frozen|w_threshold|w_trees_with|w_logistic|w_function|w_mlp|w_ridge_c").
Works with scikit-learn 0.19 or later on Python 3.
"""
import argparse
import json
import os
import pickle
import re
import shutil
import tempfile
import warnings
import zipfile

import numpy as np
import sklearn

import wide
from parity import METHODS, VERSION, make, pack

warnings.simplefilter("ignore")
np.seterr(all="ignore")
try:
    import pandas
except ImportError:
    pandas = None

# Classes that only compare, add or divide numbers in one defined order, or compute one number
# from one number without a library's approximation.
EXACT = {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer", "KBinsDiscretizer", "PolynomialFeatures",
         "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
         "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor", "IsolationForest",
         "GradientBoostingClassifier", "GradientBoostingRegressor", "HistGradientBoostingClassifier", "HistGradientBoostingRegressor",
         "OneClassSVM", "SVC", "NuSVC", "SVR", "NuSVR", "GaussianNB", "AdaBoostClassifier", "AdaBoostRegressor"}


class Draw(object):
    """Random choices."""

    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)
        self.seed = int(self.rng.randint(1 << 30))

    def pick(self, *options):
        return options[self.rng.randint(len(options))]

    def chance(self, p=0.5):
        return bool(self.rng.uniform() < p)

    def number(self, low, high):
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def whole(self, low, high):
        return int(self.rng.randint(low, high + 1))

    # data

    def table(self, rows, cols, kind=None):
        kind = kind or self.pick("plain", "plain", "ties", "constant", "offset", "tiny", "mixed", "repeated", "whole")
        rng = self.rng
        x = rng.normal(0, 1, (rows, cols))
        if kind == "plain":
            x = x * rng.uniform(0.1, 10, cols) + rng.uniform(-5, 5, cols)
        elif kind == "ties":
            x = np.round(x * 2) / 2
        elif kind == "constant":
            x[:, rng.randint(cols)] = 4.5
        elif kind == "offset":
            x = x * 1e3 + 1e6
        elif kind == "tiny":
            x = x * 1e-6
        elif kind == "mixed":
            x = x * 10.0 ** rng.randint(-4, 5, cols)
        elif kind == "repeated":
            x = x[rng.randint(0, max(2, rows // 4), rows)]
        elif kind == "whole":
            x = rng.randint(-3, 4, (rows, cols)).astype(float)
        elif kind == "positive":
            x = np.exp(x)
        return x

    def labels(self, classes, rows):
        y = self.rng.randint(0, classes, rows)
        y[:classes] = range(classes)
        return y

    def spell(self, y):
        """Writes class numbers as other labels."""
        kind = self.pick("int", "negative", "text", "float", "bool", "object")
        if kind == "int":
            return y
        if kind == "negative":
            return y * 3 - 4
        if kind == "text":
            return np.array(["class %s" % "zyxwvu"[v] for v in y])
        if kind == "object":
            return np.array([u"k\u00e4se %s" % "fabcde"[v] for v in y], dtype=object)
        if kind == "float":
            return y * 1.0 + 1.0
        return y.astype(bool) if y.max() < 2 else y


FAMILIES = []


def family(since=(0, 19), until=(99, 0)):
    def note(f):
        if since <= VERSION < until:
            FAMILIES.append(f)
        return f
    return note


def svm_kernel(d):
    kernel = d.pick("rbf", "rbf", "linear", "poly", "sigmoid")
    gamma = d.number(1e-3, 10)
    if kernel in ("poly", "sigmoid"):
        gamma = d.number(1e-3, 0.5)
    return dict(max_iter=5000, kernel=kernel, gamma=d.pick(gamma, "auto"), degree=d.whole(1, 4), coef0=d.pick(0.0, d.number(0.1, 2)))


# Every family returns an estimator and the kind of its training data: "none" (rows alone), "class", "regress", "many" (several targets).

@family()
def one_class_svm(d):
    from sklearn.svm import OneClassSVM
    return OneClassSVM(nu=d.pick(1e-4, 0.01, 0.1, 0.5, 0.9), shrinking=d.chance(), **svm_kernel(d)), "none"


@family()
def svc(d):
    from sklearn.svm import SVC
    return make(SVC, C=d.number(0.1, 100), probability=d.chance() and VERSION < (1, 8), decision_function_shape=d.pick("ovr", "ovo"), break_ties=False,
                class_weight=d.pick(None, "balanced"), random_state=d.seed, **svm_kernel(d)), "class"


@family(since=(0, 22))
def svc_break_ties(d):
    from sklearn.svm import SVC
    return make(SVC, C=d.number(0.1, 100), break_ties=True, random_state=d.seed, **svm_kernel(d)), "class"


@family()
def nu_svc(d):
    from sklearn.svm import NuSVC
    return make(NuSVC, nu=d.number(0.01, 0.2), probability=d.chance() and VERSION < (1, 8), decision_function_shape=d.pick("ovr", "ovo"), random_state=d.seed, **svm_kernel(d)), "class"


@family()
def svr(d):
    from sklearn.svm import SVR
    return SVR(C=d.number(0.1, 10), epsilon=d.number(1e-3, 0.3), **svm_kernel(d)), "regress"


@family()
def nu_svr(d):
    from sklearn.svm import NuSVR
    return NuSVR(C=d.number(0.1, 10), nu=d.number(0.1, 0.9), **svm_kernel(d)), "regress"


@family()
def linear_svc(d):
    from sklearn.svm import LinearSVC
    if d.chance(0.3):
        return make(LinearSVC, multi_class="crammer_singer", random_state=d.seed, max_iter=50), "class"
    return make(LinearSVC, C=d.number(0.01, 10), loss=d.pick("hinge", "squared_hinge"), fit_intercept=d.chance(), random_state=d.seed, max_iter=100), "class"


@family()
def linear_svr(d):
    from sklearn.svm import LinearSVR
    return LinearSVR(C=d.number(0.01, 10), fit_intercept=d.chance(), random_state=d.seed, max_iter=100), "regress"


@family()
def isolation_forest(d):
    from sklearn.ensemble import IsolationForest
    more = {}
    if (0, 20) <= VERSION < (0, 22):
        more["behaviour"] = d.pick("new", "old")
    contamination = d.pick("auto", 0.01, 0.1, 0.5) if VERSION >= (0, 20) else d.pick(0.01, 0.1, 0.5)
    return make(IsolationForest, n_estimators=d.whole(1, 25), max_samples=d.pick("auto", 1.0, 0.3, 7, 2), contamination=contamination,
                max_features=d.pick(1.0, 0.5, 1), bootstrap=d.chance(), random_state=d.seed, **more), "none"


@family(since=(0, 20))
def local_outlier_factor(d):
    from sklearn.neighbors import LocalOutlierFactor
    return make(LocalOutlierFactor, n_neighbors=d.whole(1, 20), novelty=True, leaf_size=d.whole(2, 40),
                contamination=d.pick("auto", 0.05, 0.3), **dict(dict(algorithm=d.pick("auto", "ball_tree", "kd_tree", "brute")), **metric(d))), "none"


def metric(d):
    return d.pick(dict(metric="minkowski", p=2), dict(metric="minkowski", p=1), dict(metric="minkowski", p=3), dict(metric="minkowski", p=1.5),
                  dict(metric="euclidean"), dict(metric="manhattan"), dict(metric="chebyshev"), dict(metric="l2"), dict(metric="cityblock"),
                  dict(metric="canberra", algorithm="brute"), dict(metric="cosine", algorithm="brute"), dict(metric="hamming", algorithm="brute"), dict(metric="sqeuclidean", algorithm="brute"))


@family()
def k_neighbors_classifier(d):
    from sklearn.neighbors import KNeighborsClassifier
    return make(KNeighborsClassifier, n_neighbors=d.whole(1, 12), weights=d.pick("uniform", "distance"), 
                leaf_size=d.whole(2, 40), **dict(dict(algorithm=d.pick("auto", "ball_tree", "kd_tree", "brute")), **metric(d))), "class"


@family()
def k_neighbors_regressor(d):
    from sklearn.neighbors import KNeighborsRegressor
    return make(KNeighborsRegressor, n_neighbors=d.whole(1, 12), weights=d.pick("uniform", "distance"), 
                **dict(dict(algorithm=d.pick("auto", "ball_tree", "kd_tree", "brute")), **metric(d))), d.pick("regress", "many")


@family()
def elliptic_envelope(d):
    from sklearn.covariance import EllipticEnvelope
    return EllipticEnvelope(store_precision=d.chance(), contamination=d.pick(0.01, 0.1, 0.4), assume_centered=d.chance(0.3), support_fraction=d.pick(None, 0.7, 0.9), random_state=d.seed), "none"


@family(since=(1, 0))
def sgd_one_class(d):
    from sklearn.linear_model import SGDOneClassSVM
    return SGDOneClassSVM(nu=d.pick(0.01, 0.1, 0.5, 0.9), fit_intercept=d.chance(0.8), average=d.pick(False, True), random_state=d.seed), "none"


@family()
def sgd_classifier(d):
    from sklearn.linear_model import SGDClassifier
    log = "log_loss" if VERSION >= (1, 1) else "log"
    square = "squared_error" if VERSION >= (1, 0) else "squared_loss"
    loss = d.pick("hinge", log, log, "modified_huber", "modified_huber", "squared_hinge", "perceptron", square, "huber", "epsilon_insensitive", "squared_epsilon_insensitive")
    return make(SGDClassifier, loss=loss, penalty=d.pick("l2", "l1", "elasticnet"), average=d.pick(False, True), random_state=d.seed, max_iter=20, tol=None,
                fit_intercept=d.chance(0.8), alpha=d.number(1e-4, 1)), "class"


@family()
def sgd_regressor(d):
    from sklearn.linear_model import SGDRegressor
    return make(SGDRegressor, loss=d.pick("huber", "epsilon_insensitive"), average=d.pick(False, True), random_state=d.seed, max_iter=20, tol=None), "regress"


@family()
def linear_regression(d):
    from sklearn.linear_model import LinearRegression
    return make(LinearRegression, fit_intercept=d.chance(0.7), positive=d.chance(0.2)), d.pick("regress", "many")


@family()
def ridge(d):
    from sklearn.linear_model import Ridge, RidgeCV
    if d.chance():
        return RidgeCV(alphas=(0.1, 1.0, 10.0), fit_intercept=d.chance()), d.pick("regress", "many")
    return Ridge(alpha=d.number(1e-2, 10), fit_intercept=d.chance(), solver=d.pick("auto", "svd", "cholesky", "lsqr")), d.pick("regress", "many")


@family()
def lasso(d):
    from sklearn import linear_model as lm
    kind = d.pick("Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "MultiTaskLasso", "MultiTaskElasticNet")
    more = dict(cv=3) if kind.endswith("CV") else dict(alpha=d.number(1e-3, 1), fit_intercept=d.chance(0.7))
    return make(getattr(lm, kind), **more), "many" if kind.startswith("Multi") else "regress"


@family()
def other_linear(d):
    from sklearn import linear_model as lm
    kind = d.pick("BayesianRidge", "ARDRegression", "HuberRegressor", "Lars", "LassoLars", "LassoLarsIC", "OrthogonalMatchingPursuit", "TheilSenRegressor",
                  "PoissonRegressor", "GammaRegressor", "TweedieRegressor", "QuantileRegressor", "PassiveAggressiveRegressor", "RANSACRegressor")
    if not hasattr(lm, kind):
        kind = "BayesianRidge"
    more = {}
    if kind == "TweedieRegressor":
        more = d.pick(dict(power=0, link="identity"), dict(power=1.5), dict(power=0, link="log"), dict(power=2))
    if kind == "QuantileRegressor":
        more = dict(solver="highs")
    return make(getattr(lm, kind), random_state=d.seed, **more), "positive" if kind in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor") else "regress"


@family()
def logistic(d):
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    solver = d.pick("lbfgs", "liblinear", "newton-cg", "saga")
    more = {}
    if VERSION < (1, 8) and solver != "liblinear":
        more["multi_class"] = d.pick("ovr", "multinomial")
        if VERSION >= (0, 22) and d.chance():
            more["multi_class"] = "auto"
    if d.chance(0.3):
        return make(LogisticRegressionCV, Cs=2, cv=3, max_iter=50, solver=solver, random_state=d.seed, use_legacy_attributes=False, **more), "class2" if solver == "liblinear" else "class"
    return make(LogisticRegression, C=d.number(1e-2, 100), solver=solver, fit_intercept=d.chance(0.8), class_weight=d.pick(None, "balanced"), max_iter=50, random_state=d.seed, **more), \
        "class2" if solver == "liblinear" and VERSION >= (1, 8) else "class"


@family()
def other_linear_classifier(d):
    from sklearn import linear_model as lm
    kind = d.pick("RidgeClassifier", "RidgeClassifierCV", "Perceptron", "PassiveAggressiveClassifier")
    more = dict(alphas=(0.1, 1.0)) if kind == "RidgeClassifierCV" else dict(random_state=d.seed, max_iter=20, tol=None)
    return make(getattr(lm, kind), class_weight=d.pick(None, "balanced"), **more), "class"


def tree_params(d, classes):
    criterion = d.pick("gini", "entropy") if classes else None
    return dict(max_depth=d.pick(1, 3, 6, None), min_samples_leaf=d.pick(1, 1, 4), max_features=d.pick(None, 1, 0.5), max_leaf_nodes=d.pick(None, None, 6),
                random_state=d.seed, **(dict(criterion=criterion, class_weight=d.pick(None, "balanced")) if criterion else {}))


@family()
def tree_classifier(d):
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
    return d.pick(DecisionTreeClassifier, ExtraTreeClassifier)(splitter=d.pick("best", "random"), **tree_params(d, True)), d.pick("class", "class", "classes")


@family()
def tree_regressor(d):
    from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor
    return d.pick(DecisionTreeRegressor, ExtraTreeRegressor)(splitter=d.pick("best", "random"), **tree_params(d, False)), d.pick("regress", "many")


@family()
def forest_classifier(d):
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    return d.pick(RandomForestClassifier, ExtraTreesClassifier)(n_estimators=d.whole(1, 12), bootstrap=d.chance(), **tree_params(d, True)), d.pick("class", "class", "classes")


@family()
def forest_regressor(d):
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    return d.pick(RandomForestRegressor, ExtraTreesRegressor)(n_estimators=d.whole(1, 12), bootstrap=d.chance(), **tree_params(d, False)), d.pick("regress", "many")


def boosted(d):
    return dict(n_estimators=d.whole(1, 15), learning_rate=d.number(0.05, 1), subsample=d.pick(1.0, 0.7), max_depth=d.pick(1, 3), random_state=d.seed)


@family()
def gradient_boosting_classifier(d):
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    if d.chance(0.3):
        return make(GradientBoostingClassifier, loss="exponential", **boosted(d)), "class2"
    init = None
    if VERSION >= (0, 21):
        init = d.pick(None, None, "zero", make(LogisticRegression, max_iter=20, solver="lbfgs"), RandomForestClassifier(n_estimators=3, random_state=d.seed))
    return make(GradientBoostingClassifier, init=init, **boosted(d)), "class"


@family()
def gradient_boosting_regressor(d):
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import LinearRegression
    init = None
    if VERSION >= (0, 21):
        init = d.pick(None, None, "zero", LinearRegression(), RandomForestRegressor(n_estimators=3, random_state=d.seed))
    least = ("squared_error", "absolute_error") if VERSION >= (1, 0) else ("ls", "lad")
    return make(GradientBoostingRegressor, loss=d.pick("huber", "quantile", *least), alpha=0.7, init=init, **boosted(d)), "regress"


@family(since=(1, 0))
def hist_classifier(d):
    from sklearn.ensemble import HistGradientBoostingClassifier
    return make(HistGradientBoostingClassifier, max_iter=d.whole(1, 10), min_samples_leaf=d.pick(2, 5), learning_rate=d.number(0.05, 1), max_leaf_nodes=d.pick(3, 31),
                l2_regularization=d.pick(0, 1.0), categorical_features=None, early_stopping=False, random_state=d.seed), d.pick("class", "holes class")


@family(since=(1, 0))
def hist_regressor(d):
    from sklearn.ensemble import HistGradientBoostingRegressor
    loss = d.pick("squared_error", "absolute_error", "poisson", "quantile", "gamma")
    if VERSION < (1, 1) and loss == "quantile" or VERSION < (1, 3) and loss == "gamma":
        loss = "squared_error"
    return make(HistGradientBoostingRegressor, loss=loss, quantile=0.7, max_iter=d.whole(1, 10), min_samples_leaf=d.pick(2, 5), categorical_features=None, early_stopping=False,
                random_state=d.seed), "positive" if loss in ("poisson", "gamma") else d.pick("regress", "holes regress")


@family(since=(1, 0))
def hist_categories(d):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    more = dict(max_iter=d.whole(1, 10), min_samples_leaf=2, categorical_features=d.pick([0], [0, 1], [1]), early_stopping=False, random_state=d.seed)
    if d.chance():
        return HistGradientBoostingClassifier(**more), "categories class"
    return HistGradientBoostingRegressor(**more), "categories regress"


@family()
def many_small_trees(d):
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
    if d.chance():
        return GradientBoostingClassifier(n_estimators=300, max_depth=1, random_state=d.seed), "class"
    return RandomForestRegressor(n_estimators=200, max_depth=1, random_state=d.seed), "regress"


@family()
def many_small_estimators(d):
    from sklearn.ensemble import BaggingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return BaggingRegressor(d.pick(LinearRegression(), make_pipeline(StandardScaler(), LinearRegression())), n_estimators=300, random_state=d.seed), "regress"


@family(since=(1, 4))
def trees_with_holes(d):
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier
    classes = [RandomForestClassifier, DecisionTreeClassifier] + ([ExtraTreesRegressor] if VERSION >= (1, 6) else [])
    cls = d.pick(*classes)
    return cls(max_depth=d.pick(3, 6), random_state=d.seed), "holes regress" if "Regressor" in cls.__name__ else "holes class"


@family()
def k_means(d):
    from sklearn.cluster import KMeans, MiniBatchKMeans
    return make(d.pick(KMeans, MiniBatchKMeans), n_clusters=d.whole(1, 6), n_init=2, random_state=d.seed), "none"


@family()
def gaussian_mixture(d):
    from sklearn.mixture import GaussianMixture
    return GaussianMixture(n_components=d.whole(1, 4), covariance_type=d.pick("full", "tied", "diag", "spherical"), random_state=d.seed), "none"


@family()
def gaussian_nb(d):
    from sklearn.naive_bayes import GaussianNB
    return make(GaussianNB, var_smoothing=d.pick(1e-9, 1e-3)), "class"


@family()
def mlp(d):
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    more = dict(hidden_layer_sizes=d.pick((4,), (5, 3), (3, 3, 3)), activation=d.pick("relu", "tanh", "logistic", "identity"), max_iter=15, random_state=d.seed, solver=d.pick("adam", "sgd", "lbfgs"))
    if d.chance():
        return MLPClassifier(**more), "class"
    return MLPRegressor(**more), d.pick("regress", "many")


@family(since=(0, 24))
def calibrated(d):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import LinearSVC, SVC
    est = d.pick(LinearSVC(random_state=d.seed), SVC(gamma=0.1, max_iter=5000), RandomForestClassifier(n_estimators=3, random_state=d.seed))
    return CalibratedClassifierCV(est, method=d.pick("sigmoid", "isotonic"), cv=2, ensemble=d.chance()), "class"


@family()
def dummy(d):
    from sklearn.dummy import DummyClassifier, DummyRegressor
    if d.chance():
        return DummyClassifier(strategy=d.pick("most_frequent", "prior")), "class"
    return DummyRegressor(strategy=d.pick("mean", "median")), d.pick("regress", "many")


@family()
def search(d):
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    est = Pipeline([("scale", StandardScaler()), ("svc", SVC(gamma=0.1, max_iter=5000))])
    if d.chance():
        return GridSearchCV(est, {"svc__C": [0.1, 1.0]}, cv=2, scoring=d.pick(None, "accuracy", "f1_macro")), "class"
    from scipy import stats
    return RandomizedSearchCV(est, {"svc__C": d.pick([0.1, 1.0, 10.0], stats.uniform(0.1, 3))}, n_iter=2, cv=2, random_state=d.seed), "class"


@family(since=(0, 22))
def voting(d):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier, VotingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.naive_bayes import GaussianNB
    weights = d.pick(None, [2, 1], [0.3, 0.7])
    if d.chance():
        return VotingClassifier([("a", GaussianNB()), ("b", RandomForestClassifier(n_estimators=3, random_state=d.seed))], voting=d.pick("soft", "hard"), weights=weights), "class"
    return VotingRegressor([("a", LinearRegression()), ("b", RandomForestRegressor(n_estimators=3, random_state=d.seed))], weights=weights), "regress"


@family(since=(0, 22))
def stacking(d):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, StackingClassifier, StackingRegressor
    from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV
    from sklearn.naive_bayes import GaussianNB
    if d.chance():
        return StackingClassifier([("a", GaussianNB()), ("b", RandomForestClassifier(n_estimators=3, random_state=d.seed))], final_estimator=LogisticRegression(max_iter=50),
                                  cv=2, passthrough=d.chance(), stack_method=d.pick("auto", "predict_proba")), "class"
    return StackingRegressor([("a", LinearRegression()), ("b", RandomForestRegressor(n_estimators=3, random_state=d.seed))], final_estimator=d.pick(None, RidgeCV()), cv=2, passthrough=d.chance()), "regress"


@family()
def bagging(d):
    from sklearn.ensemble import BaggingClassifier, BaggingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier
    if d.chance():
        return BaggingClassifier(d.pick(DecisionTreeClassifier(max_depth=3), SVC(gamma=0.2, max_iter=5000)), n_estimators=3, max_features=d.pick(1.0, 0.5), random_state=d.seed), "class"
    return BaggingRegressor(d.pick(None, LinearRegression()), n_estimators=3, max_features=d.pick(1.0, 0.5), random_state=d.seed), "regress"


@family()
def ada_boost(d):
    from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
    if d.chance():
        return make(AdaBoostClassifier, n_estimators=d.whole(1, 8), algorithm="SAMME" if VERSION >= (1, 4) else d.pick("SAMME", "SAMME.R"), random_state=d.seed), "class"
    return AdaBoostRegressor(n_estimators=d.whole(1, 8), random_state=d.seed), "regress"


@family()
def one_vs(d):
    from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC
    return d.pick(OneVsRestClassifier, OneVsRestClassifier, OneVsOneClassifier)(d.pick(make(LogisticRegression, solver="lbfgs", max_iter=30), LinearSVC(random_state=d.seed))), "class"


@family(since=(0, 20))
def target(d):
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler
    if d.chance():
        return TransformedTargetRegressor(d.pick(None, Ridge()), func=d.pick(np.log1p, np.log), inverse_func=d.pick(np.expm1, np.exp), check_inverse=False), "positive"
    return TransformedTargetRegressor(LinearRegression(), transformer=d.pick(StandardScaler(), MinMaxScaler(feature_range=(-1, 3)))), d.pick("regress", "many")


@family()
def multi_output(d):
    from sklearn.linear_model import Ridge
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.svm import SVR
    return MultiOutputRegressor(d.pick(Ridge(), SVR(gamma=0.2, max_iter=5000))), "many"


@family()
def select(d):
    from sklearn import feature_selection as fs
    kind = d.pick("VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFwe")
    if kind in ("SelectFpr", "SelectFwe"):
        return getattr(fs, kind)(alpha=0.9), "class"
    if kind == "VarianceThreshold":
        return fs.VarianceThreshold(d.pick(0.0, 1e-3)), "none"
    if kind == "SelectKBest":
        return fs.SelectKBest(k=1), "class"
    return fs.SelectPercentile(percentile=60), "class"


def transformer(d, cols):
    """A transformer of numbers, for use alone or before a model."""
    from sklearn import preprocessing as pp
    from sklearn.decomposition import PCA
    from sklearn.pipeline import FeatureUnion
    choices = [
        lambda: pp.StandardScaler(with_mean=d.chance(0.8), with_std=d.chance(0.8)),
        lambda: make(pp.MinMaxScaler, feature_range=d.pick((0, 1), (-1, 2), (0.5, 0.75)), clip=d.chance()),
        lambda: make(pp.MaxAbsScaler, clip=d.chance()),
        lambda: make(pp.RobustScaler, with_centering=d.chance(0.8), with_scaling=d.chance(0.8), quantile_range=d.pick((25.0, 75.0), (5.0, 90.0)), unit_variance=d.chance(0.3)),
        lambda: pp.Normalizer(d.pick("l1", "l2", "max")),
        lambda: pp.PolynomialFeatures(d.whole(1, 3) if VERSION < (1, 0) else d.pick(1, 2, 3, (0, 2), (2, 3)), interaction_only=d.chance(0.3), include_bias=d.chance()),
        lambda: pp.QuantileTransformer(n_quantiles=d.whole(2, 30), output_distribution=d.pick("uniform", "normal"), subsample=d.pick(int(1e5), 40), random_state=d.seed),
        lambda: PCA(d.whole(1, cols), whiten=d.chance(0.3), svd_solver="full"),
        lambda: pp.FunctionTransformer(d.pick(None, np.abs, np.tanh, np.square, np.cbrt, np.exp2, np.sign, np.rint), validate=d.chance()),
        lambda: pp.Binarizer(threshold=d.pick(0.0, 0.5, -1.0)),
    ]
    if VERSION >= (0, 20):
        choices += [
            lambda: pp.PowerTransformer(standardize=d.chance(0.7)),
            lambda: make(pp.KBinsDiscretizer, n_bins=d.whole(2, 5), encode=d.pick("ordinal", "onehot-dense"), strategy=d.pick("uniform", "quantile", "kmeans"),
                         quantile_method=d.pick("linear", "averaged_inverted_cdf"), subsample=None),
        ]
    if d.chance(0.15) and cols > 1:
        return columns(d, cols)
    if d.chance(0.12):
        return FeatureUnion([("a", transformer(d, cols)), ("b", transformer(d, cols))], transformer_weights=d.pick(None, {"a": 2.5}))
    return choices[d.rng.randint(len(choices))]()


def columns(d, cols):
    if VERSION < (0, 20):
        return transformer(d, cols)
    from sklearn.compose import ColumnTransformer
    at = d.whole(1, cols - 1)
    mask = [i < at for i in range(cols)]
    first = d.pick(list(range(at)), slice(0, at), mask, np.array(mask), [i - cols for i in range(at)])
    rest = d.pick("drop", "passthrough", transformer(d, cols - at - 1) if at + 1 < cols else "drop") if VERSION >= (0, 21) else "drop"
    return ColumnTransformer([("a", transformer(d, at), first), ("b", d.pick("passthrough", "drop", transformer(d, 1)), [at])], remainder=rest,
                             transformer_weights=d.pick(None, {"a": 0.5}))


@family()
def any_transformer(d):
    return "transformer", "none"


@family()
def any_transformer_again(d):
    return "transformer", "none"


@family()
def any_transformer_more(d):
    return "transformer", "none"


@family(since=(0, 20))
def column_transformer(d):
    return "columns", "none"


@family(since=(0, 20))
def imputer(d):
    from sklearn.impute import SimpleImputer
    return make(SimpleImputer, strategy=d.pick("mean", "median", "most_frequent", "constant"), fill_value=d.pick(None, -7.5), add_indicator=d.chance(0.4),
                keep_empty_features=d.chance(0.3)), "holes none"


@family()
def fixed_scalers(d):
    from sklearn.preprocessing import StandardScaler
    return StandardScaler(with_mean=d.chance(0.8), with_std=d.chance(0.8)), "none"


def front(d, cols, holes):
    """Steps before a model, perhaps none."""
    from sklearn.pipeline import FeatureUnion
    steps = []
    if holes and d.chance(0.5):
        from sklearn.impute import SimpleImputer
        steps.append(("fill", make(SimpleImputer, strategy=d.pick("mean", "median"), add_indicator=d.chance(0.3))))
    if d.chance(0.6) and not holes:
        from sklearn.preprocessing import StandardScaler
        steps.append(("scale", StandardScaler()) if d.chance() else ("prepare", transformer(d, cols)))
    return steps


def case(d, f):
    """Returns an estimator, its rows and targets."""
    from sklearn.pipeline import Pipeline
    est, task = f(d)
    rows, cols = d.whole(30, 90), d.whole(1, 5)
    kind = None
    holes = "holes" in task
    x = d.table(rows, cols if "categories" not in task else max(2, cols), kind)
    ready = None
    if f.__module__ == "wide" or d.chance(0.2):
        ready = wide.shipped(d, task) if isinstance(est, object) and est != "columns" and d.chance(0.4) else None
        if ready is not None:
            x = ready[0]
            rows = len(x)
    near = "KNeighbors" in str(est) and "KNeighbors" not in type(est).__name__
    if near:  # if rows are equally near, any of them may count
        x = x * (1 + d.rng.uniform(-1e-3, 1e-3, x.shape)) + d.rng.uniform(-1e-3, 1e-3, x.shape) * (np.abs(x).max() + 1e-3)
        ready = ready and (x, ready[1])
    if "filled" in task or "near" in task:
        x = np.abs(x) + 0.01
    cols = x.shape[1]
    wide.per_column(d, est, cols)
    if getattr(est, "monotonic_cst", None) is not None:
        est.monotonic_cst = d.rng.randint(-1, 2, cols).tolist()
    if est == "transformer":
        est = transformer(d, cols)
    elif est == "columns":
        x = d.table(rows, max(2, cols))
        cols = x.shape[1]
        est = columns(d, cols)
    elif "categories" in task:
        x[:, 0], x[:, 1] = d.rng.randint(0, 12, rows), d.rng.randint(0, 40, rows)
        if d.chance():
            x[d.rng.uniform(size=rows) < 0.1, 0] = np.nan
    elif type(est).__name__ not in ("SimpleImputer",) and "near" not in task and "frozen" not in task and getattr(est, "metric_params", None) is None and getattr(est, "monotonic_cst", None) is None and "filled" not in task and not near:
        steps = front(d, cols, holes)
        if steps:
            est = Pipeline(steps + [("last", est)])
    y = None
    if ready is not None and ready[1] is not None:
        y = ready[1]
        if task.endswith("class2"):
            y = (y > np.median(y)).astype(int) if len(np.unique(y)) > 2 else y
        if "class" in task.split()[-1] and d.chance() and len(np.unique(y)) <= 6:
            y = d.spell(y)
    elif task.endswith("labels"):
        y = d.rng.randint(0, 2, (rows, 3))
        y[:2] = [[0, 1, 0], [1, 0, 1]]
        x = x + y.sum(1)[:, None]
    elif "class" in task.split()[-1]:
        k = 2 if task.endswith("class2") else d.pick(2, 2, 3, 4)
        y = d.labels(k, rows)
        spread = x.std(0)
        if "categories" not in task:
            x = x + d.pick(0.3, 1.0, 3.0) * y[:, None] * np.where(spread > 0, spread, 1)
        if task.endswith("classes"):
            y = np.column_stack([d.spell(y).astype(object) if d.chance() and VERSION >= (0, 22) else y, d.labels(2, rows)])  # before 0.22, predict turned text into numbers
            y = y.astype(int) if all(isinstance(v, (int, np.integer)) for v in y.ravel()) else y.astype(str)
        else:
            y = d.spell(y)
    elif task.split()[-1] in ("regress", "many", "positive"):
        w = d.rng.normal(0, 1, (cols, 3 if task == "many" else 1))
        clean = np.where(np.isnan(x), 0, x)
        y = clean.dot(w) / max(1e-9, np.abs(clean).max()) + d.rng.normal(0, 0.1, (rows, w.shape[1]))
        y = y if task == "many" else y[:, 0]
        if "positive" in task:
            y = np.abs(y) + 0.01
    if holes:
        x = x.copy()
        x[d.rng.uniform(size=x.shape) < 0.15] = np.nan
        if d.chance(0.2) and type(est).__name__ == "SimpleImputer":
            x[:, 0] = np.nan
    look = d.pick("float64", "float64", "float32", "int", "pandas", "fortran") if not near else "float64"
    if look == "float32":
        x = x.astype(np.float32)
    elif look == "int" and not holes and np.abs(x).max() > 2 and not np.isnan(x).any():
        x = np.round(x).astype(int)
    elif look == "fortran":
        x = np.asfortranarray(x)
    elif look == "pandas" and pandas is not None:
        x = pandas.DataFrame(x, columns=(["temp", u"dr\u00fcck", "x y", "a", "b"] + ["c%d" % i for i in range(cols)])[:x.shape[1]])
    if "frozen" in task:
        wide.prefit(d, est, x, y)
    return est, x, y


def specials(model, q):
    """Rows with values that the model compares with: thresholds, vectors, centres, edges."""
    found = []
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    alone = not hasattr(model, "steps")
    if alone:
        for name in ("support_vectors_", "cluster_centers_", "quantiles_", "means_", "_fit_X"):
            v = getattr(last, name, None)
            if isinstance(v, np.ndarray) and v.ndim == 2 and v.shape[1] == q.shape[1]:
                found.append(v[:4])
                if len(v) > 1:
                    found.append((v[:1] + v[1:2]) / 2)
        edges = getattr(last, "bin_edges_", None)
        if edges is not None and len(edges) == q.shape[1]:
            for i in range(3):
                found.append(np.array([[e[min(i, len(e) - 1)] for e in edges]]))
        trees = []
        if hasattr(last, "tree_"):
            trees = [last.tree_]
        for e in list(getattr(last, "estimators_", []))[:3]:
            e = e[0] if isinstance(e, np.ndarray) else e
            if hasattr(e, "tree_"):
                trees.append(e.tree_)
        for t in trees:
            inner = np.flatnonzero(t.children_left >= 0)[:4]
            for node in inner:
                if t.feature[node] < q.shape[1]:
                    for v in (np.float32(t.threshold[node]), np.nextafter(np.float32(t.threshold[node]), np.float32(np.inf)), t.threshold[node]):
                        row = q[:1].copy()
                        row[0, t.feature[node]] = v
                        found.append(row)
    found = [np.asarray(f, dtype=float) for f in found]
    return [f for f in found if np.isfinite(f).all()]


def queries(d, model, x, positive):
    x = np.asarray(x, dtype=float)
    spread = np.nan_to_num(np.nanmax(np.abs(x), axis=0)) + 1e-9
    n = x.shape[1]
    rows = [x[:10], x[:4] + 1e-3 * spread, d.rng.normal(0, 1, (8, n)) * spread, x[:1] + 30 * spread, np.zeros((1, n)), -x[:2], x[:1] * 1e12, np.full((1, n), 1e-300), x[2:3].astype(np.float32)]
    q = np.vstack(rows + specials(model, x[:2]))
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if type(last).__name__ in ("FunctionTransformer", "PowerTransformer"):  # logarithms and powers lose digits
        for v in (5e-324, 3e-310, 2.3e-308, 1e-20, 1e-8, 1 - 2.0 ** -53, 1 + 2.0 ** -52, 1 - 1e-9, 1 + 1e-9, 1 - 1e-3, 1 + 1e-3, 0.5, 2.0, 1e5, 700.0):
            q = np.vstack([q, np.full((1, n), v), np.full((1, n), -v)])
    q = np.where(np.isnan(q) & (d.rng.uniform(size=q.shape) < 0.3), 0, q)
    return np.abs(q) + 0.1 if positive else q


def call(model, m, x):
    """A method's result: an array of columns; None if there is no such method; an exception's name."""
    try:
        f = getattr(model, m)
    except AttributeError:
        return None
    try:
        got = f(x)
    except (AttributeError, NotImplementedError):
        return None
    except Exception as e:
        return "%s: %s" % (type(e).__name__, str(e)[:200])
    if isinstance(got, list) and m == "transform":  # VotingClassifier without flatten_transform
        return None
    if isinstance(got, list):  # one array per output
        got = np.hstack(got)
    if hasattr(got, "toarray"):
        got = got.toarray()
    got = np.asarray(got)
    if got.ndim > 2:  # the same, for later releases
        return None
    if got.dtype.kind in "UO" and not all(isinstance(v, float) for v in got.ravel()):
        classes = last_attribute(model, "classes_")
        if isinstance(classes, list):
            got = np.column_stack([[list(c).index(v) for v in got[:, i]] for i, c in enumerate(classes)]).astype(float)
        else:
            try:
                got = np.array([list(classes).index(v) for v in np.ravel(got)], dtype=float)
            except ValueError as e:  # a vote with a frozen classifier mixes labels and their numbers
                return "%s: %s" % (type(e).__name__, e)
    try:
        return got.astype(float).reshape(len(x), -1)
    except ValueError as e:  # a model that was changed by hand
        return "%s: %s" % (type(e).__name__, e)


def last_attribute(model, name):
    return getattr(model, name)


def tied(model, q):
    """Rows whose set of nearest training rows isn't determined by distances."""
    last, x = model, q
    if hasattr(model, "steps"):
        last = model.steps[-1][1]
        for _, s in model.steps[:-1]:
            x = s.transform(x)
    if not hasattr(last, "kneighbors"):
        return []
    k = getattr(last, "n_neighbors_", last.n_neighbors)
    have = last._fit_X.shape[0]
    x = np.asarray(x, dtype=float)
    try:
        far = last.kneighbors(x, n_neighbors=min(k + 1, have))[0]
    except TypeError:  # 1.0 can't compute manhattan distances with metric_params
        return []
    scale = (np.abs(x).max(1) + np.abs(last._fit_X).max())
    # A brute-force search loses digits of squared distances.
    loose = 1e-6 if getattr(last, "_fit_method", "") == "brute" else 1e-13
    out = np.zeros(len(x), bool)
    if k < have:
        out = np.abs(far[:, k] - far[:, k - 1]) <= loose * scale
    if getattr(last, "weights", "") == "distance" or loose > 1e-9:
        out |= far[:, 0] <= loose * scale * 10
    return np.flatnonzero(out).tolist()


def unsupported(model):
    """A text that the error of Load must contain; empty for a supported model."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    name = type(last).__name__
    if name.startswith("GradientBoosting") and not (last.init is None or last.init == "zero"):
        return "init="
    categories = getattr(last, "categorical_features", None)
    if name.startswith("HistGradientBoosting") and not (categories is None or isinstance(categories, str)):
        return "categorical features"
    return ""


def exact(model):
    """Whether the order of all arithmetic of the model is defined."""
    name = type(model).__name__
    if name == "Pipeline":
        return all(exact(s) for _, s in model.steps)
    if name == "ColumnTransformer":
        return all(isinstance(t[1], str) or exact(t[1]) for t in model.transformers_)
    if name == "FeatureUnion":
        return all(exact(t[1]) for t in model.transformer_list)
    if name == "FunctionTransformer":
        return model.func in (None, np.abs, np.square, np.sign, np.rint)
    if name == "QuantileTransformer":
        return model.output_distribution == "uniform"
    if name.startswith("AdaBoost"):
        return all(exact(e) for e in model.estimators_)
    if name.startswith("GradientBoosting"):
        return not hasattr(model.init_, "predict") or type(model.init_).__name__.startswith("Dummy")
    return name in EXACT


def weights(model, q):
    """The size of the terms in the sums of the results, row by row, if it is known: for linear models and support vector machines."""
    last, x = model, q
    if hasattr(model, "steps"):
        last = model.steps[-1][1]
        for _, s in model.steps[:-1]:
            x = s.transform(x)
    x = np.abs(np.asarray(x, dtype=float))
    if hasattr(last, "support_vectors_"):
        sv, coef = np.abs(last.support_vectors_), np.abs(last.dual_coef_).sum(0)
        k = np.ones((len(x), len(sv)))
        if last.kernel == "linear":
            k = x.dot(sv.T)
        elif last.kernel == "poly":
            k = (last._gamma * x.dot(sv.T) + abs(last.coef0)) ** last.degree
        return k.dot(coef) + np.abs(last.intercept_).max()
    if getattr(last, "coef_", None) is not None:
        return (x.dot(np.abs(np.atleast_2d(last.coef_)).T) + np.abs(getattr(last, "intercept_", getattr(last, "offset_", 0)))).max(1)
    inner = getattr(last, "regressor_", None)
    if getattr(inner, "coef_", None) is not None:  # the error of the inner sum after the target's inverse
        terms = (x.dot(np.abs(np.atleast_2d(inner.coef_)).T) + np.abs(inner.intercept_)).max(1)
        v = np.asarray(inner.predict(q if last is model else model[:-1].transform(q)), dtype=float).reshape(len(x), -1)[:, :1]
        h = 1e-3 * np.maximum(1, np.abs(v))
        slope = np.abs(last.transformer_.inverse_transform(v + h) - last.transformer_.inverse_transform(v - h)) / (2 * h)
        return terms * np.maximum(1, slope.max(1))
    if type(last).__name__ == "PCA":
        return ((x + np.abs(last.mean_)) ** 2).sum(1) / max(last.noise_variance_, 1e-300) if last.noise_variance_ else np.zeros(len(x))
    if hasattr(last, "cluster_centers_"):
        return (x ** 2).sum(1) + (last.cluster_centers_ ** 2).sum(1).max()
    if hasattr(last, "location_"):
        x = x + np.abs(last.location_)
        lost = 1.0 if last.precision_ is not None else min(1e6, np.linalg.cond(last.covariance_))  # by the inversion
        return (x.dot(np.abs(last.get_precision())) * x).sum(1) * lost
    if hasattr(last, "precisions_cholesky_"):
        return np.full(len(x), 1.0) * (np.abs(last.precisions_cholesky_).max() * (x.sum(1) + np.abs(last.means_).sum(1).max())) ** 2
    return np.zeros(len(x))


def results(d, model, like, q):
    """The results of every method, and how far rounding alone may change them."""
    out = {}
    is_exact = exact(model)
    for m in METHODS:
        got = call(model, m, like(q))
        if got is None:
            continue
        if isinstance(got, str):
            out[m] = {"refused": got}
            continue
        out[m] = {"cols": got.shape[1], "values": pack(got)}
        if is_exact:
            continue
        moved = np.zeros_like(got)
        for _ in range(3):
            nudge = 1 + d.rng.uniform(-1, 1, q.shape) * 4e-15
            other = call(model, m, like(q * nudge))
            if isinstance(other, np.ndarray):
                with np.errstate(all="ignore"):
                    moved = np.fmax(moved, np.abs(other - got))
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        if m == "score_samples" and type(last).__name__ == "PCA" and len(last.explained_variance_):  # it inverts a covariance
            noise = last.noise_variance_ or last.explained_variance_[-1]
            most = last.explained_variance_.max()
            if not (most ** 2 if last.whiten else most) < 1e4 * noise:  # then its own releases differ
                moved = moved + np.inf
        out[m]["moved"] = pack(np.nan_to_num(moved))
    return out


def probes(d, model, like, q):
    """Rows with values that may be refused."""
    out = []
    good = q[np.isfinite(q).all(1)][:4]
    if len(good) < 4:
        return out
    for value in (np.nan, np.inf, -np.inf, 1e39, -1e39, 1e300):
        bad = good.copy()
        bad[1, d.rng.randint(q.shape[1])] = value
        out.append(asked(d, model, like, bad))
    return out


def asked(d, model, like, q):
    """Rows, the model's results for them, and how exactly these are determined."""
    try:
        skip = tied(model, like(q))
    except ValueError:
        skip = []
    try:
        weight = np.nan_to_num(weights(model, like(q)))
    except (ValueError, TypeError):  # the latter a model that was changed by hand
        weight = np.zeros(len(q))
    return {"x": pack(q), "out": results(d, model, like, q), "tied": skip, "weights": pack(weight)}


def x_is_single(x):
    return getattr(x, "dtype", None) == np.float32


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folder")
    args.add_argument("--seed", type=int, required=True)
    args.add_argument("--rounds", type=int, default=1)
    args.add_argument("--only", default="")
    args.add_argument("--changed", type=float, default=0.0, help="the share of models that somebody changed by hand after the fit")
    args = args.parse_args()
    archive = None
    if args.folder.endswith(".zip"):
        archive, args.folder = args.folder, tempfile.mkdtemp()
    if not os.path.isdir(args.folder):
        os.makedirs(args.folder)
    cases, unfit = [], {}
    for r in range(args.rounds):
        for i, f in enumerate(FAMILIES + wide.FAMILIES):
            if not re.search(args.only, f.__name__):
                continue
            name = "%s_%d" % (f.__name__, args.seed + r)
            d = Draw((args.seed + r) * 1000 + i)
            try:
                est, x, y = case(d, f)
                model = est.fit(x) if y is None else est.fit(x, y)
                edit = wide.changed(d, model) if args.changed and d.chance(args.changed) else ""
            except Exception as e:  # parameters that can't be combined, or a NumPy that is too new for the release
                unfit[name] = "%s: %s" % (type(e).__name__, str(e)[:300])
                continue
            like = (lambda q: q)
            if pandas is not None and isinstance(x, pandas.DataFrame):
                like = lambda q, x=x: pandas.DataFrame(q, columns=x.columns)
            file = name + ".pickle"
            with open(os.path.join(args.folder, file), "wb") as fh:  # first, as some releases change a model that is used
                pickle.dump(model, fh, min(d.whole(2, 5), pickle.HIGHEST_PROTOCOL))
            shown = re.sub(r"\s+", " ", str(model)) + (" with another %s" % edit if edit else "")
            q = queries(d, model, x, "box-cox" in shown)
            if "KNeighbors" in shown and "KNeighbors" not in type(model).__name__ and "steps" not in vars(model):
                q = q[(np.abs(q) < 1e3 * (np.abs(np.asarray(x, dtype=float)).max() + 1)).all(1)]
                if len(q) < 4:
                    continue
            c = {"name": name, "shown": shown, "exact": exact(model), "single": x_is_single(x), "cols": q.shape[1], "asked": asked(d, model, like, q),
                 "probes": probes(d, model, like, q), "file": file, "unsupported": "" if edit or f.__module__ == "wide" else unsupported(model),
                 "may_refuse": bool(edit) or f.__module__ == "wide", "changed": edit}
            for n in (q.shape[1] + 1, q.shape[1] - 1):
                other = np.resize(q[:4], (4, n)) if n else None
                if other is not None:
                    c.setdefault("wrong", {})[str(n)] = all(not isinstance(call(model, m, other), np.ndarray) for m in METHODS)
            if any(o.get("cols", 1) > 0 for o in c["asked"]["out"].values()):  # else an imputer that leaves no column
                cases.append(c)
    with open(os.path.join(args.folder, "cases.json"), "w") as fh:
        json.dump({"sklearn": sklearn.__version__, "numpy": np.__version__, "cases": cases, "unfit": unfit}, fh)
    if archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
            for name in sorted(os.listdir(args.folder)):
                info = zipfile.ZipInfo(name)  # with a fixed time, so that the same cases make the same file
                info.compress_type = zipfile.ZIP_DEFLATED
                with open(os.path.join(args.folder, name), "rb") as fh:
                    z.writestr(info, fh.read())
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
