"""Makes a fleet of folders that MLflow writes, one for each flavor, and what plain Python predicts.

mlflow_models.py FOLDER CODE writes FOLDER/models/model_a_<name>/…, FOLDER/rows.csv and
FOLDER/expected.csv. CODE is a module with a class of the user's own.
"""
import csv
import math
import os
import sys

import mlflow.lightgbm
import mlflow.onnx
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.xgboost
import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

out, code = sys.argv[1:]
sys.path.insert(0, os.path.dirname(code))
import plant

train = np.random.default_rng(1).normal(size=(100, 1))
truth = (train[:, 0] > 0).astype(int)
rows = np.arange(-10, 10, dtype=float).reshape(-1, 1) / 4
expected = []
os.makedirs(os.path.join(out, "models"))


def folder(name):
    return os.path.join(out, "models", "model_a_" + name)


def keep(name, prediction, score=None, detector=False):
    prediction = np.asarray(prediction, dtype=float).ravel()
    prediction = (1 - prediction) / 2 if detector else prediction
    score = np.full(len(rows), np.nan) if score is None else np.asarray(score, dtype=float).ravel()
    expected.extend([name, repr(float(v)), repr(float(p)), "" if math.isnan(s) else repr(float(s))] for v, p, s in zip(rows[:, 0], prediction, score))


svm = OneClassSVM(nu=0.2).fit(train)
for kind in ("pickle", "cloudpickle", "skops"):
    mlflow.sklearn.save_model(svm, folder(kind), serialization_format=kind, pip_requirements=[])
    keep(kind, svm.predict(rows), svm.decision_function(rows), True)
own = make_pipeline(plant.Scaled(2.0), OneClassSVM(nu=0.2)).fit(train)
mlflow.sklearn.save_model(own, folder("own"), serialization_format="cloudpickle", code_paths=[code], pip_requirements=[])
keep("own", own.predict(rows), own.decision_function(rows), True)

classifier = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(train, truth)
mlflow.xgboost.save_model(classifier, folder("xgbclassifier"), pip_requirements=[])
keep("xgbclassifier", classifier.predict(rows), classifier.predict_proba(rows)[:, 1])
booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(train, truth), 5)
mlflow.xgboost.save_model(booster, folder("xgboost"), pip_requirements=[])
keep("xgboost", booster.predict(xgboost.DMatrix(rows)))

light = lightgbm.train({"objective": "regression", "num_threads": 1, "verbose": -1}, lightgbm.Dataset(train, truth), 5)
mlflow.lightgbm.save_model(light, folder("lightgbm"), pip_requirements=[])
keep("lightgbm", light.predict(rows))

onnx = to_onnx(RandomForestClassifier(5, random_state=2).fit(train, truth), train[:1].astype(np.float32), options={"zipmap": False})
mlflow.onnx.save_model(onnx, folder("onnx"), pip_requirements=[])
session = onnxruntime.InferenceSession(onnx.SerializeToString(), providers=["CPUExecutionProvider"])
label, probability = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})
keep("onnx", label, probability[:, 1])


class Threshold(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return (model_input["Value"] > float(open(context.artifacts["limit"]).read())).astype(int)


with open(os.path.join(out, "limit.txt"), "w") as f:
    f.write("1.5")
mlflow.pyfunc.save_model(folder("function"), python_model=Threshold(), artifacts={"limit": os.path.join(out, "limit.txt")}, pip_requirements=[],
                         signature=infer_signature(pd.DataFrame({"Value": rows[:, 0]}), np.zeros(len(rows), dtype=int)))
keep("function", rows[:, 0] > 1.5)

os.makedirs(folder("broken"))
with open(os.path.join(folder("broken"), "MLmodel"), "w") as f:
    f.write("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")

with open(os.path.join(out, "expected.csv"), "w", newline="") as f:
    csv.writer(f).writerows([["Tag", "Value", "Prediction", "Score"]] + expected)
with open(os.path.join(out, "rows.csv"), "w") as f:
    f.write("TS,Device,Tag,Value\n")
    for name in sorted(os.listdir(os.path.join(out, "models"))):
        for i, v in enumerate(rows[:, 0]):
            f.write("2026-11-23T09:%02d:00Z,a,%s,%r\n" % (i, name[len("model_a_"):], float(v)))
