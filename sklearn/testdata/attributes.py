"""Adds the names of all parameters and attributes that the supported classes, and the
objects in them that are read, have in releases of scikit-learn, to a list.

    python attributes.py ../internal/estimator/attributes.txt FILE…

A FILE is a wheel of scikit-learn. Its sources are only read. A class has the names that
the class or one of its bases takes in __init__ or assigns to self. Names that are in the
list stay there: some names exist after a fit but in no source, and were added by hand.
TestAttributes checks that each name is read, or is known to have no effect. Loading
refuses other names. Run this with every release from 0.19 on, also with patch releases:
1.2.0 and 1.2.1 have names that 1.2.2 doesn't have.
"""
import ast
import os
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
SUPPORTED = open(os.path.join(HERE, "classes.txt")).read().split()
# Classes of objects in estimators that are read too.
PARTS = """_CalibratedClassifier _SigmoidCalibration IsotonicRegression LabelBinarizer LabelEncoder OneHotEncoder MissingIndicator
TreePredictor _CurveScorer _ConstantPredictor
LogOddsEstimator ScaledLogOddsEstimator PriorProbabilityEstimator MeanEstimator QuantileEstimator ZeroEstimator""".split()
# Names that functions outside the class assign to any estimator.
COMMON = {"n_features_in_", "feature_names_in_", "_sklearn_version", "_sklearn_output_config", "_metadata_request"}
# Names with two underscores begin with the class's name. The other names are parameters of
# a base class that subclasses don't pass on.
MANGLED = {"__Xfit": "_BaseLibSVM__Xfit"}
NEVER = {"impl", "family"}


def classes_of(wheel):
    """Returns, for each class, the names that it assigns and the names of its bases."""
    found = {}
    with zipfile.ZipFile(wheel) as z:
        for path in z.namelist():
            if not path.startswith("sklearn/") or not path.endswith(".py") or "/tests/" in path or "/externals/" in path:
                continue
            for c in ast.walk(ast.parse(z.read(path))):
                if isinstance(c, ast.ClassDef):
                    names, bases = found.setdefault(c.name, (set(), set()))
                    names.update(names_of(c))
                    for b in c.bases:
                        if isinstance(b, ast.Call) and b.args:  # six.with_metaclass(Meta, Base)
                            bases.update(a.id for a in b.args if isinstance(a, ast.Name))
                        bases.add(getattr(b, "id", getattr(b, "attr", "")))
    return found


def names_of(c):
    for n in ast.walk(c):
        if isinstance(n, ast.FunctionDef) and n.name == "__init__":
            for a in n.args.args + n.args.kwonlyargs:
                if a.arg != "self":
                    yield a.arg
        elif isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and getattr(n.value, "id", "") == "self":
            yield MANGLED.get(n.attr, n.attr)
        elif isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setattr" and getattr(n.args[0], "id", "") == "self" and isinstance(n.args[1], ast.Constant):
            yield n.args[1].value


def names(found, c, seen=()):
    if c in seen or c not in found:
        return set()
    own, bases = found[c]
    return own.union(*[names(found, b, seen + (c,)) for b in bases])


def main():
    path, known = sys.argv[1], {}
    if os.path.exists(path):
        known = {line.split()[0]: set(line.split()[1:]) for line in open(path)}
    for wheel in sys.argv[2:]:
        found = classes_of(wheel)
        for c in SUPPORTED + PARTS:
            known.setdefault(c, set()).update(n for n in names(found, c) if not n.startswith("__"))
    with open(path, "w") as f:
        for c in sorted(known):
            f.write(" ".join([c] + sorted((known[c] | (COMMON if c in SUPPORTED else {"_sklearn_version"})) - NEVER)) + "\n")


if __name__ == "__main__":
    main()
