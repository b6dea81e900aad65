"""Scores models with the scikit-learn of this Python, for fleetscore model verify.

Each line of stdin is a request, and each line of stdout an answer: JSON, with arrays of
float64 in base64, row after row. It unpickles files, which runs code from them.
"""
import base64
import json
import os
import sys
import warnings

# Models may print. Their output must not appear among the answers.
answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
os.dup2(2, 1)


def answer(value):
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def fault(error):
    chain = error
    return {"type": type(chain).__name__, "message": str(chain)[:2000], "module": getattr(chain, "name", None)}


def hello():
    value = {"python": sys.version.split()[0], "executable": sys.executable}
    try:
        import sklearn
        import numpy
        value["sklearn"], value["numpy"] = sklearn.__version__, numpy.__version__
    except Exception as e:
        value["error"] = fault(e)
    answer(value)
    return "error" not in value


def load(path):
    with open(path, "rb") as f:
        start = f.read(4)
    if start == b"PK\x03\x04":
        import skops.io
        return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    try:
        import joblib
    except ImportError:
        from sklearn.externals import joblib
    return joblib.load(path)


def numbers(value, model):
    """A method's result as rows of float64; labels that are not numbers are returned as indexes into classes_."""
    import numpy
    if isinstance(value, list):  # the probabilities of several outputs become columns, one output after the other
        value = numpy.hstack([numpy.asarray(v) for v in value])
    value = numpy.asarray(value)
    if value.dtype.kind not in "fiub":
        classes = model.classes_
        if value.ndim == 2 and isinstance(classes, list):  # one array of labels for each output
            value = numpy.column_stack([numpy.searchsorted(c, value[:, i]) for i, c in enumerate(classes)])
        else:
            value = numpy.searchsorted(numpy.asarray(classes), value)
    value = numpy.ascontiguousarray(value, dtype="<f8")
    if value.ndim == 1:
        value = value[:, None]
    return {"cols": int(value.shape[1]), "values": base64.b64encode(value.tobytes()).decode("ascii")}


def serve(request):
    import numpy
    result = {"id": request["id"], "out": {}, "errors": {}, "warnings": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = load(request["path"])
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            result["load"] = fault(e)
            return result
        result["warnings"] = sorted({type(w.message).__name__ for w in caught if "Version" in type(w.message).__name__})
    given = numpy.frombuffer(base64.b64decode(request["x"]), dtype="<f8").reshape(-1, request["cols"])

    def rows():
        """A new copy of the rows for each method, because models with copy=False change their rows."""
        x = given.copy()
        if request.get("names"):
            try:
                import pandas
                x = pandas.DataFrame(x, columns=request["names"])
            except ImportError:
                pass
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in request["methods"]:
            try:
                result["out"][method] = numbers(getattr(model, method)(rows()), model)
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                result["errors"][method] = fault(e)
    return result


if hello():
    for line in sys.stdin:
        answer(serve(json.loads(line)))
