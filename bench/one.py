"""The reference architecture's way: a process that scores one sensor's file with
one model.

    one.py DATA MODEL OUT
"""
import pickle
import sys

import pandas as pd

data = pd.read_csv(sys.argv[1])
with open(sys.argv[2], "rb") as f:
    model = pickle.load(f)
data["Prediction"] = (model.predict(data[["Value"]].to_numpy()) == -1).astype(int)
data.to_csv(sys.argv[3], index=False)
