"""A job over a fleet with Dask, as a data scientist writes it: one task per file of the
dataset, each of which scores the file's sensors with pandas and scikit-learn.

    dask_job.py DATA MODELS OUT WORKERS

The cluster is started once, and scores one file so that it is warm. For each line of the standard input the job runs once, and a
line with its wall seconds, its CPU seconds, its rows and its anomalies is written.
"""
import glob
import os
import pickle
import sys
import time

import pandas as pd
import psutil
from distributed import Client, LocalCluster


def score(file, models, out):
    data = pd.read_parquet(file, columns=["TS", "Device", "Tag", "Value"])
    parts = []
    for (device, tag), rows in data.groupby(["Device", "Tag"]):
        with open(os.path.join(models, f"model_{device}_{tag}"), "rb") as f:
            model = pickle.load(f)
        parts.append(rows.assign(Prediction=(model.predict(rows[["Value"]].to_numpy()) == -1).astype(int)))
    result = pd.concat(parts)
    result.to_parquet(os.path.join(out, os.path.basename(file)), index=False)
    return len(result), int(result["Prediction"].sum())


def cpu():
    total = 0.0
    for p in [psutil.Process()] + psutil.Process().children(recursive=True):
        times = p.cpu_times()
        total += times.user + times.system
    return total


def main():
    data, models, out, workers = sys.argv[1:5]
    files = sorted(glob.glob(os.path.join(data, "**", "*.parquet"), recursive=True))
    files = [f for f in files if "_delta_log" not in f]
    os.makedirs(out, exist_ok=True)
    with LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.gather(client.map(score, files[:1], models=models, out=out, pure=False))  # imports the libraries
        for _ in sys.stdin:
            before, began = cpu(), time.perf_counter()
            results = client.gather(client.map(score, files, models=models, out=out, pure=False))
            wall = time.perf_counter() - began
            print(wall, cpu() - before, sum(r for r, _ in results), sum(a for _, a in results), flush=True)


if __name__ == "__main__":
    main()
