"""Fleetscore: one pre-trained model for each sensor.

    result = fleetscore.score(df, models="models", model="model_{Device}_{Tag}",
                              key=["Device", "Tag"], features=["Value"])

scores a DataFrame of pandas or Polars; Client talks to a server.
"""
from ._client import Client
from ._errors import CoverageWarning, Error
from ._score import Result, score

__all__ = ["Client", "CoverageWarning", "Error", "Result", "score"]
