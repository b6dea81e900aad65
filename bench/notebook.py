"""Scores a fleet's DataFrame in this process, as from a notebook.

    notebook.py joblib|fleetscore DATA MODELS BINARY OUT

joblib loads and scores each sensor's model in parallel, on all cores, as most people would
write it. The imports and the reading of DATA aren't measured; the start of joblib's workers
and of the program are. Prints the seconds and the processor seconds, and writes the predictions.
"""
import os
import pickle
import resource
import sys
import time

import numpy as np
import pandas as pd


def spent():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


how, data, models, binary, out = sys.argv[1:]
df = pd.read_csv(data, parse_dates=["TS"])


def predict(path, values):
    with open(path, "rb") as f:
        return (pickle.load(f).predict(values) == -1).astype(float)


if how == "joblib":
    import joblib
    import sklearn.pipeline  # noqa: F401, as the notebook that trained the models has it

    began, before = time.perf_counter(), spent()
    groups = df.groupby(["Device", "Tag"]).indices
    x = df[["Value"]].to_numpy()
    parts = joblib.Parallel(n_jobs=os.cpu_count())(joblib.delayed(predict)("%s/model_%s_%s" % (models, d, t), x[rows]) for (d, t), rows in groups.items())
    prediction = np.empty(len(df))
    for rows, p in zip(groups.values(), parts):
        prediction[rows] = p
    scored = df.assign(Prediction=prediction)
else:
    os.environ["FLEETSCORE_BINARY"] = binary
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
    import fleetscore

    began, before = time.perf_counter(), spent()
    scored = fleetscore.score(df, models=models, model="model_{Device}_{Tag}", key=["Device", "Tag"], features=["Value"]).predictions
took = time.perf_counter() - began
if how == "joblib":
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)  # their time counts from now on
print(took, spent() - before)
scored["Prediction"].to_numpy().tofile(out)
