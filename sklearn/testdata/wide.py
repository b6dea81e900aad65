"""More families for live.py: every parameter that changes the results of a fitted
estimator, estimators in estimators, the data sets that scikit-learn ships, and models that were
changed by hand after they were fitted.

A family returns an estimator and the kind of its training data, like the families of live.py.
"""
import numpy as np

from parity import VERSION, make

FAMILIES = []


def family(since=(0, 19), until=(99, 0)):
    def note(f):
        if since <= VERSION < until:
            FAMILIES.append(f)
        return f
    return note


def renamed(**params):
    """Renames parameters to the release's names."""
    new = {"estimator": "base_estimator"} if VERSION < (1, 2) else {}
    return {new.get(k, k): v for k, v in params.items()}


# Data sets that scikit-learn ships, by what they can be trained for.
SETS = {"class": ["iris", "wine", "breast_cancer", "digits"], "none": ["iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud"],
        "regress": ["diabetes"], "positive": ["diabetes"], "many": ["linnerud"]}


def shipped(d, task):
    """Rows and targets of a data set; None if no data set is for the task."""
    from sklearn import datasets
    words = task.split()
    if words[-1] not in SETS or "categories" in words:
        return None
    name = d.pick(*SETS[words[-1]])
    data = getattr(datasets, "load_" + name)()
    x, y = np.asarray(data.data, dtype=float), np.asarray(data.target)
    rows = d.rng.permutation(len(x))[:d.whole(40, 120)]
    cols = np.arange(x.shape[1])
    if d.chance(0.6) and len(cols) > 4:
        cols = np.sort(d.rng.permutation(len(cols))[:d.whole(2, 8)])
    x, y = x[rows][:, cols], y[rows]
    if words[-1] == "positive":
        y = y / 100.0
    if words[-1] == "none":
        y = None
    return x, y


# Simple models, which other models are built from.

def some_classifier(d, proba=False, depth=1):
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC, SVC
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
    choices = [
        lambda: DecisionTreeClassifier(max_depth=d.pick(1, 3, None), class_weight=d.pick(None, "balanced"), min_samples_leaf=d.pick(1, 5), random_state=d.seed),
        lambda: ExtraTreeClassifier(max_depth=d.pick(2, 5), random_state=d.seed),
        lambda: RandomForestClassifier(n_estimators=3, max_depth=d.pick(2, None), random_state=d.seed),
        lambda: ExtraTreesClassifier(n_estimators=3, random_state=d.seed),
        lambda: GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=d.seed),
        lambda: make(LogisticRegression, solver="lbfgs", max_iter=40),
        lambda: GaussianNB(),
        lambda: KNeighborsClassifier(n_neighbors=d.whole(2, 6)),
        lambda: make_pipeline(StandardScaler(), make(LogisticRegression, solver="lbfgs", max_iter=40)),
    ]
    if not proba:
        choices += [lambda: LinearSVC(random_state=d.seed), lambda: SVC(gamma=0.2, max_iter=5000), lambda: RidgeClassifier(),
                    lambda: make(SGDClassifier, random_state=d.seed, max_iter=10, tol=None)]
    return choices[d.rng.randint(len(choices))]()


def some_regressor(d):
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR
    from sklearn.tree import DecisionTreeRegressor
    return d.pick(DecisionTreeRegressor(max_depth=d.pick(2, None), random_state=d.seed), RandomForestRegressor(n_estimators=3, random_state=d.seed), LinearRegression(),
                  Ridge(), KNeighborsRegressor(n_neighbors=3), make_pipeline(StandardScaler(), Ridge()), SVR(gamma=0.2, max_iter=5000),
                  ExtraTreesRegressor(n_estimators=2, random_state=d.seed))


@family()
def w_bagging_classifier(d):
    from sklearn.ensemble import BaggingClassifier
    more = dict(bootstrap=d.chance(), max_samples=d.pick(1.0, 0.6), bootstrap_features=d.chance(0.3))
    return BaggingClassifier(some_classifier(d), n_estimators=d.whole(1, 5), max_features=d.pick(1.0, 0.7), random_state=d.seed, **more), "class"


