"""The processes that score with models in Python, as a node or `fleetscore score` starts them.

The process that this text starts in is the parent of workers (_parent.py): it makes one worker after the
other by fork, when the other program asks for one. A worker reads requests from a pipe and
writes answers to another one; what models and scripts print goes into the sensors' logs.
docs/formats/worker.md describes the bytes. Nothing is imported from the package fleetscore,
so that any environment will do that has NumPy and pyarrow (and pandas, for scripts).
"""
import gc
import importlib
import io
import json
import mmap
import os
import resource
import shutil
import struct
import sys
import threading
import time
import traceback
import types
import warnings

requests = answers = None  # a worker's pipes
# Two numbers that the other program watches: the sensor that is being scored (-1 for none,
# -2 for all of a script's batch), and 1 while a module is imported for the first time. A third one that it writes:
# 1 when the sensor at hand is to be the last one of its request.
position = None
me = 0
our_files = sys._getframe().f_code.co_filename, "fleetscore/_models.py"  # tracebacks begin below them

np = pa = None  # numpy and pyarrow, imported by start
models = types.ModuleType("__fleetscore_models__")  # start fills it
script = None  # the module with run()
per_model = False
features_by = "name"

load_module = importlib._bootstrap._find_and_load
importing = False


def timed_import(name, *args):
    """Marks the time of a first import: it isn't the time of the model that needs it first."""
    global importing
    if importing:
        return load_module(name, *args)
    importing = True
    struct.pack_into("<q", position, 8, 1)
    try:
        return load_module(name, *args)
    finally:
        importing = False
        struct.pack_into("<q", position, 8, 0)


def become_worker(files):
    global requests, answers, position, me
    for descriptor, file in (1, files[3]), (2, files[4]):
        os.dup2(file, descriptor)
        os.close(file)
    requests, answers = os.fdopen(files[0], "rb", buffering=1 << 20), os.fdopen(files[1], "wb", buffering=1 << 20)
    position = mmap.mmap(files[2], 24)
    os.close(files[2])
    me = os.getpid()
    for name in "random", "numpy.random":  # no two workers draw the same numbers
        if name in sys.modules:
            sys.modules[name].seed()


libraries = tuple(os.path.join(p, "") for p in sys.path if os.path.isabs(p))  # the folders of modules that no user's code is in


def imported():
    """Names of the libraries' modules that were imported since they were asked for: a later worker's parent imports them."""
    global told
    if len(told) == len(sys.modules):
        return []
    names = [n for n, m in list(sys.modules.items()) if n not in told and str(getattr(m, "__file__", None)).startswith(libraries)]
    told = frozenset(sys.modules)
    return names


# Frames.

def read_frame():
    head = requests.read(12)
    if len(head) < 12:
        return None, None
    n, m = struct.unpack("<IQ", head)
    return json.loads(requests.read(n)), requests.read(m)


answering = threading.RLock()  # what threads of a model print comes between other answers, never inside of one


def answer(header, body=b""):
    if os.getpid() != me:
        os._exit(70)  # a copy of this process, which a model has made by fork
    data = json.dumps(header).encode()
    with answering:
        answers.write(struct.pack("<IQ", len(data), len(body)) + data)
        answers.write(body)
        answers.flush()


# What a model or a script prints belongs to its sensor.

class Printed(io.TextIOBase):
    """Sends the lines that are printed for the sensor at hand, at most `limit` characters of each.

    Each line is sent at once, so that it is known when the process is killed later on.
    """

    limit = 64 << 10

    def __init__(self, name, descriptor):
        self.name, self.descriptor = name, descriptor
        self.sensor, self.line, self.size = -1, "", 0

    def writable(self):
        return True

    def write(self, text):
        if os.getpid() != me:  # a copy of this process: the other one reads no answers of it
            os.write(self.descriptor, text.encode("utf-8", "replace"))
            return len(text)
        with answering:
            self.line += text
            if "\n" in text or len(self.line) > 4096:
                self.send()
        return len(text)

    def send(self):
        text, self.line = self.line, ""
        room = self.limit - self.size
        self.size += len(text)
        if not text or room <= 0:
            return
        if len(text) > room:
            text = text[:room] + "\n(the rest was cut off)\n"
        answer({"printed": {"key": self.sensor, "stream": self.name, "text": text}})

    def turn(self, sensor):
        """What is printed from now on belongs to this sensor; -1 stands for all of them."""
        with answering:
            if self.line:
                self.send()
            self.sensor, self.size = sensor, 0


printed = Printed("stdout", 1), Printed("stderr", 2)


def turn(sensor):
    for stream in printed:
        stream.turn(sensor)


def fault(error):
    """An exception as its type, text and the traceback below our files."""
    if isinstance(error, MemoryError):
        # Memory is given back first: the text below needs some itself.
        error.__traceback__, trace = None, ""
        gc.collect()
    else:
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename in our_files:
            tb = tb.tb_next
        trace = "".join(traceback.format_exception(type(error), error, tb))[-8000:]
    text = str(error).strip().split("\n")[0][:500]
    return {"type": type(error).__name__, "text": text, "trace": trace, "module": getattr(error, "name", None) if isinstance(error, ImportError) else None}


