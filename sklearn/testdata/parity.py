"""Fits estimators of every supported class and writes them, with their own scikit-learn's
results for some rows, into a folder.

    python parity.py FOLDER [--seed N] [--rounds N] [--joblib] [--skops]

The folder gets a pickle for each case, and cases.json: rows and results as base64 of
little-endian float64, row by row. If FOLDER ends in .zip, a zip file is written, as for
the fixtures in parity/, which are made with --small; formats.zip also with
--joblib --skops --only "svm_plain|RandomForestClassifier_2|columns_named|hist_class_3|knn_uniform|GradientBoostingRegressor". Each round has other data and parameters.
Needs scikit-learn 0.19 or later on Python 3.
"""
import argparse
import base64
import inspect
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

warnings.simplefilter("ignore")
VERSION = tuple(int(p) for p in sklearn.__version__.split(".")[:2])
METHODS = ["predict", "decision_function", "score_samples", "predict_proba", "predict_log_proba", "transform"]


def pack(a):
    return base64.b64encode(np.ascontiguousarray(a, dtype="<f8").tobytes()).decode()


def make(cls, **params):
    """Makes an estimator with the parameters that this release has."""
    known = inspect.signature(cls.__init__).parameters
    return cls(**{k: v for k, v in params.items() if k in known})


def table(rng, rows, cols, kind):
    x = rng.normal(0, 1, (rows, cols))
    if kind == "plain":
        return x * rng.uniform(0.1, 10, cols) + rng.uniform(-5, 5, cols)
    if kind == "ties":
        return np.round(x * 2) / 2
    if kind == "constant":
        x[:, 0] = 4.5
        return x
    if kind == "huge":
        return x * 1e6 + 1e7
    if kind == "tiny":
        return x * 1e-6
    if kind == "positive":
        return np.exp(x)
    raise ValueError(kind)