@family()
def w_bagging_regressor(d):
    from sklearn.ensemble import BaggingRegressor
    return BaggingRegressor(some_regressor(d), n_estimators=d.whole(1, 4), max_features=d.pick(1.0, 0.7), bootstrap_features=d.chance(0.3), random_state=d.seed), d.pick("regress", "regress", "many")


@family()
def w_ada_classifier(d):
    from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.tree import DecisionTreeClassifier
    est = d.pick(None, DecisionTreeClassifier(max_depth=2, random_state=d.seed), DecisionTreeClassifier(max_depth=3, class_weight="balanced", random_state=d.seed), GaussianNB(),
                 make(LogisticRegression, solver="lbfgs", max_iter=30), ExtraTreesClassifier(n_estimators=2, max_depth=2, random_state=d.seed))
    return make(AdaBoostClassifier, n_estimators=d.whole(1, 9), algorithm="SAMME" if VERSION >= (1, 6) else d.pick("SAMME", "SAMME.R"), learning_rate=d.pick(1.0, 0.4, 1.7), random_state=d.seed,
                **renamed(estimator=est)), "class"


@family()
def w_ada_regressor(d):
    from sklearn.ensemble import AdaBoostRegressor
    return AdaBoostRegressor(n_estimators=d.whole(1, 7), loss=d.pick("linear", "square", "exponential"), learning_rate=d.pick(1.0, 0.3), random_state=d.seed, **renamed(estimator=some_regressor(d))), "regress"


@family(since=(0, 22))
def w_voting(d):
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    n = d.whole(1, 3)
    weights = d.pick(None, [2, 1, 1][:n], [0.2, 0.3, 0.5][:n])
    if d.chance(0.7):
        soft = d.chance()
        return VotingClassifier([("m%d" % i, some_classifier(d, proba=soft)) for i in range(n)], voting="soft" if soft else "hard", weights=weights, flatten_transform=d.chance(0.8)), "class"
    return VotingRegressor([("m%d" % i, some_regressor(d)) for i in range(n)], weights=weights), "regress"


@family(since=(0, 22))
def w_stacking(d):
    from sklearn.ensemble import StackingClassifier, StackingRegressor
    n = d.whole(1, 3)
    if d.chance(0.7):
        return StackingClassifier([("m%d" % i, some_classifier(d)) for i in range(n)], final_estimator=some_classifier(d), cv=2, passthrough=d.chance(0.3)), "class"
    return StackingRegressor([("m%d" % i, some_regressor(d)) for i in range(n)], final_estimator=some_regressor(d), cv=2, passthrough=d.chance(0.3)), "regress"


@family()
def w_one_vs(d):
    from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
    return d.pick(OneVsRestClassifier, OneVsOneClassifier)(some_classifier(d)), "class"


@family(since=(0, 24))
def w_calibrated(d):
    from sklearn.calibration import CalibratedClassifierCV
    methods = ["sigmoid", "isotonic"] + (["temperature"] if VERSION >= (1, 8) else [])
    return CalibratedClassifierCV(some_classifier(d), method=d.pick(*methods), cv=d.pick(2, 3), ensemble=d.chance()), "class"


@family()
def w_search(d):
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from sklearn.tree import DecisionTreeClassifier
    return GridSearchCV(DecisionTreeClassifier(random_state=d.seed), {"max_depth": d.pick([1, 3], np.array([2, 4]))}, cv=d.pick(2, 3)), "class"


@family()
def w_multi_output(d):
    from sklearn.multioutput import MultiOutputRegressor
    return MultiOutputRegressor(some_regressor(d)), "many"


@family()
def w_ransac(d):
    from sklearn.linear_model import LinearRegression, RANSACRegressor, Ridge
    return RANSACRegressor(d.pick(None, LinearRegression(fit_intercept=False), Ridge()), min_samples=0.6, random_state=d.seed), "regress"


@family(since=(0, 20))
def w_target(d):
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, RobustScaler, StandardScaler
    from sklearn.pipeline import make_pipeline
    return TransformedTargetRegressor(some_regressor(d), transformer=d.pick(RobustScaler(with_centering=d.chance()), MaxAbsScaler(), StandardScaler(with_std=d.chance(), with_mean=d.chance()),
                                                                           FunctionTransformer(np.log1p, inverse_func=np.expm1, validate=True)), check_inverse=False), "positive"


