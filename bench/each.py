"""The fleet's job with a task for each model, as Dask and Ray are commonly used.

    each.py dask|ray DATA MODELS OUT WORKERS

The workers are started once, and score some models so that they are warm. For each line of the standard
input the job runs once, and a line with its wall seconds, its CPU seconds, its rows and its anomalies is written.
"""
import glob
import os
import pickle
import sys
import time

import numpy as np
import pandas as pd
import psutil


def score(path, values):
    with open(path, "rb") as f:
        model = pickle.load(f)
    return (model.predict(values) == -1).astype(np.int64), model.decision_function(values)


def cpu():
    total = 0.0
    for p in [psutil.Process()] + psutil.Process().children(recursive=True):
        try:
            times = p.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def job(run, files, models, out, most):
    parts, tasks = [], []
    for file in files:
        data = pd.read_parquet(file, columns=["TS", "Device", "Tag", "Value"])
        for (device, tag), rows in data.groupby(["Device", "Tag"], sort=False):
            if most is None or len(tasks) < most:
                parts.append(rows)
                tasks.append((os.path.join(models, f"model_{device}_{tag}"), rows[["Value"]].to_numpy()))
    answers = run(tasks)
    result = pd.concat(parts)
    result["Prediction"] = np.concatenate([a[0] for a in answers])
    result["Score"] = np.concatenate([a[1] for a in answers])
    result.to_parquet(os.path.join(out, "each.parquet"), index=False)
    return len(result), int(result["Prediction"].sum())


def main():
    how, data, models, out, workers = sys.argv[1:6]
    files = sorted(f for f in glob.glob(os.path.join(data, "**", "*.parquet"), recursive=True) if "_delta_log" not in f)
    os.makedirs(out, exist_ok=True)
    if how == "dask":
        from distributed import Client, LocalCluster
        cluster = LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=None)
        client = Client(cluster)

        def run(tasks):
            return client.gather([client.submit(score, *t, pure=False) for t in tasks])

        def end():
            client.close()
            cluster.close()
    else:
        import ray
        ray.init(num_cpus=int(workers), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        remote = ray.remote(score)

        def run(tasks):
            return ray.get([remote.remote(*t) for t in tasks])

        end = ray.shutdown
    job(run, files[:1], models, out, 20 * int(workers))  # imports the libraries
    for _ in sys.stdin:
        before, began = cpu(), time.perf_counter()
        rows, anomalies = job(run, files, models, out, None)
        wall = time.perf_counter() - began
        print(wall, cpu() - before, rows, anomalies, flush=True)
    end()


if __name__ == "__main__":
    main()
