"""Scores one sensor: python predict.py DEVICE TAG CONFIG. It is run for each sensor, and finds
its folders in Azure Batch AI's variables."""
import json
import os
import pickle
import sys

import pandas as pd

device, tag = sys.argv[1], sys.argv[2]
with open(sys.argv[3]) as f:
    config = json.load(f)

data = pd.read_csv(os.environ["AZ_BATCHAI_INPUT_DATA"] + "/readings.csv", dtype={"Device": str, "Tag": str})
with open(os.environ["AZ_BATCHAI_INPUT_MODELS"] + f"/model_{device}_{tag}", "rb") as f:
    model = pickle.load(f)
scores = model.decision_function(data[["Value"]].to_numpy())
result = pd.DataFrame({"TS": data["TS"], "Device": device, "Tag": tag, "Val": data["Value"]})
result["Prediction"] = (scores < config["threshold"]).astype(int)  # 1 is an anomaly
result["Score"] = scores
result.to_csv(os.environ["AZ_BATCHAI_OUTPUT_PREDICTIONS"] + "/preds.csv", index=False)
print(len(result), "rows,", result["Prediction"].sum(), "anomalies")
