"""Writes models with and without feature names into the folder names beside this
file, for names_test.go. It needs scikit-learn 1.2 or newer, and pandas:

    python names.py
"""
import os
import pickle

import numpy as np
import pandas
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "names")
rng = np.random.RandomState(1)
array = rng.normal(0, 1, (30, 2))
y = array[:, 0] - 3 * array[:, 1]
frame = pandas.DataFrame(array, columns=["b", "a"])
three = frame.assign(c=1.0)


def chain(*steps):
    return Pipeline([("s%d" % i, s) for i, s in enumerate(steps)] + [("model", LinearRegression())])


models = {
    "frame": chain(StandardScaler()).fit(frame, y),
    "made_up": chain(StandardScaler(), MinMaxScaler()).set_output(transform="pandas").fit(array, y),
    "functions": chain(FunctionTransformer(np.log1p), StandardScaler()).fit(frame.abs(), y),
    "search": GridSearchCV(chain(StandardScaler()), {"model__fit_intercept": [True]}, cv=2).fit(frame, y),
    "columns": chain(ColumnTransformer([("x", StandardScaler(), ["a"])], remainder="passthrough")).fit(three, y),
    "union": chain(FeatureUnion([("x", StandardScaler()), ("y", MinMaxScaler())])).fit(frame, y),
    "forest": RandomForestRegressor(2, max_depth=2, random_state=1).fit(frame, y),
    "numbers": chain(StandardScaler()).fit(pandas.DataFrame(array), y),
}
os.makedirs(HERE, exist_ok=True)
for name, model in models.items():
    with open(os.path.join(HERE, name + ".pickle"), "wb") as f:
        pickle.dump(model, f, 4)
