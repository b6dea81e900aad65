"""Trains the example fleet: one scikit-learn model per sensor of the simulated
devices, each on a healthy day of its own readings.

    fleetscore simulate --faults=-1 --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --out healthy.csv
    fleetscore simulate --from 2026-11-03T00:00:00Z --to 2026-11-03T04:00:00Z --out faulty.csv
    pip install -r requirements.txt
    python make_models.py healthy.csv faulty.csv models

The second file judges the models: one that flags nothing, or much of what is
healthy, ends the script before it is written.
"""

import csv
import pathlib
import pickle
import sys
from collections import defaultdict
from datetime import datetime

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

WINDOW = 5  # seconds, as in fleet.yaml's query
SAMPLES = 400  # rows to train on, spread over the day


def windows(path):
    """Averages per sensor and window, and whether the window saw a fault."""
    sums = defaultdict(lambda: [0.0, 0, 0])
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            second = datetime.fromisoformat(row["TS"]).timestamp()
            cell = sums[row["Device"], row["Tag"], -(-second // WINDOW)]
            cell[0] += float(row["Value"])
            cell[1] += 1
            cell[2] = max(cell[2], int(row["Fault"]))
    sensors = defaultdict(list)
    for (device, tag, window), (total, count, fault) in sorted(sums.items()):
        sensors[device, tag].append((total / count, fault))
    return {key: np.array(rows) for key, rows in sensors.items()}


def main(healthy_csv, faulty_csv, out):
    healthy, faulty = windows(healthy_csv), windows(faulty_csv)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for (device, tag), rows in healthy.items():
        x = rows[:, :1]
        step = max(1, len(x) // SAMPLES)
        model = Pipeline([("scale", StandardScaler()), ("detect", OneClassSVM(nu=0.005, gamma=0.1))])
        model.fit(x[::step])
        test = faulty[device, tag]
        flagged = model.predict(test[:, :1]) == -1
        fault = test[:, 1] > 0
        found, wrong = flagged[fault].mean(), flagged[~fault].mean()
        print(f"{device}/{tag}: flags {found:.0%} of the windows with faults, {wrong:.1%} of the others")
        if not 0.2 < found or not wrong < 0.1:
            sys.exit(f"{device}/{tag}: the model is of no use")
        with open(out / f"model_{device}_{tag}", "wb") as f:
            pickle.dump(model, f, protocol=4)


if __name__ == "__main__":
    main(*sys.argv[1:])