def fleet(rng, small):
    """Yields name, estimator, rows for training, targets."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.covariance import EllipticEnvelope
    from sklearn.decomposition import PCA
    from sklearn.ensemble import (ExtraTreesClassifier, ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor,
                                  IsolationForest, RandomForestClassifier, RandomForestRegressor)
    from sklearn.linear_model import (BayesianRidge, ElasticNet, ElasticNetCV, HuberRegressor, Lasso, LassoCV, LinearRegression,
                                      LogisticRegression, LogisticRegressionCV, Perceptron, Ridge, RidgeClassifier, RidgeClassifierCV,
                                      RidgeCV, SGDClassifier, SGDRegressor)
    from sklearn.mixture import GaussianMixture
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import FeatureUnion, Pipeline
    from sklearn.preprocessing import (FunctionTransformer, MaxAbsScaler, MinMaxScaler, Normalizer, PolynomialFeatures,
                                       QuantileTransformer, RobustScaler, StandardScaler)
    from sklearn.svm import NuSVC, NuSVR, OneClassSVM, SVC, SVR, LinearSVC, LinearSVR
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

    seed = int(rng.randint(1 << 30))
    n = 40 if small else 120
    cols = int(rng.randint(2, 6))
    kinds = ["plain", "ties", "constant", "huge", "tiny"]
    kind = lambda: kinds[rng.randint(len(kinds))]
    trees = 4 if small else 30

    def xy(k, classes=0, outputs=1, text=False, width=None):
        x = table(rng, n, width or cols, k)
        if classes:
            y = rng.randint(0, classes, n)
            y[:classes] = range(classes)
            x = x + (y * x.std())[:, None]
            return x, np.array(["class %s" % "zyxw"[v] for v in y]) if text else y * 3 - 1
        w = rng.normal(0, 1, (x.shape[1], outputs))
        y = x.dot(w) / max(1e-9, np.abs(x).max()) + rng.normal(0, 0.1, (n, outputs))
        return x, y if outputs > 1 else y[:, 0]

    # Outlier detectors.
    for k in kinds:
        yield "svm_" + k, Pipeline([("scale", StandardScaler()), ("svm", OneClassSVM(nu=0.1, gamma=0.3))]), table(rng, n, cols, k), None
    yield "svm_one", Pipeline([("scale", StandardScaler()), ("svm", OneClassSVM(nu=1e-4, gamma=0.01))]), table(rng, n, 1, "plain"), None
    for kernel in ("linear", "poly", "sigmoid"):
        yield "svm_" + kernel, Pipeline([("scale", StandardScaler()), ("svm", OneClassSVM(kernel=kernel, nu=0.2, gamma=0.2, degree=3, coef0=0.5))]), table(rng, n, cols, "plain"), None
    for name, more in (("auto", dict(contamination="auto")), ("part", dict(contamination=0.1)), ("features", dict(max_features=0.5, contamination=0.1)), ("few", dict(max_samples=0.3, bootstrap=True))):
        if VERSION < (0, 20) and more.get("contamination") == "auto":
            more = {}
        if (0, 20) <= VERSION < (0, 22):
            more["behaviour"] = "new"
        yield "iforest_" + name, make(IsolationForest, n_estimators=trees, random_state=seed, **more), table(rng, n, cols, kind()), None
    yield "iforest_one", make(IsolationForest, n_estimators=trees, random_state=seed, contamination=0.1), table(rng, n, 1, "ties"), None
    if VERSION >= (0, 20):
        for metric, p in (("minkowski", 2), ("manhattan", 2), ("chebyshev", 2), ("minkowski", 3)):
            yield "lof_%s%d" % (metric, p), make(LocalOutlierFactor, n_neighbors=7, novelty=True, metric=metric, p=p, contamination=0.1), table(rng, n, cols, "plain"), None
        yield "lof_brute", make(LocalOutlierFactor, n_neighbors=5, novelty=True, algorithm="brute"), table(rng, n, cols, "plain"), None
    yield "envelope", EllipticEnvelope(random_state=seed, contamination=0.1), table(rng, n, cols, "plain"), None
    if VERSION >= (1, 0):
        from sklearn.linear_model import SGDOneClassSVM
        yield "sgd_one_class", Pipeline([("scale", StandardScaler()), ("sgd", SGDOneClassSVM(nu=0.2, random_state=seed))]), table(rng, n, cols, "plain"), None

    # Support vector machines.
    for kernel in ("rbf", "linear", "poly", "sigmoid"):
        x, y = xy("plain", classes=2)
        yield "svc_" + kernel, Pipeline([("scale", StandardScaler()), ("svc", SVC(kernel=kernel, gamma=0.3, coef0=0.1))]), x, y
    for shape in ("ovr", "ovo"):
        x, y = xy("plain", classes=4, text=shape == "ovr")
        yield "svc_four_" + shape, make(SVC, decision_function_shape=shape, gamma=0.01), x, y
    x, y = xy("plain", classes=3)
    yield "svc_ties", make(SVC, break_ties=True, gamma=0.01), x, y
    if VERSION < (1, 8):
        x, y = xy("plain", classes=2)
        yield "svc_proba", SVC(probability=True, gamma=0.01, random_state=seed), x, y
        x, y = xy("plain", classes=3)
        yield "nusvc_proba", NuSVC(nu=0.1, probability=True, gamma=0.01, random_state=seed), x, y
    x, y = xy("plain", classes=2)
    yield "nusvc", NuSVC(nu=0.1, gamma=0.01), x, y
    x, y = xy("plain")
    yield "svr", Pipeline([("scale", StandardScaler()), ("svr", SVR(gamma=0.2))]), x, y
    yield "svr_poly", Pipeline([("scale", StandardScaler()), ("svr", SVR(kernel="poly", degree=2, gamma=0.2))]), x, y
    yield "nusvr", Pipeline([("scale", StandardScaler()), ("svr", NuSVR(gamma=0.2))]), x, y
    yield "linear_svr", LinearSVR(random_state=seed), x, y

    # Linear models.
    for est in (LinearRegression(), Ridge(alpha=0.3), RidgeCV(alphas=(0.1, 1.0, 10.0)), Lasso(alpha=0.01), ElasticNet(alpha=0.01), BayesianRidge(), HuberRegressor(),
                SGDRegressor(random_state=seed), LinearRegression(fit_intercept=False), make(LassoCV, cv=3), make(ElasticNetCV, cv=3)):
        x, y = xy("plain")
        x = (x - x.mean(0)) / x.std(0)
        yield "regress_" + type(est).__name__ + ("" if getattr(est, "fit_intercept", True) else "_origin"), est, x, y
    x, y = xy("plain", outputs=3)
    yield "regress_three", Ridge(), x, y
    for k, text in ((2, False), (2, True), (4, False), (4, True)):
        x, y = xy("plain", classes=k, text=text)
        x = (x - x.mean(0)) / x.std(0)
        tag = "%d%s" % (k, "_text" if text else "")
        yield "logistic_" + tag, LogisticRegression(max_iter=200), x, y
        if not text:
            yield "logistic_cv_" + tag, make(LogisticRegressionCV, Cs=3, cv=3, max_iter=200, use_legacy_attributes=False), x, y
            if k == 2 or VERSION < (1, 8):
                yield "logistic_liblinear_" + tag, LogisticRegression(solver="liblinear"), x, y
            if VERSION < (1, 8):
                yield "logistic_multinomial_" + tag, make(LogisticRegression, multi_class="multinomial", solver="lbfgs", max_iter=200), x, y
            yield "linear_svc_" + tag, make(LinearSVC, random_state=seed), x, y
            yield "ridge_class_" + tag, RidgeClassifier(), x, y
            yield "ridge_class_cv_" + tag, RidgeClassifierCV(alphas=(0.1, 1.0)), x, y
            yield "perceptron_" + tag, make(Perceptron, random_state=seed), x, y
            log = "log_loss" if VERSION >= (1, 1) else "log"
            for loss in ("hinge", log, "modified_huber"):
                yield "sgd_%s_%s" % (loss.replace("log_loss", "log"), tag), make(SGDClassifier, loss=loss, random_state=seed, max_iter=50, tol=1e-3), x, y

    # Trees.
    for k, text in ((2, False), (3, True)):
        for cls in (DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier, GradientBoostingClassifier):
            x, y = xy(kind(), classes=k, text=text)
            y = np.where(rng.uniform(size=n) < 0.2, y[::-1], y)
            yield "%s_%d" % (cls.__name__, k), make(cls, n_estimators=trees, max_depth=5, random_state=seed), x, y
    x, y = xy("plain", classes=2)
    yield "gb_exponential", make(GradientBoostingClassifier, loss="exponential", n_estimators=trees, random_state=seed), x, y
    yield "gb_zero", make(GradientBoostingClassifier, init="zero" if VERSION >= (0, 21) else None, n_estimators=trees, random_state=seed), x, y
    yield "forest_weights", make(RandomForestClassifier, class_weight="balanced", n_estimators=trees, random_state=seed), x, y
    for cls in (DecisionTreeRegressor, ExtraTreeRegressor, RandomForestRegressor, ExtraTreesRegressor, GradientBoostingRegressor):
        x, y = xy(kind())
        yield cls.__name__, make(cls, n_estimators=trees, max_depth=6, random_state=seed), x, y
    for loss in ("huber", "quantile"):
        yield "gb_" + loss, make(GradientBoostingRegressor, loss=loss, n_estimators=trees, random_state=seed), x, y
    x, y = xy("plain", outputs=2)
    yield "forest_two", make(RandomForestRegressor, n_estimators=trees, random_state=seed), x, y
    if VERSION >= (1, 4):
        x, y = xy("plain", classes=2)
        x = x.copy()
        x[rng.uniform(size=x.shape) < 0.2] = np.nan
        yield "forest_missing", RandomForestClassifier(n_estimators=trees, max_depth=5, random_state=seed), x, y
        yield "tree_missing", DecisionTreeClassifier(max_depth=5, random_state=seed), x, y
    if VERSION >= (1, 0):
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        for k in (2, 3):
            x, y = xy("plain", classes=k, text=k == 3)
            yield "hist_class_%d" % k, HistGradientBoostingClassifier(max_iter=trees, min_samples_leaf=5, random_state=seed), x, y
        x, y = xy("plain")
        holes = x.copy()
        holes[rng.uniform(size=x.shape) < 0.2] = np.nan
        yield "hist_missing", HistGradientBoostingRegressor(max_iter=trees, min_samples_leaf=5, random_state=seed), holes, y
        yield "hist_poisson", HistGradientBoostingRegressor(loss="poisson", max_iter=trees, min_samples_leaf=5, random_state=seed), x, np.abs(y)

    # Neighbours, centres, networks.
    for weights in ("uniform", "distance"):
        x, y = xy("plain", classes=3, text=True)
        yield "knn_" + weights, KNeighborsClassifier(n_neighbors=4, weights=weights), x, y
        x, y = xy("plain", outputs=2)
        yield "knn_regress_" + weights, KNeighborsRegressor(n_neighbors=4, weights=weights, metric="manhattan"), x, y
    yield "kmeans", make(KMeans, n_clusters=4, n_init=2, random_state=seed), table(rng, n, cols, "plain"), None
    yield "minibatch_kmeans", make(MiniBatchKMeans, n_clusters=3, n_init=2, random_state=seed), table(rng, n, cols, "plain"), None
    for cov in ("full", "tied", "diag", "spherical"):
        yield "mixture_" + cov, GaussianMixture(n_components=3, covariance_type=cov, random_state=seed), table(rng, n, cols, "plain"), None
    x, y = xy("plain", classes=3)
    yield "bayes", GaussianNB(), x, y
    for activation in ("relu", "tanh", "logistic", "identity"):
        x, y = xy("plain", classes=2 + (activation == "tanh"))
        yield "mlp_" + activation, MLPClassifier(hidden_layer_sizes=(5, 3), activation=activation, max_iter=30, random_state=seed), x, y
    x, y = xy("plain", outputs=2)
    yield "mlp_regress", MLPRegressor(hidden_layer_sizes=(6,), max_iter=30, random_state=seed), x, y
    if VERSION >= (0, 24):
        for k, method, ensemble in ((2, "sigmoid", True), (3, "isotonic", True), (2, "isotonic", False), (3, "sigmoid", False)):
            x, y = xy("plain", classes=k)
            yield "calibrated_%d_%s_%s" % (k, method, ensemble), CalibratedClassifierCV(LinearSVC(random_state=seed), method=method, cv=2, ensemble=ensemble), x, y

    # Transformers.
    x = table(rng, n, cols, "plain")
    for est in (StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler(feature_range=(-1, 2)), make(MinMaxScaler, clip=True),
                MaxAbsScaler(), RobustScaler(), RobustScaler(with_centering=False, quantile_range=(10, 90)),
                Normalizer("l1"), Normalizer("l2"), Normalizer("max"), PolynomialFeatures(3), PolynomialFeatures(3, interaction_only=True, include_bias=False),
                QuantileTransformer(n_quantiles=20, random_state=seed), QuantileTransformer(n_quantiles=20, output_distribution="normal", random_state=seed),
                PCA(2), PCA(whiten=True), FunctionTransformer(), FunctionTransformer(np.abs), FunctionTransformer(np.tanh)):
        yield "transform", est, x, None
    yield "transform", QuantileTransformer(n_quantiles=15, random_state=seed), table(rng, n, cols, "ties"), None
    yield "transform", FunctionTransformer(np.log1p), table(rng, n, cols, "positive"), None
    if VERSION >= (1, 0):
        yield "transform", PolynomialFeatures((2, 3)), x, None
    if VERSION >= (0, 20):
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import KBinsDiscretizer, PowerTransformer
        yield "transform", PowerTransformer(), x, None
        yield "transform", make(PowerTransformer, method="box-cox", standardize=False), table(rng, n, cols, "positive"), None
        holes = x.copy()
        holes[rng.uniform(size=x.shape) < 0.2] = np.nan
        for strategy in ("mean", "median", "most_frequent", "constant"):
            yield "impute", SimpleImputer(strategy=strategy), holes, None
        yield "impute", make(SimpleImputer, add_indicator=True), holes, None
        empty = holes.copy()
        empty[:, 1] = np.nan
        yield "impute", SimpleImputer(), empty, None
        yield "impute", make(SimpleImputer, keep_empty_features=True), empty, None
        yield "impute", SimpleImputer(missing_values=-1), np.where(np.isnan(holes), -1, holes), None
        yield "impute_detect", Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler()), ("svm", OneClassSVM(gamma=0.2, nu=0.1))]), holes, None
        for encode in ("ordinal", "onehot-dense"):
            yield "bins", make(KBinsDiscretizer, n_bins=4, encode=encode, quantile_method="averaged_inverted_cdf"), x, None
        wide = table(rng, n, 6, "plain")
        yield "columns", ColumnTransformer([("a", StandardScaler(), [0, 2]), ("b", MinMaxScaler(), slice(3, 5)), ("c", "passthrough", [-1]), ("d", "drop", [1])]), wide, None
        yield "columns", ColumnTransformer([("a", StandardScaler(), [True, False, True, False, False, False]), ("b", PCA(2), [3, 4, 5])], remainder="passthrough",
                                           transformer_weights={"a": 2.0}), wide, None
        yield "columns_union", Pipeline([("union", FeatureUnion([("pca", PCA(2)), ("scale", StandardScaler())], transformer_weights={"pca": 3.0})), ("svm", OneClassSVM(gamma=0.1, nu=0.1))]), wide, None
        try:
            import pandas
            frame = pandas.DataFrame(wide, columns=list("abcdef"))
            if VERSION >= (0, 24):
                yield "columns_named", ColumnTransformer([("x", StandardScaler(), ["b", "a"]), ("y", RobustScaler(), slice("c", "e"))]), frame, None
        except ImportError:
            pass


def outputs(model, x):
    """The result of each method: columns and values."""
    out = {}
    for m in METHODS:
        try:
            f = getattr(model, m)
        except AttributeError:
            continue
        try:
            got = f(x)
        except (AttributeError, NotImplementedError):
            continue
        if hasattr(got, "toarray"):
            got = got.toarray()
        got = np.asarray(got)
        if got.dtype.kind in "UO":
            classes = list(model.classes_)
            got = np.array([classes.index(v) for v in got], dtype=float)
        got = got.reshape(len(x), -1)
        out[m] = {"cols": got.shape[1], "values": pack(got)}
    return out


def weight(model, x):
    """The size of the terms in the sum of a linear machine's decision."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if getattr(last, "kernel", "") != "linear":
        return 0.0
    for _, step in model.steps[:-1]:
        x = step.transform(x)
    return float(np.max(np.abs(last.dual_coef_).dot(np.abs(last.support_vectors_).dot(np.abs(x).T))))


