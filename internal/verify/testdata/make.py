"""Writes models into a folder, for live_test.go."""
import os
import pickle
import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

rng = np.random.RandomState(1)
x = rng.normal(20, 3, (60, 3))
several = np.column_stack([x[:, 0] > 20, (x[:, 1] > 19).astype(int) + (x[:, 1] > 21)]).astype(int)
texts = np.where(several == 0, "low", np.where(several == 1, "mid", "high"))
constant = x.copy()
constant[:, 1] = 0.1  # its deviation is a rounding error, not 0
models = {
    "several_trees": RandomForestClassifier(5, random_state=1).fit(x, several),
    "several_texts": RandomForestClassifier(5, random_state=1).fit(x, texts),
    "in_place": make_pipeline(StandardScaler(copy=False), MinMaxScaler(copy=False), LogisticRegression()).fit(x.copy(), several[:, 0]),
    "constant": make_pipeline(StandardScaler(), PCA(2), LinearRegression()).fit(constant, x[:, 0]),
}
for name, model in models.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        pickle.dump(model, f)
