"""score: a DataFrame's rows, each sensor with its own model."""
from __future__ import annotations

import json
import os
import re
import sys
import warnings
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

from . import _binary
from ._errors import CoverageWarning, Error
from ._frames import Exchange


class Result:
    """What score found.

    predictions  the DataFrame with the columns Prediction and Score: 1 for an anomaly and 0
                 for a normal row, or the class or value of other estimators; missing for
                 rows that weren't scored
    coverage     a DataFrame with a row for each sensor of the rows and of the fleet: its key as
                 text, outcome (scored, no_data, no_model, failed, timed_out), rows,
                 anomalies, first, last, model (SHA-256 of the file), reason
    outcomes     how many sensors ended how
    manifest     counts, causes and times of the run, as in manifest.json of the command
    """

    def __init__(self, predictions: Any, coverage: Callable[[], Any], manifest: Dict[str, Any]) -> None:
        self.predictions = predictions
        self.manifest = manifest
        self._make_coverage = coverage
        self._coverage: Any = None

    @property
    def coverage(self) -> Any:
        if self._coverage is None:  # made when it is first asked for: it takes longer than some fleets take to score
            self._coverage = self._make_coverage()
        return self._coverage

    @property
    def outcomes(self) -> Dict[str, int]:
        return dict(self.manifest["outcomes"])

    def __repr__(self) -> str:
        m = self.manifest
        how = ", ".join("%d %s" % (n, o) for o, n in m["outcomes"].items() if n)
        return "<fleetscore.Result: %d rows, %d anomalies; sensors: %s>" % (m["rows"], m["anomalies"], how)

    def _repr_html_(self) -> str:
        import html

        head = self.predictions.head()
        table = head._repr_html_() if hasattr(head, "_repr_html_") else "<pre>%s</pre>" % html.escape(str(head))
        return "<p>%s</p>%s" % (html.escape(repr(self)[1:-1]), table)


def score(df: Any, *, models: "Union[str, os.PathLike[str]]", key: Union[str, Sequence[str]], features: Union[str, Sequence[str]],
          model: Optional[str] = None, time: Optional[str] = None, sensors: Optional[str] = None, features_by: str = "name",
          missing: str = "fail", model_timeout: float = 10.0, workers: Optional[int] = None, runtime: str = "native",
          python: Optional[str] = None, script: "Optional[Union[str, os.PathLike[str]]]" = None, per_model: bool = False,
          code: "Sequence[Union[str, os.PathLike[str]]]" = ()) -> Result:
    """Scores the rows of a DataFrame of pandas or Polars, each sensor with its own model.

    models    the folder of models (a path, or the URL of a store), or a pack of them, which
              opens fastest (`fleetscore model pack`)
    model     how a model's file is named, for example "model_{Device}_{Tag}"; a pack needs none
    sensors   a list of sensors and their models, a file in the folder of models
    key       the columns that name a sensor
    features  the columns that models get, in their order; models that know the names of their
              features get them by name, unless features_by="position"
    time      the column of the rows' times; only the coverage shows it
    missing   rows that lack a feature: "fail" (the sensor fails), "skip" (the row gets no
              prediction) or "model" (the model gets NaN)
    runtime   "native" reads models as data and runs no code of their files; "auto" gives what
              can't be read so to Python, "python" and "onnx" all. Loading a pickle in Python
              runs code that is in it. python is the interpreter, by default this one.

    The order and the index of the rows stay. Raises Error if nothing could be scored. If
    some sensors weren't scored, it warns with CoverageWarning, and the result's coverage
    says which, and why.
    """
    exchange = Exchange(df)
    keys, names = listed("key", key), listed("features", features)
    if time is not None and not isinstance(time, str):
        raise TypeError("time must be the name of a column, not %r" % (time,))
    if workers is not None and not isinstance(workers, int):
        raise TypeError("workers must be a whole number, not %r" % (workers,))
    if not isinstance(model_timeout, (int, float)):
        raise TypeError("model_timeout must be a number of seconds, not %r" % (model_timeout,))
    if not 0 < model_timeout < 1e9:
        raise ValueError("model_timeout must be a number of seconds above 0, not %r" % (model_timeout,))
    columns = {str(c): exchange.column(c) for c in dict.fromkeys(keys + names + ([time] if time else []))}
    with _binary.memory() as rows, _binary.memory() as results, _binary.memory() as covered:
        args = ["score", "--data=-", "--out=-", "--frame=%d,%d,%d" % (rows.fileno(), results.fileno(), covered.fileno()),
                "--models=" + os.fspath(models), "--key=" + flag(keys), "--feature=" + flag(names), "--features-by=" + features_by,
                "--missing=" + missing, "--model-timeout=%dms" % max(1, round(model_timeout * 1000)), "--format=" + exchange.format]
        for name, value in (("--model", model), ("--time", time), ("--sensors", sensors), ("--workers", workers)):
            if value is not None:
                args.append("%s=%s" % (name, value))
        args += in_python(runtime, python, script, per_model, code)

        def feed() -> None:
            exchange.write(rows, columns)
            rows.flush()

        def wait() -> None:
            _binary.take(results, 16 * len(df))  # which takes the program longer than to score when it has to do it

        def use(answer: bytes) -> Result:
            covered.seek(0)
            file = covered.read()
            return Result(exchange.extended(results), lambda: exchange.coverage(file, keys, () if time else ("first", "last")), json.loads(answer))

        try:
            result = _binary.run(args, (rows, results, covered), feed, wait, use, good=(0, 3))
        except Error as e:
            raise Error(by_arguments(str(e)), e.kind) from None
    say(result.manifest)
    return result