# Every parameter.

@family(since=(0, 20))
def w_one_class(d):
    from sklearn.svm import OneClassSVM
    return OneClassSVM(gamma=d.pick("scale", "auto", 0.3), nu=d.pick(0.05, 0.3, 0.8), kernel=d.pick("rbf", "rbf", "linear", "poly", "sigmoid"), degree=d.whole(0, 5), coef0=d.pick(0.0, 1.0, -0.5),
                       tol=d.pick(1e-3, 1e-6), max_iter=4000, cache_size=100), "none"


@family(since=(0, 20))
def w_svc(d):
    from sklearn.svm import NuSVC, SVC
    more = dict(gamma=d.pick("scale", "auto", 0.3), kernel=d.pick("rbf", "rbf", "linear", "poly", "sigmoid"), degree=d.whole(0, 4), coef0=d.pick(0.0, 1.0), max_iter=4000,
                probability=d.chance(0.4) and VERSION < (1, 8), decision_function_shape=d.pick("ovr", "ovo"), random_state=d.seed)
    if d.chance(0.3):
        return NuSVC(nu=0.1, class_weight=d.pick(None, "balanced"), **more), "class"
    return SVC(C=d.number(0.1, 50), class_weight=d.pick(None, "balanced"), **more), "class"


def weighted_metric(d):
    """Distances with parameters."""
    tree = d.pick("auto", "ball_tree", "kd_tree", "brute")
    return d.pick(
        dict(metric="minkowski", p=3, algorithm=tree), dict(metric="minkowski", p=2, metric_params={"p": 3}, algorithm=tree), dict(metric="minkowski", metric_params={"p": 1}, algorithm=tree),
        dict(metric="minkowski", p=np.inf, algorithm=tree), dict(metric="minkowski", p=3, metric_params={"w": "cols"}, algorithm=d.pick("ball_tree", "brute")),
        dict(metric="minkowski", p=2, metric_params={"w": "cols"}, algorithm=d.pick("ball_tree", "brute")), dict(metric="minkowski", p=1, metric_params={"w": "cols"}, algorithm=d.pick("ball_tree", "brute")),
        dict(metric="minkowski", p=0.5, algorithm="brute"),
        dict(metric="infinity", algorithm=d.pick("ball_tree", "kd_tree")), dict(metric="p", algorithm=d.pick("ball_tree", "kd_tree")), dict(metric="l1", algorithm=tree), dict(metric="euclidean", algorithm=tree),
        dict(metric="canberra", algorithm="ball_tree"), dict(metric="hamming", algorithm="ball_tree"), dict(metric="braycurtis", algorithm=d.pick("ball_tree", "brute")),
        dict(metric="seuclidean", metric_params={"V": "cols"}, algorithm=d.pick("ball_tree", "brute")), dict(metric="mahalanobis", metric_params={"VI": "matrix"}, algorithm=d.pick("ball_tree", "brute")),
        dict(metric="wminkowski", p=2, metric_params={"w": "cols"}, algorithm="ball_tree"), dict(metric="nan_euclidean", algorithm="brute"), dict(metric="correlation", algorithm="brute"))


def per_column(d, est, cols):
    """Fills in parameters that have a number for each column."""
    params = getattr(est, "metric_params", None)
    if isinstance(params, dict):
        for k, v in params.items():
            if isinstance(v, str):
                params[k] = np.diag(d.rng.uniform(0.2, 3, cols)) if v == "matrix" else d.rng.uniform(0.2, 3, cols)


@family(since=(0, 20))
def w_lof(d):
    from sklearn.neighbors import LocalOutlierFactor
    return LocalOutlierFactor(n_neighbors=d.whole(2, 12), novelty=True, contamination=d.pick(0.05, 0.3, "auto"), leaf_size=d.whole(1, 30), **weighted_metric(d)), "none"


