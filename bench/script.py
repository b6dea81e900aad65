"""The straightforward fleet script: what a data scientist writes with pandas and
scikit-learn.

    script.py DATA MODELS OUT [PROCESSES]

With two processes or more the sensors are shared among them.
"""
import os
import pickle
import sys
from multiprocessing import Pool

import pandas as pd


def score(group):
    (device, tag), rows = group
    with open(os.path.join(sys.argv[2], f"model_{device}_{tag}"), "rb") as f:
        model = pickle.load(f)
    return rows.assign(Prediction=(model.predict(rows[["Value"]].to_numpy()) == -1).astype(int))


def main():
    data = pd.read_csv(sys.argv[1])
    groups = data.groupby(["Device", "Tag"])
    processes = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    if processes == 1:
        parts = [score(g) for g in groups]
    else:
        with Pool(processes) as pool:
            parts = pool.map(score, groups, chunksize=100)
    pd.concat(parts).to_csv(sys.argv[3], index=False)


if __name__ == "__main__":
    main()