# Start.

def start(request):
    global np, pa, script, per_model, features_by
    if request.get("memory"):
        limit_memory(request["memory"])
    versions = {"python": sys.version.split()[0], "executable": sys.executable}
    import numpy
    import pyarrow
    np, pa = numpy, pyarrow
    pa.set_cpu_count(1)
    exec(models_program, models.__dict__)
    for name in ("numpy", "pyarrow", "sklearn") + (("pandas",) if request["script"] else ()):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            pass
    per_model, features_by = request["per_model"], request["features_by"]
    for path in reversed(request["path"]):
        sys.path.insert(0, path)
    sys.argv = [request["script"] or "fleetscore"]
    if request["models"]:
        os.environ["AZUREML_MODEL_DIR"] = request["models"]
        os.makedirs(request["models"], exist_ok=True)
    if request["script"]:
        script = load_script(request["script"])
        if hasattr(script, "init"):
            script.init()
    gc.collect()
    gc.freeze()
    turn(-1)
    answer({"versions": versions, "imported": imported()})


def limit_memory(size):
    """Bounds what this process may allocate, beyond what Python and its libraries take.

    The limit counts private memory that can be written to (RLIMIT_DATA), so that an
    allocation beyond it raises MemoryError for the sensor at hand, and no other process
    of the machine suffers.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def run_module(name, path, source):
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def load_script(path):
    try:
        with open(path, "rb") as f:
            text = f.read()
    except FileNotFoundError:
        raise FileNotFoundError("the code has no file %s, which is to be the script" % os.path.basename(path)) from None
    module = run_module("__fleetscore_script__", path, text)
    if not callable(getattr(module, "run", None)):
        raise AttributeError("the script %s has no function run" % os.path.basename(path))
    return module


# Batches.

def score(request, body):
    table = pa.ipc.open_stream(body[:request["arrow"]]).read_all()
    files = memoryview(body)[request["arrow"]:]
    if script is not None and not per_model:
        score_by_script(request, table, files)
    else:
        score_models(request, table, files)


class Out:
    """Gathers the answers of a batch and sends them when they are some milliseconds old.

    What wasn't sent is scored again if a later model ends the process.
    """

    def __init__(self):
        self.keys, self.predictions, self.scores, self.sent = [], [], [], time.monotonic()

    def add(self, number, info, prediction=None, score=None):
        info["key"] = number
        if prediction is not None:
            info["rows"] = len(prediction)
            self.predictions.append(prediction)
            self.scores.append(score)
        self.keys.append(info)
        now = time.monotonic()
        if now - self.sent > 0.02:
            self.send()

    def send(self, end=False):
        values = self.predictions + self.scores
        body = np.concatenate(values).astype("<f8", copy=False).tobytes() if values else b""
        answer({"keys": self.keys, "end": end, "imported": imported()}, body)
        self.keys, self.predictions, self.scores, self.sent = [], [], [], time.monotonic()


def matrix(table, request):
    columns = [table.column(name).to_numpy() for name in request["columns"]]
    return np.column_stack(columns) if len(columns) > 1 else columns[0].reshape(-1, 1)


def frame(table, request, first, rows, key):
    """Rows as a DataFrame with the key columns, the time and the features."""
    import pandas
    part = table.slice(first, rows).to_pandas()
    for i, name in enumerate(request["key_names"]):
        part.insert(i, name, pandas.Categorical([key[i]]).repeat(rows) if key else "")
    return part


def score_models(request, table, files):
    x = matrix(table, request)
    out, first, at = Out(), 0, 0
    names, outputs = request["features"], request["outputs"]
    for k, key in enumerate(request["keys"]):
        rows, size = key["rows"], key["model"]
        begin = first
        data = files[at:at + size]
        first, at = first + rows, at + size
        if position[16]:
            break
        struct.pack_into("<q", position, 0, k)
        turn(k)
        info = {}
        try:
            t0 = time.perf_counter()
            try:
                model = models.load(data, key["name"])
            except Exception:
                info["loading"] = True
                raise
            t1 = time.perf_counter()
            info["load"] = t1 - t0
            if script is not None:
                result = script.run(model, frame(table, request, begin, rows, key["key"]))
                p, s = by_position(result, rows)
                detector = False
            else:
                p, s, detector = models.predict(model, x[begin:begin + rows], names, outputs, features_by)
            info["score"], info["detector"] = time.perf_counter() - t1, detector
            model = None
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            model = None
            info["error"] = fault(e)
            p = s = None
        if os.getpid() != me:
            os._exit(70)
        out.add(k, info, p, s)
    struct.pack_into("<q", position, 0, -1)
    turn(-1)
    out.send(end=True)


def by_position(result, rows):
    """One value per row, of what run(model, rows) has given."""
    p, s = parts(result)
    if p is None or len(p) != rows:
        raise ValueError("run gave %s values for %d rows; it must give one for each" % ("no" if p is None else len(p), rows))
    return models.column(p, rows, "run"), np.full(rows, np.nan) if s is None else models.column(s, rows, "run")


def parts(result):
    """Predictions and scores of what a script's run has given."""
    if result is None:
        return None, None
    if hasattr(result, "columns"):
        if "Prediction" not in result.columns:
            raise ValueError("the data frame that run gave has no column Prediction; it has %s" % ", ".join(map(str, result.columns)))
        return result["Prediction"].to_numpy(), result["Score"].to_numpy() if "Score" in result.columns else None
    if isinstance(result, tuple) and len(result) == 2:
        return np.asarray(result[0]), np.asarray(result[1])
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return np.array([r["Prediction"] for r in result]), np.array([r["Score"] for r in result]) if "Score" in result[0] else None
    return np.asarray(result), None


