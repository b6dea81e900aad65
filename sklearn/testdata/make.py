"""Writes the fixtures of one scikit-learn release into a folder beside this file.

Run it once with each release:

    python make.py

It needs scikit-learn, and for the case with feature names pandas. The folder is
named after the release and holds the pickles and expected.json: rows, decision
values and labels as that release computed them itself. Works with Python 2.7 and
3.6 to 3.13. Fixtures of a release are kept for ever, because such old Pythons are hard to
find.
"""
from __future__ import print_function

import copy
import io
import json
import os
import pickle
import sys
import warnings

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

warnings.simplefilter("ignore")
RELEASE = tuple(int(p) for p in sklearn.__version__.split(".")[:2])
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), sklearn.__version__)
HIGHEST = pickle.HIGHEST_PROTOCOL
# The oldest and the newest supported releases write every protocol.
ALL = RELEASE in ((0, 19), (0, 20), (1, 9))
NOTHING = None if RELEASE < (0, 21) else "passthrough"


def rows_for(train, model_svm, to_input):
    """Some training rows, the support vectors themselves, and rows far away."""
    ties = to_input(model_svm.support_vectors_[:3])
    far = train[:2] + 1e3
    return np.ascontiguousarray(np.vstack([train[:5], ties, far, train[:2] - 0.25, -far * 1e9]))


class Fixtures(object):
    def __init__(self):
        self.cases, self.refused = [], []
        if not os.path.isdir(HERE):
            os.makedirs(HERE)

    def dump(self, name, model, protocol):
        name = "%s.p%d.pickle" % (name, protocol)
        with open(os.path.join(HERE, name), "wb") as f:
            pickle.dump(model, f, protocol)
        return name

    def case(self, name, model, rows, protocols, saved=None, **more):
        files = [self.dump(name, saved or model, p) for p in protocols]
        decision = np.asarray(model.decision_function(rows), dtype=float).ravel()
        self.cases.append(dict(
            name=name, files=files, rows=np.asarray(rows, dtype=float).tolist(),
            decision=decision.tolist(), predict=[int(p) for p in model.predict(rows)], **more))

    def refuse(self, name, model, says):
        self.refused.append(dict(file=self.dump(name, model, HIGHEST), says=says))

    def finish(self):
        with io.open(os.path.join(HERE, "expected.json"), "w", encoding="ascii", newline="\n") as f:
            head = dict(python="%d.%d.%d" % sys.version_info[:3], numpy=np.__version__, sklearn=sklearn.__version__)
            lines = [u"{\"written_by\": %s," % json.dumps(head, sort_keys=True), u"\"cases\": ["]
            lines.append(u",\n".join(u"%s" % json.dumps(c, sort_keys=True) for c in self.cases) + u"],")
            lines.append(u"\"refused\": [")
            lines.append(u",\n".join(u"%s" % json.dumps(c, sort_keys=True) for c in self.refused) + u"]}")
            f.write(u"\n".join(lines) + u"\n")


def main():
    fx = Fixtures()
    rng = np.random.RandomState(7)
    every = range(HIGHEST + 1)

    train = rng.normal(20, 3, (80, 1))
    model = Pipeline([("scaler", StandardScaler()), ("clf", OneClassSVM(nu=1e-4, gamma=0.01))]).fit(train)
    back = lambda sv: sv * model.steps[0][1].scale_ + model.steps[0][1].mean_
    fx.case("one", model, rows_for(train, model.steps[1][1], back), every if ALL else [2, HIGHEST])

    train = rng.normal(0, 1, (60, 4)) * [1, 10, 100, 1e-3] + [5, 0, -7, 1]
    wide = Pipeline([("scaler", StandardScaler()), ("clf", OneClassSVM(nu=0.1, gamma="auto"))]).fit(train)
    back = lambda sv: sv * wide.steps[0][1].scale_ + wide.steps[0][1].mean_
    fx.case("wide", wide, rows_for(train, wide.steps[1][1], back), [0, HIGHEST])

    train = rng.normal(0, 1, (40, 2))
    bare = OneClassSVM(nu=0.2, gamma=0.5).fit(train)
    fx.case("bare", bare, rows_for(train, bare, lambda sv: sv), [HIGHEST])

    train = rng.normal(3, 2, (50, 3))
    prepare = Pipeline([("centre", StandardScaler(with_std=False)), ("scale", StandardScaler(with_mean=False)),
                        ("neither", StandardScaler(with_mean=False, with_std=False)), ("skip", NOTHING)])
    nested = Pipeline([("prepare", prepare), ("skip", NOTHING),
                       ("detect", Pipeline([("clf", OneClassSVM(nu=0.1, gamma=0.2))]))]).fit(train)
    fx.case("nested", nested, np.vstack([train[:8], train[:3] + 50]), [HIGHEST])

    # The same numbers in another memory order, byte order and width.
    odd = copy.deepcopy(wide)
    scaler, svm = odd.steps[0][1], odd.steps[1][1]
    scaler.mean_ = scaler.mean_.astype("f4")
    scaler.scale_ = scaler.scale_.astype("f4")
    saved = copy.deepcopy(odd)
    saved.steps[0][1].mean_ = scaler.mean_.astype(">f4")
    saved.steps[1][1].support_vectors_ = np.asfortranarray(svm.support_vectors_)
    saved.steps[1][1]._dual_coef_ = svm._dual_coef_.astype(">f8")
    saved.steps[1][1]._gamma = np.float64(svm._gamma)
    train = rng.normal(0, 1, (8, 4)) * [1, 10, 100, 1e-3] + [5, 0, -7, 1]
    fx.case("layout", odd, train, [0, HIGHEST], saved=saved)

    # Identical rows leave one support vector, whose decision is 0 at most.
    train = np.full((30, 1), 4.5)
    single = Pipeline([("scaler", StandardScaler()), ("clf", OneClassSVM(nu=1e-3, gamma=0.01))]).fit(train)
    assert len(single.steps[1][1].support_vectors_) == 1
    fx.case("single", single, [[4.5], [4.4], [1e6]], [HIGHEST], health="flags_everything")

    train = np.array([[-900.0], [-300.0], [10.0], [500.0], [2000.0]])
    apart = OneClassSVM(nu=0.5, gamma=10.0).fit(train)
    fx.case("apart", apart, np.vstack([train, train + 0.01, [[250.0]]]), [HIGHEST])

    try:
        import pandas
    except ImportError:
        pandas = None
    if pandas is not None and RELEASE >= (1, 0):
        train = pandas.DataFrame(rng.normal(0, 1, (40, 2)), columns=["pressure", u"temp\u00e9rature"])
        named = Pipeline([("scaler", StandardScaler()), ("clf", OneClassSVM(nu=0.1, gamma="scale"))]).fit(train)
        fx.case("named", named, train[:6], [0, HIGHEST], feature_names=list(train.columns))

    train = rng.normal(0, 1, (30, 2))
    if ALL:
        import scipy.sparse
        fx.refuse("sparse", OneClassSVM(nu=0.3, gamma=0.5).fit(scipy.sparse.csr_matrix(train)), "sparse data")
        fx.refuse("unfitted", Pipeline([("scaler", StandardScaler()), ("clf", OneClassSVM())]), "mean_ is missing")
        fx.refuse("array", train, "holds numpy")
    fx.finish()
    print(sklearn.__version__, sum(os.path.getsize(os.path.join(HERE, f)) for f in os.listdir(HERE)), "bytes")


main()
