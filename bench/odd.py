"""Classes of models that only Python can score, and of models that do harm, for mixed.py."""
import os

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Scaled(TransformerMixin, BaseEstimator):
    """A transformer that no library has."""

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
        return np.full(len(x), np.ones(8 << 27)[0])  # 8 GiB


class Quitter:
    def predict(self, x):
        os._exit(3)


class Crasher:
    def predict(self, x):
        os.kill(os.getpid(), 11)


class Forker:
    """The copy of the process returns from predict, too; the sensor is scored once."""

    def predict(self, x):
        os.fork()
        return np.zeros(len(x))