@family()
def w_knn(d):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    if d.chance(0.6):
        return KNeighborsClassifier(n_neighbors=d.whole(1, 9), weights=d.pick("uniform", "distance"), leaf_size=d.whole(1, 30), **weighted_metric(d)), d.pick("class", "class", "labels")
    return KNeighborsRegressor(n_neighbors=d.whole(1, 9), weights=d.pick("uniform", "distance"), **weighted_metric(d)), d.pick("regress", "many")


@family(since=(0, 20))
def w_isolation(d):
    from sklearn.ensemble import IsolationForest
    return make(IsolationForest, n_estimators=d.whole(1, 12), max_samples=d.pick("auto", 16, 1.0), contamination=d.pick("auto", 0.1, 0.4), max_features=d.pick(1.0, 0.5, 2), bootstrap=d.chance(),
                warm_start=d.chance(), random_state=d.seed), d.pick("none", "none", "holes none") if VERSION >= (1, 3) else "none"


@family(since=(0, 20))
def w_logistic(d):
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    solver, penalty = d.pick(("lbfgs", "l2"), ("newton-cg", "l2"), ("newton-cholesky", "l2"), ("newton-cholesky", "l2"), ("sag", "l2"), ("saga", "l1"), ("saga", "elasticnet"), ("liblinear", "l1"), ("liblinear", "l2"))
    if solver == "newton-cholesky" and VERSION < (1, 2):
        solver = "lbfgs"
    more = dict(solver=solver, max_iter=60, random_state=d.seed, intercept_scaling=d.pick(1, 3.5), class_weight=d.pick(None, "balanced"), fit_intercept=d.chance(0.8))
    if VERSION < (1, 8):
        more["penalty"] = penalty
        if d.chance():
            more["multi_class"] = d.pick("ovr", "multinomial", "auto") if solver not in ("liblinear", "newton-cholesky") else d.pick("ovr", "auto")
    if penalty == "elasticnet":
        more["l1_ratio"] = 0.4
    if d.chance(0.25):
        more.pop("l1_ratio", None)
        more["penalty"] = "l2"
        return make(LogisticRegressionCV, Cs=[0.1, 1.0], cv=2, refit=d.chance(), use_legacy_attributes=False, **{k: v for k, v in more.items() if k != "penalty" or VERSION < (1, 8)}), "class"
    return make(LogisticRegression, C=d.number(0.05, 20), dual=solver == "liblinear" and penalty == "l2" and d.chance(), **more), "class"


@family()
def w_ridge_classifier(d):
    from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
    if d.chance(0.3):
        return RidgeClassifierCV(alphas=(0.1, 1.0), fit_intercept=d.chance()), d.pick("class", "labels")
    return make(RidgeClassifier, alpha=d.number(0.1, 10), fit_intercept=d.chance(), solver=d.pick("auto", "cholesky", "lsqr", "lbfgs"), positive=False), d.pick("class", "labels")


@family()
def w_linear(d):
    from sklearn import linear_model as lm
    kind = d.pick("Ridge", "Lasso", "ElasticNet", "BayesianRidge", "ARDRegression", "Lars", "LarsCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV",
                  "LinearRegression", "SGDRegressor", "TheilSenRegressor", "HuberRegressor", "PassiveAggressiveRegressor", "LassoCV", "MultiTaskElasticNetCV", "MultiTaskLassoCV", "RidgeCV")
    more = dict(fit_intercept=d.chance(0.7), random_state=d.seed)
    if VERSION < (1, 2) and kind not in ("SGDRegressor", "TheilSenRegressor", "HuberRegressor", "PassiveAggressiveRegressor"):
        more["normalize"] = d.chance()
    if kind in ("SGDRegressor",):
        more.update(penalty=d.pick("l2", "l1", "elasticnet"), learning_rate=d.pick("invscaling", "constant", "optimal", "adaptive") if VERSION >= (0, 20) else "invscaling", eta0=1e-3, average=d.pick(False, 5), max_iter=20, tol=None)
    if kind in ("Lasso", "ElasticNet"):
        more.update(positive=d.chance(0.3), selection=d.pick("cyclic", "random"))
    if kind == "LassoLarsIC":
        more["criterion"] = d.pick("aic", "bic")
    several = kind in ("Ridge", "Lasso", "ElasticNet", "Lars", "LassoLars", "OrthogonalMatchingPursuit", "LinearRegression", "RidgeCV")
    return make(getattr(lm, kind), **more), "many" if kind.startswith("MultiTask") else d.pick("regress", "many") if several else "regress"


