"""Scores rows in Python: replace run's rule by your own."""
import os


def init():
    """Is called once for each process."""
    print("process", os.getpid(), "begins")


def run(batch):
    """batch is a DataFrame: Device, Tag, TS and the features of rows of many sensors.
    Returns a DataFrame with batch's index: Prediction, and Score if there is one."""
    batch = batch.assign(Prediction=0.0, Score=0.0)
    for (device, tag), rows in batch.groupby(["Device", "Tag"], observed=True):
        mean, deviation = rows["Value"].mean(), rows["Value"].std()
        away = (rows["Value"] - mean).abs() / (deviation or 1.0)
        batch.loc[rows.index, "Score"] = 3.0 - away
        batch.loc[rows.index, "Prediction"] = (away > 3.0).astype(float)
    return batch[["Prediction", "Score"]]