def refuses(model, x):
    try:
        (model.predict if hasattr(model, "predict") else model.transform)(x)
    except (ValueError, FloatingPointError):
        return True
    return False


def queries(rng, x, small):
    x = np.asarray(x, dtype=float)
    spread = np.nanmax(np.abs(x), axis=0) + 1e-9
    far = np.vstack([x[:1] + 30 * spread, x[1:2] - 7 * spread])
    drawn = rng.normal(0, 1, (14, x.shape[1])) * spread
    if small:
        return np.vstack([x[:10], far, drawn[:6]])
    return np.vstack([x[:12], x[:6] + 1e-3 * spread, drawn, far])


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folder")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--rounds", type=int, default=1)
    args.add_argument("--small", action="store_true", help="small models, to be kept as fixtures")
    args.add_argument("--joblib", action="store_true", help="joblib files too, in every compression")
    args.add_argument("--skops", action="store_true", help="skops files too")
    args.add_argument("--only", default="", help="a regular expression of names")
    args = args.parse_args()
    archive = None
    if args.folder.endswith(".zip"):
        archive, args.folder = args.folder, tempfile.mkdtemp()
    if not os.path.isdir(args.folder):
        os.makedirs(args.folder)
    cases = []
    for r in range(args.rounds):
        rng = np.random.RandomState(args.seed + r)
        for i, (name, est, x, y) in enumerate(fleet(rng, args.small)):
            case = {"name": "%s_%d_%d" % (name, r, i), "class": type(est).__name__}
            if not re.match(args.only, name):
                continue
            try:
                model = est.fit(x) if y is None else est.fit(x, y)
            except AttributeError as e:  # NumPy is too new for this release
                print("skipped:", name, e)
                continue
            like = (lambda q: q) if isinstance(x, np.ndarray) else (lambda q, x=x: type(x)(q, columns=x.columns))
            q = queries(rng, x, args.small)
            if "box-cox" in str(getattr(est, "method", "")) or getattr(est, "func", None) is np.log1p:
                q = np.abs(q) + 0.1
            case["cols"], case["x"], case["out"] = q.shape[1], pack(q), outputs(model, like(q))
            case["weight"] = weight(model, q)
            for what, value in (("nan", np.nan), ("inf", np.inf), ("large", 1e39)):
                bad = q[12:16].copy()
                bad[1, 0] = value
                case[what] = refuses(model, like(bad))
                if not case[what] and what == "nan":
                    case["x_nan"], case["out_nan"] = pack(bad), outputs(model, like(bad))
            case["files"] = write(args, case["name"], model, (r + i) % 4 + 2)
            cases.append(case)
    with open(os.path.join(args.folder, "cases.json"), "w") as f:
        f.write("[" + ",\n".join(json.dumps(c, sort_keys=True) for c in cases) + "]\n")
    if archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
            for name in sorted(os.listdir(args.folder)):
                info = zipfile.ZipInfo(name)  # with a fixed time, so that the same cases make the same file
                info.compress_type = zipfile.ZIP_DEFLATED
                with open(os.path.join(args.folder, name), "rb") as f:
                    z.writestr(info, f.read())
        shutil.rmtree(args.folder)
    print(sklearn.__version__, len(cases), "cases")


def write(args, name, model, protocol):
    files = [name + ".pickle"]
    with open(os.path.join(args.folder, files[0]), "wb") as f:
        pickle.dump(model, f, min(protocol, pickle.HIGHEST_PROTOCOL))
    if args.joblib:
        try:
            import joblib
        except ImportError:
            from sklearn.externals import joblib
        for compress, ext in ((0, "joblib"), (("zlib", 3), "z"), (("gzip", 3), "gz"), (("bz2", 3), "bz2"), (("xz", 3), "xz"), (("lzma", 3), "lzma"), (("lz4", 3), "lz4")):
            try:
                joblib.dump(model, os.path.join(args.folder, name + "." + ext), compress=compress)
            except (ValueError, ImportError) as e:  # this joblib doesn't support lz4
                print("joblib:", name, e)
                continue
            files.append(name + "." + ext)
    if args.skops:
        import skops.io
        try:
            skops.io.dump(model, os.path.join(args.folder, name + ".skops"))
            files.append(name + ".skops")
        except Exception as e:  # skops says what it can't write
            print("skops:", name, e)
    return files


if __name__ == "__main__":
    main()
