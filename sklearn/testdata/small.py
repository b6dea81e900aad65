"""Writes a zip of small models for TestSmallModels: models of classes that the other
fixtures lack, and models that were changed by hand after the fit.

    python small.py FILE.zip

For each model, cases.json has the results of its methods for some rows, or says that the model
must be refused, and for which parameter. Works with scikit-learn 0.24 or later. If dill is
installed, it writes some of the models.
"""
import json
import pickle
import sys
import warnings
import zipfile

import numpy as np
from sklearn import covariance, dummy, ensemble, feature_selection, impute, linear_model, model_selection, naive_bayes, neural_network, pipeline, preprocessing, svm, tree
from sklearn.calibration import CalibratedClassifierCV

from parity import METHODS, VERSION, pack

warnings.simplefilter("ignore")
rng = np.random.RandomState(3)
X = rng.normal(size=(40, 2)) * [1, 3] + [0, 5]
Y = X.dot([0.5, 0.2]) + 0.1 * rng.normal(size=40)
C = (X[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int)
POSITIVE = np.exp(Y / 2)
ROWS = X[:6] + 0.1
cases, files = [], {}


def add(name, holds, refused=None, rows=ROWS, model=None, dumps=pickle.dumps):
    out, model = {}, holds if model is None else model
    for m in METHODS if refused is None else ():
        try:
            got = np.asarray(getattr(model, m)(rows), dtype=float)
        except AttributeError:
            continue
        out[m] = {"cols": int(got.size // len(rows)), "values": pack(got.reshape(len(rows), -1))}
    files[name + ".pickle"] = dumps(holds, 4)
    cases.append({"name": name, "cols": rows.shape[1], "x": pack(rows), "out": out, "refused": refused})


def edit(model, **attributes):
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def linear():
    for kind in ("ARDRegression", "Lars", "LassoLars", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "LarsCV", "LassoLarsCV", "QuantileRegressor", "PoissonRegressor", "GammaRegressor",
                 "TweedieRegressor"):
        more = {"solver": "highs"} if kind == "QuantileRegressor" else {}
        if hasattr(linear_model, kind):
            add(kind, getattr(linear_model, kind)(**more).fit(X, POSITIVE))
    for kind in ("MultiTaskLassoCV", "MultiTaskElasticNetCV"):
        add(kind, getattr(linear_model, kind)(cv=2).fit(X, np.c_[Y, -Y]))
    tweedie = linear_model.TweedieRegressor
    add("tweedie_power", edit(tweedie(power=1.5).fit(X, POSITIVE), power=0))
    add("tweedie_identity", edit(tweedie(power=0).fit(X, POSITIVE), power=2))
    add("tweedie_link", edit(tweedie(power=0, link="identity").fit(X, POSITIVE), link="log"))
    add("tweedie_log", edit(tweedie(power=0, link="log").fit(X, POSITIVE), link="identity"))
    add("ridge_classes", edit(linear_model.RidgeClassifier().fit(X, C), **({"classes_": np.array([1, 0])} if VERSION >= (1, 8) else {})))


def select():
    for kind, more in (("SelectKBest", {"k": 1}), ("SelectFpr", {"alpha": 0.9}), ("SelectFwe", {"alpha": 0.9})):
        add(kind, getattr(feature_selection, kind)(**more).fit(X, C))


def search():
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    tree_ = tree.DecisionTreeClassifier(max_depth=2, random_state=1)
    add("GridSearchCV", model_selection.GridSearchCV(tree_, {"max_depth": [1, 2]}, cv=2).fit(X, C))
    for kind in ("HalvingGridSearchCV", "HalvingRandomSearchCV"):
        add(kind, getattr(model_selection, kind)(tree_, {"max_depth": [1, 2]}, cv=2, random_state=1).fit(X, C))


def boosting():
    if VERSION < (1, 0):
        from sklearn.experimental import enable_hist_gradient_boosting  # noqa: F401
    hist = ensemble.HistGradientBoostingRegressor
    more = {"max_iter": 2, "max_leaf_nodes": 3}
    squared = "squared_error" if VERSION >= (1, 0) else "least_squares"
    add("hist_poisson", edit(hist(loss="poisson", **more).fit(X, POSITIVE), loss=squared))
    add("hist_squared", edit(hist(**more).fit(X, POSITIVE), loss="poisson"))
    add("hist_classes", ensemble.HistGradientBoostingClassifier(**more).fit(X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 5)))
    categories = np.c_[np.arange(40) % 4, X[:, 1]]
    if VERSION >= (1, 0):
        add("hist_categories", edit(hist(categorical_features=[0], max_iter=2, min_samples_leaf=2).fit(categories, categories[:, 0] % 2), is_categorical_=None), "")
    boosted = ensemble.GradientBoostingClassifier
    log_loss = "log_loss" if VERSION >= (1, 1) else "deviance"
    more = {"n_estimators": 2, "max_depth": 1}
    add("boosted_exponential", edit(boosted(loss="exponential", **more).fit(X, C), loss=log_loss))
    add("boosted_log_loss", edit(boosted(**more).fit(X, C), loss="exponential"))
    add("boosted_regressor", ensemble.GradientBoostingRegressor(**more).fit(X, Y))


def trees():
    add("DecisionTreeRegressor", tree.DecisionTreeRegressor(max_depth=2).fit(X, Y))
    add("ExtraTreeRegressor", tree.ExtraTreeRegressor(max_depth=2, random_state=1).fit(X, Y))
    add("ExtraTreeClassifier", tree.ExtraTreeClassifier(max_depth=2, random_state=1).fit(X, C))
    for kind in ("RandomForestRegressor", "ExtraTreesRegressor", "RandomForestClassifier", "ExtraTreesClassifier"):
        add(kind, getattr(ensemble, kind)(2, max_depth=2, random_state=1, bootstrap=True, oob_score=True).fit(X, Y if "Reg" in kind else C))
    add("BaggingClassifier", ensemble.BaggingClassifier(tree.DecisionTreeClassifier(max_depth=1), 2, oob_score=True, random_state=1).fit(X, C))
    add("BaggingRegressor", ensemble.BaggingRegressor(tree.DecisionTreeRegressor(max_depth=1), 2, oob_score=True, random_state=1).fit(X, Y))


def others():
    mlp = neural_network.MLPClassifier((2,), max_iter=3, random_state=1)
    add("mlp_classes", edit(mlp.fit(X, C), classes_=np.array([7, 3])))
    add("mlp_three", edit(mlp.fit(X, C + (X[:, 1] > 5)), classes_=np.array([7, 3, 5])))
    add("mlp_binarizer", edit_binarizer(mlp.fit(X, C)), "neg_label")
    add("envelope", edit(covariance.EllipticEnvelope(random_state=1).fit(X), store_precision=False))
    add("svm", svm.NuSVR(kernel="poly", degree=2, coef0=1.0, gamma=0.1).fit(X, Y))
    large = np.array([[1e300, 1e6], [1e6, 1e300], [1e300, -1e300], [1.0, 2.0]])
    add("svc_overflow", svm.NuSVC(kernel="poly", degree=4, gamma=0.1, probability=True, random_state=1).fit(X, C), rows=large)
    add("svc", svm.NuSVC(kernel="poly", degree=2, coef0=1.0, gamma=0.1).fit(X, C))
    add("priors", naive_bayes.GaussianNB(priors=[0.2, 0.8]).fit(X, C))
    add("DummyRegressor", dummy.DummyRegressor(strategy="quantile", quantile=0.3).fit(X, Y))
    holes = X.copy()
    holes[::5, 0] = np.nan
    more = {"keep_empty_features": True} if VERSION >= (1, 2) else {}
    add("impute_nothing", impute.SimpleImputer(strategy="constant", fill_value=np.nan, **more).fit(holes), rows=holes[:6])
    if VERSION < (1, 8):
        add("impute_constant", impute.SimpleImputer(strategy="constant", fill_value=np.nan).fit(holes), rows=holes[:6])
    indicated = impute.SimpleImputer(add_indicator=True)
    add("indicator", indicated.fit(holes), rows=holes[:6])
    add("indicator_all", edit_indicator(indicated.fit(holes)), "features")
    bins = preprocessing.KBinsDiscretizer(3, encode="onehot-dense", **({"quantile_method": "averaged_inverted_cdf"} if VERSION >= (1, 7) else {}))
    add("bins", bins.fit(X))
    for dtype in (np.float32, np.float64) if VERSION >= (0, 24) else ():
        add("bins_" + dtype.__name__, preprocessing.KBinsDiscretizer(3, encode="onehot-dense", dtype=dtype).fit(X))
    bins.fit(X)
    bins._encoder.drop = "first"
    add("bins_drop", bins, "drop")
    isotonic = CalibratedClassifierCV(linear_model.LogisticRegression(), method="isotonic", cv=2)
    add("isotonic", isotonic.fit(X, C))
    first(isotonic.fit(X, C)).X_min_ = 0.3
    add("isotonic_ends", isotonic, "")


def edit_binarizer(model):
    model._label_binarizer.neg_label = -3
    return model


def edit_indicator(model):
    model.indicator_.features = "all"
    return model


def first(calibrated):
    c = calibrated.calibrated_classifiers_[0]
    return getattr(c, "calibrators", getattr(c, "calibrators_", None))[0]


def shadows():
    """Attributes that the class has in no release, or that replace a method."""
    scaler = preprocessing.StandardScaler
    iso = lambda: ensemble.IsolationForest(n_estimators=2, random_state=1).fit(X)
    add("note", edit(scaler().fit(X), note="trained on Monday"), "note")
    add("own_transform", edit(scaler().fit(X), transform=np.log), "transform")
    add("own_predict", edit(iso(), predict=np.sign), "predict")
    add("own_scores", edit(iso(), score_samples=np.sign), "score_samples")
    add("own_check", edit(iso(), _validate_data=np.array), "_validate_data")
    add("in_tree", in_tree(iso()), "apply")
    add("in_pipeline", edit(pipeline.make_pipeline(scaler(), svm.OneClassSVM()).fit(X), decision_function=np.sign), "decision_function")
    add("in_step", in_step(pipeline.make_pipeline(scaler(), svm.OneClassSVM()).fit(X)), "_decision_function")
    sigmoid = CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2).fit(X, C)
    first(sigmoid).predict = np.sign
    add("in_calibrator", sigmoid, "predict")
    mlp = neural_network.MLPClassifier((2,), max_iter=3, random_state=1).fit(X, C)
    mlp._label_binarizer.inverse_transform = np.sign
    add("in_binarizer", mlp, "inverse_transform")


def my_scorer(est, x, y):
    return est.score(x, y)


def my_loss(a, b):
    return float((a == b).mean())


def leftovers():
    """Parameters that only fitting needs; they may be of any class."""
    from functools import partial
    from joblib import Memory
    from scipy import stats
    from sklearn.metrics import f1_score, make_scorer
    ms, tree_, depth = model_selection, tree.DecisionTreeClassifier(random_state=1), {"max_depth": [1, 2]}
    own_split = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    for cv in (ms.ShuffleSplit(2, random_state=np.random.RandomState(3)), ms.RepeatedKFold(n_splits=2, n_repeats=2), ms.TimeSeriesSplit(3), ms.PredefinedSplit(np.arange(40) % 3), ms.LeaveOneOut(), own_split):
        add("cv_" + type(cv).__name__, ms.GridSearchCV(tree_, depth, cv=cv).fit(X, C))
    add("cv_groups", ms.GridSearchCV(tree_, depth, cv=ms.GroupKFold(2)).fit(X, C, groups=np.arange(40) % 4))
    for name, scoring in (("name", "roc_auc"), ("made", make_scorer(f1_score, average="macro")), ("own", my_scorer), ("own_made", make_scorer(my_loss)), ("several", {"a": "accuracy", "b": make_scorer(f1_score)})):
        add("scoring_" + name, ms.GridSearchCV(tree_, depth, cv=2, scoring=scoring, refit="a" if name == "several" else True).fit(X, C))
    if VERSION < (1, 0):
        from sklearn.experimental import enable_hist_gradient_boosting  # noqa: F401
    for name, scoring in (("name", "roc_auc"), ("own", my_scorer)):
        add("hist_scoring_" + name, ensemble.HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=3, scoring=scoring, **({"early_stopping": True} if VERSION >= (0, 23) else {"n_iter_no_change": 2})).fit(X, C))
    add("other_candidates", ms.GridSearchCV(pipeline.Pipeline([("m", tree_)]), {"m": [tree_, Unknown()]}, cv=2).fit(X, C))
    add("distributions", ms.RandomizedSearchCV(tree_, {"max_depth": stats.randint(1, 3), "min_impurity_decrease": stats.expon(scale=1e-9)}, n_iter=2, cv=2, random_state=1).fit(X, C))
    for name, f in (("information", feature_selection.mutual_info_classif), ("partial", partial(feature_selection.mutual_info_classif, random_state=0)), ("own", my_selection)):
        add("select_" + name, feature_selection.SelectKBest(f, k=1).fit(X, C))
    add("texts", svm.SVC(kernel=np.str_("rbf"), gamma=np.str_("scale"), decision_function_shape=np.str_("ovr")).fit(X, C))
    add("truths", preprocessing.StandardScaler(with_mean=np.bool_(False)).fit(X))
    add("memory", pipeline.Pipeline([("a", preprocessing.StandardScaler()), ("b", tree_)], memory=Memory(None)).fit(X, C))
    fitted = tree_.fit(X, C)
    add("dict", {"model": fitted, "columns": ["a", "b"], "rows": X, "limits": (1, 2)}, model=fitted)
    add("tuple", (fitted, "first"), model=fitted)
    if VERSION >= (1, 6):
        from sklearn.frozen import FrozenEstimator
        add("frozen", FrozenEstimator(fitted))
        add("frozen_calibrated", CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X, C))
    try:
        import dill
    except ImportError:
        return
    for name, model in (("pipeline", pipeline.make_pipeline(preprocessing.StandardScaler(), tree_).fit(X, C)), ("forest", ensemble.RandomForestClassifier(2, max_depth=1).fit(X, C)), ("search", ms.GridSearchCV(tree_, depth, cv=2, scoring="accuracy").fit(X, C))):
        add("dill_" + name, model, dumps=dill.dumps)


class Unknown(tree.DecisionTreeClassifier):
    """A user's own class, which the search doesn't choose."""

    def score(self, x, y):
        return -1.0


def my_selection(x, y):
    return np.abs(x).sum(0)


def in_tree(model):
    model.estimators_[1].apply = np.sign
    return model


def in_step(model):
    model.steps[1][1]._decision_function = np.sign
    return model


for part in (linear, select, search, boosting, trees, others, shadows, leftovers):
    part()
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    files["cases.json"] = json.dumps(cases).encode()
    for name in sorted(files):
        info = zipfile.ZipInfo(name)  # with a fixed time, so that the same cases make the same file
        info.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(info, files[name])
