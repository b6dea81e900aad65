"""The fleet's job with a pool of Python processes, as somebody writes it by hand who wants it
fast: the processes stay, each has its half of the dataset's files, and models are loaded from
files and asked for labels and decision values.

    pool.py DATA MODELS OUT PROCESSES

For each line of the standard input the job runs once, and a line with its wall seconds, its CPU
seconds, its rows and its anomalies is written.
"""
import glob
import os
import pickle
import resource
import sys
import time
from multiprocessing import Pool

import numpy as np
import pandas as pd


def score(task):
    file, models, out = task
    before = time.process_time()
    data = pd.read_parquet(file, columns=["TS", "Device", "Tag", "Value"])
    parts = []
    for (device, tag), rows in data.groupby(["Device", "Tag"], sort=False):
        with open(os.path.join(models, f"model_{device}_{tag}"), "rb") as f:
            model = pickle.load(f)
        x = rows[["Value"]].to_numpy()
        parts.append((rows, (model.predict(x) == -1).astype(np.int64), model.decision_function(x)))
    result = pd.concat([p[0] for p in parts])
    result["Prediction"] = np.concatenate([p[1] for p in parts])
    result["Score"] = np.concatenate([p[2] for p in parts])
    result.to_parquet(os.path.join(out, os.path.basename(file)), index=False)
    return len(result), int(result["Prediction"].sum()), time.process_time() - before


def main():
    data, models, out, processes = sys.argv[1:5]
    files = sorted(f for f in glob.glob(os.path.join(data, "**", "*.parquet"), recursive=True) if "_delta_log" not in f)
    os.makedirs(out, exist_ok=True)
    tasks = [(f, models, out) for f in files]
    with Pool(int(processes)) as pool:
        pool.map(score, tasks, chunksize=1)  # imports the libraries
        for _ in sys.stdin:
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            results = pool.map(score, tasks, chunksize=1)
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
            own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(wall, own + sum(r[2] for r in results), sum(r[0] for r in results), sum(r[1] for r in results), flush=True)


if __name__ == "__main__":
    main()
