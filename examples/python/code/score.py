"""Scores with the models of a fleet: init, run and shutdown are called by Fleetscore, as
Azure ML's ParallelRunStep calls them."""
import os
import pickle

models = {}


def init():
    """Is called once for each process, before the first batch."""
    print("process", os.getpid(), "begins")


def model_of(device, tag):
    """The model of a sensor, which is loaded once."""
    name = f"model_{device}_{tag}"
    if name not in models:
        with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], name), "rb") as f:
            models[name] = pickle.load(f)
    return models[name]


def run(batch):
    """batch is a pandas DataFrame with Device, Tag, TS and Value: rows of many sensors. Returns
    a DataFrame with the same index, in which 1 is an anomaly."""
    result = batch[[]].assign(Prediction=0.0, Score=0.0)
    for (device, tag), rows in batch.groupby(["Device", "Tag"], observed=True):
        model, values = model_of(device, tag), rows[["Value"]].to_numpy()
        result.loc[rows.index, "Prediction"] = (model.predict(values) == -1).astype(float)
        result.loc[rows.index, "Score"] = model.decision_function(values)
    return result


def shutdown():
    """Is called before the process ends."""
    print("process", os.getpid(), "ends with", len(models), "models")