def score_by_script(request, table, files):
    """Calls run(batch) with the rows of many sensors.

    The answer is matched with the rows by the data frame's index, or by position if it
    has exactly one value per row. A row without a prediction makes its sensor fail.
    """
    import pandas
    keys, counts = request["keys"], [k["rows"] for k in request["keys"]]
    write_models(request, files)
    batch = table.to_pandas()
    which = np.repeat(np.arange(len(keys)), counts)
    for i, name in enumerate(request["key_names"]):
        batch.insert(i, name, pandas.Series(np.array([k["key"][i] for k in keys], dtype=object)[which], index=batch.index))
    out = Out()
    turn(-1)
    struct.pack_into("<q", position, 0, -2)  # any of the sensors
    try:
        t0 = time.perf_counter()
        result = script.run(batch)
        took = time.perf_counter() - t0
        p, s, missing = by_index(result, batch)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        turn(-1)
        out.add(-1, {"error": fault(e)})
        out.send(end=True)
        return
    struct.pack_into("<q", position, 0, -1)
    turn(-1)
    first = 0
    for k, rows in enumerate(counts):
        part = slice(first, first + rows)
        first += rows
        lost = int(missing[part].sum())
        if lost:
            out.add(k, {"error": {"type": "", "text": "run gave no prediction for %d of its %d rows" % (lost, rows), "trace": ""}})
        else:
            out.add(k, {"score": took * rows / max(1, len(batch)), "load": 0, "detector": False}, p[part], s[part])
    out.send(end=True)


def by_index(result, batch):
    rows = len(batch)
    p, s = parts(result)
    missing = np.zeros(rows, dtype=bool)
    index = getattr(result, "index", None)
    if p is None:
        return None, None, np.ones(rows, dtype=bool)
    if index is None or callable(index):  # a list has a method of this name
        if len(p) != rows:
            raise ValueError("run gave %d values for %d rows; give one for each row, or a data frame with the batch's index, so that it is known which are missing" % (len(p), rows))
        index = None
    p = models.column(p, len(p), "run")
    s = np.full(len(p), np.nan) if s is None else models.column(s, len(p), "run")
    if index is None or index.equals(batch.index):
        return p, s, np.isnan(p)
    at = batch.index.get_indexer(index)
    if (at < 0).any() or len(np.unique(at)) != len(at):
        raise ValueError("the index of the data frame that run gave isn't the batch's, or holds a row twice")
    all_p, all_s = np.full(rows, np.nan), np.full(rows, np.nan)
    all_p[at], all_s[at] = p, s
    missing[:] = True
    missing[at] = False
    return all_p, all_s, missing | np.isnan(all_p)


def write_models(request, files):
    """Writes the batch's models into the folder that AZUREML_MODEL_DIR names, under their names.

    Files of earlier batches go when they are many: a fleet may be larger than the folder.
    """
    folder = request.get("models")
    if not folder:
        return
    if sum(size for _, size in written.values()) > 64 << 20:
        written.clear()
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    at = 0
    for key in request["keys"]:
        data = files[at:at + key["model"]]
        at += key["model"]
        if not key["model"] or written.get(key["name"]) == (key["digest"], len(data)):
            continue
        path = os.path.join(folder, *[p for p in key["name"].split("/") if p not in ("", ".", "..")])
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not models.unfold(data, path):
            with open(path, "wb") as f:
                f.write(data)
        written[key["name"]] = (key["digest"], len(data))


written = {}  # digest and size by name


def main():
    importlib._bootstrap._find_and_load = timed_import  # Python calls it for modules that aren't there yet; to replace __import__ would slow all others
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
    sys.stdin = open(os.devnull)
    sys.stdout, sys.stderr = printed
    while True:
        request, body = read_frame()
        if request is None:
            break
        try:
            if request["op"] == "start":
                start(request)
            else:
                score(request, body)
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                return
            turn(-1)
            answer({"error": fault(e)})
            if request["op"] == "start":
                return
    if script is not None and hasattr(script, "shutdown"):
        script.shutdown()


# The sources are variables of the program that runs this text. What the parent has done no worker needs to do again.
models_program = compile(models_source, our_files[1], "exec")
models.__file__, sys.modules[models.__name__] = our_files[1], models
parent = run_module("__fleetscore_parent__", "fleetscore/_parent.py", parent_source).Parent()
files = parent.run()
if files is not None:
    told = parent.modules
    become_worker(files)
    main()
