"""Classes of a user, and classes that do harm, for the tests' models."""
import os
import sys
import time

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Scaled(TransformerMixin, BaseEstimator):
    """A transformer of the user's own, which no reader of pickles knows."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return np.asarray(x) * self.factor


class Endless:
    def predict(self, x):
        while True:
            pass


class Glutton:
    def predict(self, x):
        memory = np.ones(8 << 27)  # 8 GiB
        return np.full(len(x), memory[0])


class Quitter:
    def predict(self, x):
        print("before the end")
        os.system("echo a program of its own; echo and its error >&2")
        os._exit(3)


class Crasher:
    def predict(self, x):
        os.kill(os.getpid(), 11)


class Forker:
    """The copy of the process returns from predict, too."""

    def predict(self, x):
        os.fork()
        return np.zeros(len(x))


class Talker:
    def predict(self, x):
        print("a word from the talker")
        print("and an error", file=sys.stderr)
        return np.ones(len(x))


class Short:
    def predict(self, x):
        return np.zeros(len(x) - 1)


class Raiser:
    def predict(self, x):
        raise ValueError("no such pump")


class Slow:
    def predict(self, x):
        time.sleep(0.2)
        return np.zeros(len(x))


class Release(BaseEstimator):
    """Predicts the second number of the release of scikit-learn that it runs with."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, x, y=None):
        return self

    def predict(self, x):
        import sklearn
        return np.full(len(x), float(sklearn.__version__.split(".")[1]))