@family(since=(0, 23))
def w_glm(d):
    from sklearn import linear_model as lm
    more = dict(alpha=d.number(0.01, 2), fit_intercept=d.chance(0.8), max_iter=60, solver=d.pick("lbfgs", "newton-cholesky") if VERSION >= (1, 2) else "lbfgs")
    kind = d.pick("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
    if kind == "TweedieRegressor":
        more.update(d.pick(dict(power=0), dict(power=1), dict(power=1.7), dict(power=2), dict(power=3), dict(power=0, link="log"), dict(power=1.5, link="log"), dict(power=0, link="identity"), dict(power=2, link="identity")))
    return make(getattr(lm, kind), **more), "positive"


@family()
def w_trees(d):
    from sklearn import ensemble, tree
    classes = d.chance(0.65)
    name = d.pick("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees") + ("Classifier" if classes else "Regressor")
    more = dict(random_state=d.seed, max_depth=d.pick(None, 2, 5), min_samples_split=d.pick(2, 6), min_weight_fraction_leaf=d.pick(0.0, 0.05), max_features=d.pick(None, "sqrt", 1), min_impurity_decrease=d.pick(0.0, 1e-3))
    if VERSION >= (0, 22):
        more["ccp_alpha"] = d.pick(0.0, 0.01)
    if classes:
        more["class_weight"] = d.pick(None, "balanced", {0: 0.3, 1: 2.0}) if d.chance() else None
        more["criterion"] = d.pick("gini", "entropy", "log_loss") if VERSION >= (1, 1) else d.pick("gini", "entropy")
    else:
        more["criterion"] = d.pick("squared_error", "absolute_error", "friedman_mse") if VERSION >= (1, 0) else d.pick("mse", "mae", "friedman_mse")
        if VERSION >= (1, 9) and more["criterion"] == "friedman_mse":
            more["criterion"] = "squared_error"
    if name.startswith(("Random", "ExtraTrees")):
        more.update(n_estimators=d.whole(1, 9), bootstrap=d.chance(), oob_score=False, warm_start=d.chance(0.2))
    elif d.chance(0.3) and VERSION >= (1, 4) and name.startswith("Decision"):
        more["splitter"] = "random"
    if VERSION >= (1, 4) and d.chance(0.2):
        more["monotonic_cst"] = "signs"
        more["class_weight"] = None
        if not classes:
            more.pop("class_weight")
    return getattr(tree if "Tree" in name and "Trees" not in name else ensemble, name)(**more), ("class2" if "monotonic_cst" in more else d.pick("class", "class", "classes")) if classes else d.pick("regress", "many") if "monotonic_cst" not in more else "regress"


@family(since=(1, 3))
def w_trees_with_holes(d):
    from sklearn import ensemble, tree
    name = d.pick("DecisionTree", "RandomForest", "ExtraTree", "ExtraTrees") + d.pick("Classifier", "Regressor")
    if VERSION < (1, 6) and name.startswith("Extra") or VERSION < (1, 4) and name.startswith("Random"):
        name = "DecisionTreeClassifier"
    more = dict(max_depth=d.pick(2, 5, None), random_state=d.seed, max_features=d.pick(None, 1))
    if name.startswith("DecisionTree") and VERSION >= (1, 6):
        more["splitter"] = d.pick("best", "random")
    if name.endswith("Regressor"):
        more["criterion"] = d.pick("squared_error", "absolute_error" if VERSION >= (1, 9) else "squared_error")
    if "Forest" in name or "Trees" in name:
        more["n_estimators"] = d.whole(1, 5)
    return getattr(tree if "Tree" in name and "Trees" not in name else ensemble, name)(**more), "holes regress" if "Regressor" in name else d.pick("holes class", "holes classes")


@family()
def w_boosting(d):
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    more = dict(n_estimators=d.whole(1, 8), learning_rate=d.number(0.05, 1.5), max_depth=d.pick(1, 2, None), max_leaf_nodes=d.pick(None, 4), max_features=d.pick(None, 1), subsample=d.pick(1.0, 0.6), random_state=d.seed)
    if d.chance(0.6):
        if VERSION >= (0, 21) and d.chance(0.3):
            more["init"] = d.pick("zero", DummyClassifier(strategy="prior"), DummyClassifier(strategy="most_frequent"), DummyClassifier(strategy="uniform", random_state=d.seed))
        return make(GradientBoostingClassifier, criterion="friedman_mse" if VERSION < (1, 9) else "deprecated" if False else "friedman_mse", n_iter_no_change=d.pick(None, 2), **more), "class"
    if VERSION >= (0, 21) and d.chance(0.3):
        more["init"] = d.pick("zero", DummyRegressor(strategy="mean"), DummyRegressor(strategy="quantile", quantile=0.3))
    return make(GradientBoostingRegressor, **more), "regress"


@family(since=(0, 21))
def w_hist(d):
    if VERSION < (1, 0):
        from sklearn.experimental import enable_hist_gradient_boosting  # noqa
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    more = dict(max_iter=d.whole(1, 8), min_samples_leaf=d.pick(2, 8), learning_rate=d.number(0.05, 1.5), max_leaf_nodes=d.pick(3, 31), max_depth=d.pick(None, 2), l2_regularization=d.pick(0.0, 2.0),
                max_bins=d.pick(255, 8), random_state=d.seed, early_stopping=False, warm_start=d.chance(0.2), scoring=None)
    if VERSION >= (1, 4):
        more["max_features"] = d.pick(1.0, 0.5)
    holes = d.chance() and VERSION >= (0, 22)
    if d.chance():
        if VERSION >= (1, 2):
            more["class_weight"] = d.pick(None, "balanced")
        return make(HistGradientBoostingClassifier, **more), "holes class" if holes else "class"
    return make(HistGradientBoostingRegressor, loss=("squared_error" if VERSION >= (1, 0) else "least_squares"), **more), "holes regress" if holes else "regress"


@family()
def w_clusters(d):
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.mixture import GaussianMixture
    if d.chance(0.4):
        return GaussianMixture(n_components=d.whole(1, 4), covariance_type=d.pick("full", "tied", "diag", "spherical"), reg_covar=d.pick(1e-6, 1e-2), tol=1e-2, random_state=d.seed), "none"
    return make(d.pick(KMeans, MiniBatchKMeans), n_clusters=d.whole(1, 7), init=d.pick("k-means++", "random"), algorithm=d.pick("auto", "full", "elkan") if VERSION < (1, 1) else d.pick("lloyd", "elkan"),
                n_init=1, max_iter=20, random_state=d.seed), "none"


@family()
def w_gaussian_nb(d):
    from sklearn.naive_bayes import GaussianNB
    return make(GaussianNB, priors=d.pick(None, [0.3, 0.7]), var_smoothing=d.pick(1e-9, 1e-2)), "class2"


@family()
def w_mlp(d):
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    more = dict(hidden_layer_sizes=d.pick((), (3,), (4, 2)), activation=d.pick("relu", "tanh", "logistic", "identity"), max_iter=10, random_state=d.seed, solver=d.pick("adam", "lbfgs", "sgd"), early_stopping=False)
    if d.chance():
        return MLPClassifier(**more), d.pick("class", "labels")
    if VERSION >= (1, 7) and d.chance():
        more["loss"] = "poisson"
        return MLPRegressor(**more), "positive"
    return MLPRegressor(**more), d.pick("regress", "many")


@family()
def w_dummy(d):
    from sklearn.dummy import DummyClassifier, DummyRegressor
    if d.chance(0.6):
        return make(DummyClassifier, strategy=d.pick("most_frequent", "prior", "stratified", "uniform"), random_state=d.seed), d.pick("class", "labels")
    return DummyRegressor(strategy=d.pick("quantile", "median", "mean"), quantile=0.25), d.pick("regress", "many")


# Transformers.

@family(since=(0, 20))
def w_bins(d):
    from sklearn.preprocessing import KBinsDiscretizer
    return make(KBinsDiscretizer, n_bins=d.whole(2, 9), encode=d.pick("ordinal", "onehot", "onehot-dense"), strategy=d.pick("uniform", "quantile", "kmeans"), dtype=d.pick(None, np.float32, np.float64),
                quantile_method=d.pick("linear", "averaged_inverted_cdf"), subsample=None), "none"


@family(since=(0, 20))
def w_scalers(d):
    from sklearn import preprocessing as pp
    return d.pick(pp.PowerTransformer("box-cox" if d.chance() else "yeo-johnson", standardize=d.chance()), pp.QuantileTransformer(n_quantiles=d.whole(2, 50), output_distribution=d.pick("uniform", "normal"), random_state=d.seed),
                  make(pp.MinMaxScaler, feature_range=d.pick((0, 1), (-3, 5)), clip=d.chance()), pp.RobustScaler(quantile_range=(10.0, 80.0), **({"unit_variance": d.chance()} if VERSION >= (0, 24) else {})),
                  pp.StandardScaler(with_mean=d.chance(), with_std=d.chance()), pp.Normalizer(d.pick("l1", "l2", "max")), make(pp.MaxAbsScaler, clip=d.chance())), "filled"


FUNCTIONS = ["absolute", "fabs", "sqrt", "square", "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh",
             "arccosh", "arctanh", "cbrt", "negative", "positive", "reciprocal", "floor", "ceil", "trunc", "rint", "sign", "deg2rad", "rad2deg"]


@family()
def w_function(d):
    from sklearn.preprocessing import FunctionTransformer
    return make(FunctionTransformer, func=getattr(np, d.pick(*FUNCTIONS)), validate=d.pick(True, False) if VERSION >= (0, 22) else d.pick(True, False, None) if VERSION >= (0, 20) else d.chance()), "near"


@family()
def w_pca(d):
    from sklearn.decomposition import PCA
    return PCA(d.pick(None, 1, 0.8, "mle"), whiten=d.chance(), svd_solver=d.pick("auto", "full")), "none"


@family(since=(0, 20))
def w_imputer(d):
    from sklearn.impute import SimpleImputer
    return make(SimpleImputer, missing_values=d.pick(np.nan, np.nan, 0.0, -1.0), strategy=d.pick("mean", "median", "most_frequent", "constant"), fill_value=d.pick(None, 3.25), add_indicator=d.chance(), keep_empty_features=d.chance()), "holes none"


@family()
def w_select(d):
    from sklearn import feature_selection as fs
    score = d.pick(fs.f_classif, fs.chi2, fs.mutual_info_classif)
    kind = d.pick("SelectKBest", "SelectPercentile", "SelectFpr", "SelectFwe")
    if score is fs.mutual_info_classif:
        kind = d.pick("SelectKBest", "SelectPercentile")
    more = {"SelectKBest": dict(k=d.pick(1, 2, "all")), "SelectPercentile": dict(percentile=d.pick(30, 50, 80)), "SelectFpr": dict(alpha=0.5), "SelectFwe": dict(alpha=0.5)}[kind]
    return getattr(fs, kind)(score, **more), "filled class"


# New in 1.5 and later.

@family(since=(1, 6))
def w_frozen(d):
    from sklearn.frozen import FrozenEstimator
    return FrozenEstimator(some_classifier(d)), "frozen class"


@family(since=(1, 6))
def w_frozen_calibrated(d):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    return CalibratedClassifierCV(FrozenEstimator(some_classifier(d)), method=d.pick("sigmoid", "isotonic")), "frozen class"


@family(since=(0, 24), until=(1, 8))
def w_prefit_calibrated(d):
    from sklearn.calibration import CalibratedClassifierCV
    return CalibratedClassifierCV(some_classifier(d), method=d.pick("sigmoid", "isotonic"), cv="prefit"), "frozen class"


@family(since=(1, 6))
def w_frozen_parts(d):
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.frozen import FrozenEstimator
    parts = [("a", FrozenEstimator(some_classifier(d, proba=True))), ("b", some_classifier(d, proba=True))]
    if d.chance():
        return VotingClassifier(parts, voting=d.pick("soft", "hard")), "frozen class"
    return StackingClassifier(parts, cv=2), "frozen class"


@family(since=(1, 5))
def w_threshold(d):
    from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
    if d.chance():
        return TunedThresholdClassifierCV(some_classifier(d), thresholds=10, cv=2, response_method=d.pick("auto", "predict_proba", "decision_function"), random_state=d.seed), "class2"
    return FixedThresholdClassifier(some_classifier(d), threshold=d.pick("auto", 0.3, 0.6, -0.5), response_method=d.pick("auto", "predict_proba", "decision_function")), "class2"


def prefit(d, est, x, y):
    """Fits a model that must be fitted before it is frozen."""
    for e in [est, getattr(est, "estimator", None)] + [e for _, e in getattr(est, "estimators", None) or []]:
        if type(e).__name__ == "FrozenEstimator":
            e.estimator.fit(x, y)
    if getattr(est, "cv", None) == "prefit":
        getattr(est, "estimator", getattr(est, "base_estimator", None)).fit(x, y)


# Changes by hand after a fit.

def changed(d, model):
    """Changes an attribute that some release reads when it predicts, and returns its name."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    found = []

    def scaled(name):
        def do():
            setattr(last, name, np.asarray(getattr(last, name)) * 1.25 + 0.01)
        return name, do

    for name in ("offset_", "intercept_", "coef_", "cluster_centers_", "means_", "weights_", "theta_", "var_", "class_prior_", "mean_", "scale_", "center_", "min_", "statistics_", "lambdas_",
                 "_lrd", "location_", "precision_", "threshold_", "components_", "estimator_weights_", "constant_"):
        if name in vars(last) and isinstance(vars(last)[name], (float, np.ndarray, np.floating)):
            found.append(scaled(name))
    for name, values in (("n_neighbors", (1, 2)), ("n_neighbors_", (1, 2)), ("weights", ("uniform", "distance")), ("learning_rate", (0.5,)), ("with_std", (False,)), ("with_mean", (False,)), ("with_centering", (False,)),
                         ("with_scaling", (False,)), ("scale_", (None,)), ("mean_", (None,)), ("p", (1,)), ("decision_function_shape", ("ovr", "ovo")), ("threshold", (0.25,)), ("voting", ("hard", "soft")),
                         ("encode", ("ordinal",)), ("clip", (True,)), ("whiten", (True, False)), ("norm", ("l1", "max")), ("k", (1,)), ("n_clusters", (2,)), ("degree", (1,)), ("gamma", (0.7,)), ("coef0", (0.3,)),
                         ("contamination", (0.2,)), ("passthrough", (True,)), ("loss", ("log_loss", "hinge")), ("method", ("box-cox",)), ("standardize", (False,)), ("output_distribution", ("normal", "uniform")),
                         ("multi_class", ("ovr", "multinomial")), ("solver", ("liblinear",)), ("algorithm", ("SAMME",)), ("activation", ("tanh",)), ("out_activation_", ("identity",)), ("covariance_type", ("diag",)),
                         ("power", (1.5,)), ("link", ("log",)), ("classes_", ("reversed",) if getattr(getattr(last, "classes_", None), "dtype", np.dtype(object)).kind in "iuf" else ()), ("n_outputs_", (2,)), ("n_classes_", (2,)), ("n_features_in_", (2,)), ("novelty", (False,)), ("break_ties", (True,)),
                         ("add_indicator", (False,)), ("keep_empty_features", (True,)), ("strategy", ("prior",)), ("transformer_weights", ({"a": 3.0},)), ("include_bias", (False,)),
                         ("max_features", (0.5,)), ("_max_samples", (5,)), ("max_samples_", (5,)), ("store_precision", (False,)), ("assume_centered", (True,)), ("n_components", (1,)), ("fit_intercept", (False,))):
        if name in vars(last) and values and not (name == "weights" and hasattr(last, "estimators")):
            def do(name=name, values=values):
                v = d.pick(*values)
                if v == "reversed":
                    v = vars(last)[name]
                    v = v[::-1].copy() if isinstance(v, np.ndarray) else v
                setattr(last, name, v)
            found.append((name, do))
    if not found:
        return ""
    name, do = found[d.rng.randint(len(found))]
    do()
    return name
