"""Makes a fleet of many kinds of models and what plain Python predicts with the good ones.

python mixed.py FOLDER writes FOLDER/models/<name> and FOLDER/expected.json.
"""
import json
import os
import pickle
import sys

import joblib
import numpy as np
import pandas as pd

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "code"))
import plant
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, SGDOneClassSVM
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

out = sys.argv[1]
os.makedirs(os.path.join(out, "models"))
rng = np.random.default_rng(7)
train = rng.normal(size=(200, 2))
rows = rng.normal(scale=2, size=(50, 2))
truth = (train[:, 0] > 0).astype(int)
expected = {}


def path(name):
    return os.path.join(out, "models", name)


def keep(name, prediction, score, detector=False):
    prediction = np.asarray(prediction, dtype=float).ravel()
    if detector:
        prediction = (1 - prediction) / 2
    score = np.full(len(rows), np.nan) if score is None else np.asarray(score, dtype=float).ravel()
    expected[name] = {"prediction": prediction.tolist(), "score": [None if np.isnan(v) else v for v in score]}


def pickled(name, model):
    with open(path(name), "wb") as f:
        pickle.dump(model, f)


svm = OneClassSVM(nu=0.1).fit(train)
pickled("native", svm)
keep("native", svm.predict(rows), svm.decision_function(rows), True)

named = IsolationForest(n_estimators=10, random_state=1).fit(pd.DataFrame(train[:, ::-1], columns=["b", "a"]))
joblib.dump(named, path("named"), compress=3)
frame = pd.DataFrame(rows[:, ::-1], columns=["b", "a"])
keep("named", named.predict(frame), named.decision_function(frame), True)
joblib.dump(named, path("joblib"))  # begins as a pickle does, with arrays between its parts
keep("joblib", named.predict(frame), named.decision_function(frame), True)

for detector in (EllipticEnvelope(random_state=3), LocalOutlierFactor(novelty=True), SGDOneClassSVM(random_state=3), make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, random_state=1))):
    name = type(detector).__name__.lower()
    pickled(name, detector.fit(train))
    keep(name, detector.predict(rows), detector.decision_function(rows), True)

custom = make_pipeline(plant.Scaled(3.0), OneClassSVM(nu=0.2)).fit(train)
pickled("custom", custom)
keep("custom", custom.predict(rows), custom.decision_function(rows), True)

from pyod.models.knn import KNN
nearest = KNN().fit(train)
pickled("pyod", nearest)
keep("pyod", nearest.predict(rows), nearest.decision_function(rows))

import xgboost
booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(train, truth), 5)
for ending in ("json", "ubj"):
    booster.save_model(path("xgboost_" + ending + "." + ending))
    os.rename(path("xgboost_" + ending + "." + ending), path("xgboost_" + ending))
    keep("xgboost_" + ending, booster.predict(xgboost.DMatrix(rows)), None)

import lightgbm
light = lightgbm.train({"objective": "regression", "num_threads": 1, "verbose": -1}, lightgbm.Dataset(train, truth), 5)
light.save_model(path("lightgbm"))
keep("lightgbm", light.predict(rows), None)

import onnxruntime
from skl2onnx import to_onnx
forest = RandomForestClassifier(5, random_state=2).fit(train, truth)
with open(path("onnx"), "wb") as f:
    f.write(to_onnx(forest, train[:1].astype(np.float32), options={"zipmap": False}).SerializeToString())
session = onnxruntime.InferenceSession(path("onnx"), providers=["CPUExecutionProvider"])
label, probability = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})
keep("onnx", label, probability[:, 1])

import skops.io
skops.io.dump(LinearRegression().fit(train, truth), path("skops"))
keep("skops", skops.io.load(path("skops")).predict(rows), None)

for name in ("Endless", "Glutton", "Quitter", "Crasher", "Short", "Raiser"):
    pickled(name.lower(), getattr(plant, name)())
pickled("forker", plant.Forker())
keep("forker", np.zeros(len(rows)), None)
pickled("talker", plant.Talker())
keep("talker", np.ones(len(rows)), None)
with open(path("text"), "wb") as f:
    f.write(b"this is no model")

with open(os.path.join(out, "expected.json"), "w") as f:
    json.dump({"rows": rows.tolist(), "expected": expected}, f)
