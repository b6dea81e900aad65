"""A script that takes rows without times, whose feature is named as a time might be."""


def run(batch):
    assert list(batch.columns) == ["sensor", "time"], list(batch.columns)
    return batch[["time"]].rename(columns={"time": "Prediction"})
