"""Trains a model for each sensor and pushes all of them to a server: train.py READINGS FLEET.

READINGS is a CSV file with the columns TS, Device, Tag and Value. The server is the one of
this machine, or FLEETSCORE_SERVER with the token in the file FLEETSCORE_TOKEN_FILE.
"""
import os
import sys

import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

import fleetscore

file, fleet = sys.argv[1:]
readings = pd.read_csv(file, dtype={"Device": str, "Tag": str})
models = {}
for key, rows in readings.groupby(["Device", "Tag"]):
    sample = rows[["Value"]].iloc[:: max(1, len(rows) // 400)]
    models[key] = make_pipeline(StandardScaler(), OneClassSVM(nu=0.01, gamma=0.1)).fit(sample)

client = fleetscore.Client(os.environ.get("FLEETSCORE_SERVER"), token_file=os.environ.get("FLEETSCORE_TOKEN_FILE"))
pushed = client.push(fleet, models, message="trained on %s" % os.path.basename(file))
print("version %d of fleet %s: %d models changed" % (pushed["version"], fleet, pushed["files"]))