def listed(name: str, value: Union[str, Sequence[str]]) -> List[str]:
    out = [value] if isinstance(value, str) else list(value)
    if not out or not all(isinstance(c, str) for c in out):
        raise TypeError("%s must name columns by texts, not %r" % (name, value))
    return out


def flag(names: Sequence[str]) -> str:
    """Names as a flag takes a list: those with commas or quotes are quoted, as in CSV."""
    return ",".join('"%s"' % n.replace('"', '""') if set(n) & set(',"\n') else n for n in names)


FLAGS = {"models": "models", "model": "model", "sensors": "sensors", "key": "key", "feature": "features", "features-by": "features_by", "time": "time",
         "missing": "missing", "model-timeout": "model_timeout", "workers": "workers", "runtime": "runtime", "python": "python", "script": "script",
         "per-model": "per_model", "code": "code"}


def by_arguments(message: str) -> str:
    """A message of the command with the arguments of score in place of the command's flags."""

    def argument(found: "re.Match[str]") -> str:
        name = FLAGS.get(found.group(1))
        if name is None:
            return found.group(0)
        value = found.group(2)  # of those flags that are followed by theirs in messages
        return "the argument " + name if value is None else "%s=%s" % (name, value if value.lstrip("-").isdigit() else '"%s"' % value)

    return re.sub(r"(?<![^\s(])--([a-z-]+)(?: ((?:(?<=missing )|(?<=features-by )|(?<=runtime )|(?<=workers ))[^\s:,;)]+))?", argument, message)


def in_python(runtime: str, python: Optional[str], script: Any, per_model: bool, code: Sequence[Any]) -> List[str]:
    if runtime == "native" and not (script or per_model or code):
        return []
    if runtime == "command":
        raise Error('runtime="command": native, auto, python or onnx are possible; the command fleetscore score runs programs', "invalid")
    args = ["--runtime=" + runtime, "--python=" + (python or sys.executable)]
    if script:
        args.append("--script=" + os.fspath(script))
    if per_model:
        args.append("--per-model")
    return args + ["--code=" + os.fspath(c) for c in code]


def say(manifest: Mapping[str, Any]) -> None:
    """Warns of sensors that weren't scored although they have rows."""
    lost = {o: n for o, n in manifest["outcomes"].items() if n and o not in ("scored", "no_data")}
    if lost:
        first = "".join("; %s: %s" % (c["examples"][0], c["reason"]) for c in manifest["causes"][:1])
        n = sum(lost.values())
        warnings.warn("%s scored (%s)%s; result.coverage has %s" % (
            "1 sensor wasn't" if n == 1 else "%d sensors weren't" % n, ", ".join("%d %s" % (n, o) for o, n in lost.items()), first,
            "it" if n == 1 else "them all"), CoverageWarning, stacklevel=3)
    rows = manifest["left_out_rows"]
    if rows:
        text = "1 row lacks a feature and has no prediction" if rows == 1 else "%d rows lack a feature and have no prediction" % rows
        warnings.warn(text, CoverageWarning, stacklevel=3)
