"""Checks the installed package: check.py REFERENCE FOLDER. The frames' packages are there."""
import datetime
import io
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import pandas as pd
import polars as pl

import fleetscore
import fleetscore._frames as frames
from fleetscore import _binary

reference, folder = sys.argv[1:]
warnings.simplefilter("error", fleetscore.CoverageWarning)
data = pd.read_csv(os.path.join(reference, "sensor_data.csv"))
want = pd.read_csv(os.path.join(reference, "expected_predictions.csv"))
how = dict(models=os.path.join(reference, "models"), model="model_{Device}_{Tag}", key=["Device", "Tag"], features=["Value"])


def same(got):
    p, s = np.asarray(got["Prediction"]), np.asarray(got["Score"])
    assert (p == want["Prediction"].to_numpy()).all(), (p != want["Prediction"].to_numpy()).sum()
    assert np.abs(s - want["Decision"].to_numpy()).max() < 1e-15


def refused(kind, text, call, error=fleetscore.Error):
    try:
        call()
    except error as e:
        assert text in str(e), (text, e)
        assert kind is None or e.kind == kind, (kind, e.kind)
    else:
        raise AssertionError("%r was expected" % text)


def pandas_frames():
    index = pd.Index(["row %d" % i for i in range(len(data))])
    before = data.copy()
    result = fleetscore.score(data.set_index(index), time="TS", **how)
    assert type(result.predictions) is pd.DataFrame and result.predictions.index.equals(index)
    assert list(result.predictions.columns) == ["TS", "Device", "Tag", "Value", "Prediction", "Score"]
    pd.testing.assert_frame_equal(data, before)
    same(result.predictions)
    assert result.outcomes == {"scored": 15}, result.outcomes
    c = result.coverage.set_index(["Device", "Tag"])
    assert c["rows"].sum() == len(data) and c["anomalies"].sum() == 6757
    assert str(c.loc[("1", "1"), "first"]) == "2018-08-28 23:00:05+00:00", c.loc[("1", "1")]
    # Keys and times of other types; a second run; rows in another order.
    other = data.assign(TS=pd.to_datetime(data["TS"]), Device=data["Device"].astype("int16"), Tag=data["Tag"].astype(str).astype("category"))
    again = fleetscore.score(result.predictions.assign(Prediction=7.0), **how)
    same(again.predictions)
    mixed = fleetscore.score(other.sample(frac=1, random_state=1), time="TS", **how)
    same(mixed.predictions.sort_index())
    assert "first" not in again.coverage and "first" in mixed.coverage
    exchange = frames.Exchange(data)
    for values, dtype in (([-32768, 32767], "int16"), ([-32769, 0], "int32"), ([0, 1 << 31], "int64"), ([True, False], "bool"), ([0.5], "float64")):
        got = frames.narrow(pd.Series(values))
        assert got.dtype == dtype and got.tolist() == values, (values, got)
    # A large DataFrame goes in parts, of which each needs little memory.
    text, frames.BATCH_BYTES, whole = io.BytesIO(), 50_000, frames.BATCH_BYTES
    if exchange.arrow:
        exchange.write(text, {name: data[name] for name in how["key"] + how["features"]})
        text.seek(0)
        parts = [part.nbytes for part in exchange.arrow.ipc.open_stream(text)]
        assert 1 < max(parts) <= 50_000 and len(parts) < len(data) / 1000, parts
    same(fleetscore.score(data, **how).predictions)
    frames.BATCH_BYTES = whole
    # Sensors whose numbers need 64 bits have no model here, and keep their names.
    far = data.assign(Device=data["Device"].replace(1, -(1 << 40)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        c = fleetscore.score(far, **how).coverage
    assert set(c.loc[c["outcome"] == "no_model", "Device"]) == {str(-(1 << 40))}, c


def empty_and_changed():
    """A DataFrame without rows is one of results, too, and results are the caller's to change."""
    for df in (data.head(0), pl.from_pandas(data.head(0))):
        refused("failed", "no row", lambda: fleetscore.score(df, **how))
    result = fleetscore.score(data, **how)
    before, result.predictions.loc[0, "Score"] = result.predictions["Score"].to_numpy().copy(), 77.0
    assert result.predictions["Score"].iloc[0] == 77 and (result.predictions["Score"].to_numpy()[1:] == before[1:]).all()
    assert pickle.loads(pickle.dumps(result.predictions)).equals(result.predictions)


def many_kept():
    """Results that are kept keep no files open."""
    few = data.head(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, kept = len(os.listdir("/dev/fd")), [fleetscore.score(few, **how) for _ in range(5)]
    assert len(os.listdir("/dev/fd")) == before
    for result in kept:
        assert (result.predictions["Prediction"] == want["Prediction"].head(20)).all()


def room_is_taken():
    """Room for results is taken ahead in memory alone."""
    taken, real = [], os.posix_fallocate
    os.posix_fallocate = lambda *args: (taken.append(args), real(*args))
    try:
        with tempfile.TemporaryFile() as disk:
            _binary.take(disk, 4096)
            assert not taken and os.fstat(disk.fileno()).st_size == 0, taken
        with _binary.memory() as file:
            _binary.take(file, 4096)
            assert bool(taken) == hasattr(os, "memfd_create") and os.fstat(file.fileno()).st_size == 4096 * len(taken), taken
            _binary.take(file, 0)  # there is nothing to take
    finally:
        os.posix_fallocate = real


def some_not_scored():
    odd = data.assign(Tag=data["Tag"].astype(object))
    odd.loc[odd["Tag"] == 5, "Tag"] = "five"  # numbers and texts in a column
    odd.loc[odd.index[0], "Value"] = np.nan
    refused(None, "no_model", lambda: fleetscore.score(odd, **how), fleetscore.CoverageWarning)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fleetscore.score(odd, missing="skip", **how)
    said = [str(w.message) for w in caught]
    assert any(t.startswith("3 sensors weren't scored (3 no_model); ") and t.endswith("has them all") for t in said), said
    assert "1 row lacks a feature and has no prediction" in said, said
    assert result.outcomes == {"scored": 12, "no_data": 3, "no_model": 3}, result.outcomes
    p, lost = result.predictions, odd["Tag"] == "five"
    lost.iloc[0] = True
    assert p["Prediction"].isna().equals(lost)
    assert (p.loc[~lost, "Prediction"] == want.loc[~lost, "Prediction"]).all()
    assert set(result.coverage.loc[result.coverage["outcome"] == "no_model", "Tag"]) == {"five"}


def without_pyarrow():
    real, frames.pyarrow = frames.pyarrow, lambda: None
    try:
        pandas_frames()
        some_not_scored()
    finally:
        frames.pyarrow = real


def polars_frames():
    df = pl.DataFrame({c: data[c].to_list() for c in data.columns})
    for variant in (df, df.with_columns(pl.col("Tag").cast(pl.Utf8).cast(pl.Categorical), pl.col("TS").str.to_datetime("%Y-%m-%d %H:%M:%S%.f"))):
        result = fleetscore.score(variant, time="TS", **how)
        assert isinstance(result.predictions, pl.DataFrame) and isinstance(result.coverage, pl.DataFrame)
        same(result.predictions)
        assert result.coverage["Tag"].dtype == pl.Utf8 and result.coverage["rows"].sum() == len(data)
    warnings.simplefilter("ignore")
    part = fleetscore.score(df.with_columns(pl.when(pl.col("Tag") == 5).then(99).otherwise(pl.col("Tag")).alias("Tag")), **how)
    warnings.simplefilter("error", fleetscore.CoverageWarning)
    assert part.predictions["Prediction"].is_null().sum() == (data["Tag"] == 5).sum()
    refused(None, "collect()", lambda: fleetscore.score(df.lazy(), **how), TypeError)


def errors():
    refused("not_found", "/no/models", lambda: fleetscore.score(data, **dict(how, models="/no/models")))
    refused(None, "no column 'Nope'", lambda: fleetscore.score(data, **dict(how, key="Nope")), ValueError)
    refused("invalid", "the DataFrame: column TS", lambda: fleetscore.score(data, **dict(how, features=["TS"])))
    # Messages name the arguments that were given, not the flags of the command.
    refused("invalid", 'missing="guess": fail, skip or model', lambda: fleetscore.score(data, missing="guess", **how))
    refused("invalid", "workers=-1: 0 or more", lambda: fleetscore.score(data, workers=-1, **how))
    for seconds in 0, -1, float("nan"), float("inf"):
        refused(None, "model_timeout must be", lambda: fleetscore.score(data, model_timeout=seconds, **how), ValueError)
    refused("invalid", 'add runtime="python", or runtime="auto"', lambda: fleetscore.score(data, per_model=True, script="s.py", **how))
    refused("invalid", "name them with the argument model, for example 'model_{Device}_{Tag}'", lambda: fleetscore.score(data, **dict(how, model=None)))
    refused("not_found", "set the argument models to the folder", lambda: fleetscore.score(data, **dict(how, models="/no/models")))
    refused("invalid", "pandas.to_datetime", lambda: fleetscore.score(data.assign(TS=range(len(data))), time="TS", **how))
    refused("failed", "no model", lambda: fleetscore.score(data.assign(Device=77), **how))
    refused("failed", "no model", lambda: fleetscore.score(data.assign(Device=[10 ** 30] * len(data)), **how))
    refused(None, "pandas or Polars", lambda: fleetscore.score([1, 2], **how), TypeError)


def interrupted():
    """Whoever interrupts a call finds no process and no file of it afterwards."""
    temporary = folder + "-temporary"
    os.mkdir(temporary)
    real, os.environ["TMPDIR"] = subprocess.Popen, temporary
    started = []

    def popen(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    def write(self, file, columns):
        end = time.monotonic() + 60
        while not os.listdir(temporary):  # the folder of the Python processes
            assert time.monotonic() < end
            time.sleep(0.01)
        raise KeyboardInterrupt

    subprocess.Popen, written = popen, frames.Exchange.write
    frames.Exchange.write = write
    try:
        refused(None, "", lambda: fleetscore.score(data, runtime="python", **how), KeyboardInterrupt)
    finally:
        subprocess.Popen, frames.Exchange.write = real, written
        del os.environ["TMPDIR"]
    assert len(started) == 1 and started[0].returncode is not None, started
    assert not os.listdir(temporary), os.listdir(temporary)


def killed():
    """When the notebook is killed while it hands over rows, the program ends too."""
    child = subprocess.Popen([sys.executable, "-c", """
import subprocess, sys, time
import pandas as pd, fleetscore, fleetscore._frames as frames
real = subprocess.Popen
def popen(*args, **kwargs):
    program = real(*args, **kwargs)
    print(program.pid, flush=True)
    return program
subprocess.Popen = popen
frames.Exchange.write = lambda *args: time.sleep(600)
fleetscore.score(pd.DataFrame({"Device": [1], "Tag": [1], "Value": [1.0]}), models=sys.argv[1], model="model_{Device}_{Tag}", key=["Device", "Tag"], features="Value")
""", os.path.abspath(how["models"])], stdout=subprocess.PIPE, cwd=os.path.dirname(folder))
    program = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.wait()
    end = time.monotonic() + 60
    while runs(program):
        assert time.monotonic() < end
        time.sleep(0.01)
    child.stdout.close()


def runs(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def client():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d" % s.getsockname()[1]
    os.mkdir(folder)
    shutil.copytree(os.path.join(reference, "models"), os.path.join(folder, "models"))
    os.chmod(os.path.join(folder, "models"), 0o755)
    file = os.path.join(folder, "fleet.yaml")
    text = """
hub: {key: [Device, Tag], time: TS}
queries:
  live: {cut: 1m, sql: "SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO live FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 5)"}
fleets:
  sensors: {path: ./models, model: "model_{Device}_{Tag}"}
  trained: {path: models/trained, model: "model_{Device}_{Tag}"}
pools: {cpu: {scale: {min: 0, max: 1}}}
pipelines:
  past: {dataset: history, fleet: sensors, features: [Val=Value], pool: cpu}
"""
    with open(file, "w") as f:
        f.write(text)
    command = os.path.join(os.path.dirname(sys.executable), "fleetscore")
    server = subprocess.Popen([command, "up", file, "--dir", os.path.join(folder, "data"), "--listen", url[len("http://"):]], stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                c = fleetscore.Client(url)
                if c.health()["status"] == "ok":
                    break
            except fleetscore.Error as e:
                assert e.kind == "unavailable", e
            assert time.monotonic() < end and server.poll() is None, server.stderr.read()
            time.sleep(0.05)  # the server has no other way to say that it listens
        use(c, url, file, text)
    finally:
        server.terminate()
        server.communicate()


def use(c, url, file, text):
    assert c.apply(file, dry_run=True)["changes"] == []
    assert c.apply(text.replace("past:", "again:").replace("./models", folder + "/models")) ["pipelines"] == ["again"]
    assert c.apply(file)["pipelines"] == ["past"]
    refused("invalid", "unknown", lambda: c.apply("hub: {}\nnonsense: 1\n"))

    done = c.upload("history", data.assign(TS=pd.to_datetime(data["TS"])), key=["Device", "Tag"], time="TS", values=["Value"])
    assert done["rows"] == done["added"] == len(data), done
    done = c.upload("history", os.path.join(reference, "sensor_data.csv"))
    assert done["same"] == len(data), done
    done = c.upload("history", pl.from_pandas(data.head(10)))
    assert done["same"] == 10, done

    job = c.wait(c.submit("past", start="2018-08-28", end=datetime.datetime(2018, 8, 29, 3, 12, 30)), timeout=60)
    assert job["state"] == "succeeded" and job["rows"] == len(data), job
    for frame in ("pandas", "polars"):
        got = c.predictions(job, frame=frame)
        got = got if frame == "pandas" else got.to_pandas()
        got = got.sort_values(["TS", "Device", "Tag"]).reset_index(drop=True)
        order = want.assign(TS=pd.to_datetime(want["TS"], utc=True), Device=want["Device"].astype(str), Tag=want["Tag"].astype(str))
        order = order.sort_values(["TS", "Device", "Tag"]).reset_index(drop=True)
        assert (got["Prediction"] == order["Prediction"]).all() and (got["Val"] == order["Val"]).all()
        assert (got["Score"] - order["Decision"]).abs().max() < 1e-15 and (pd.to_datetime(got["TS"], utc=True) == order["TS"]).all()
    part = c.predictions("past", start="2018-08-28T23:00:00Z", end="2018-08-28T23:00:05Z")
    assert 0 < len(part) == (want["TS"] <= "2018-08-28 23:00:05.000").sum(), part
    coverage = c.coverage(job)
    assert len(coverage) == 15 and set(coverage["outcome"]) == {"scored"} and "1/1" in set(coverage["key"]), coverage
    assert len(c.coverage(job, outcome=["failed"])) == 0
    assert [j["id"] for j in c.jobs(pipeline="past")] == [job["id"]] and c.job(job)["state"] == "succeeded"
    assert c.fleets()[0]["members"] == 15 and c.datasets()[0]["rows"] == len(data)

    model = os.path.join(reference, "models", "model_1_1")
    with open(model, "rb") as f:
        pushed = c.push("trained", {("1", 1): model, "1/2": f.read()}, message="two")
    assert (pushed["version"], pushed["files"]) == (1, 2) and "duplicate" in [f["code"] for f in pushed["findings"]], pushed
    refused("invalid", "1/1: ", lambda: c.push("trained", {"1/1": b"nothing"}))
    assert [v["message"] for v in c.versions("trained")] == ["two"]
    assert c.rollback("trained", 0)["rollback_to"] == 0 and [f["members"] for f in c.fleets()] == [15, 0]

    now = datetime.datetime.now(datetime.timezone.utc)
    assert c.send([{"TS": now, "Device": 1, "Tag": 1, "Value": 3.5}]) == 1
    assert c.send(pd.DataFrame({"TS": [now, now], "Device": [1, 2], "Tag": [1, 1], "Value": [np.float64(1), np.nan]})) == 2
    refused("invalid", "reading 1:", lambda: c.send([{"Device": 1, "Tag": 1, "Value": 3.5}]))

    refused("not_found", "there is no such pipeline", lambda: c.predictions("pasd"))
    refused("not_found", "there is no such pipeline", lambda: c.submit("pasd"))
    token = os.path.join(folder, "data", "secrets", "admin-token")
    assert fleetscore.Client(url, token_file=token).fleets() and fleetscore.Client(url, token=open(token).read().strip()).fleets()
    refused(None, "token", lambda: fleetscore.Client(url, token="wrong").fleets())
    refused("unavailable", "reach server", lambda: fleetscore.Client("http://127.0.0.1:1", timeout=5).fleets())
    refused("not_found", "", lambda: c.wait("no-such-job", timeout=0))


for check in (pandas_frames, many_kept, room_is_taken, some_not_scored, without_pyarrow, polars_frames, empty_and_changed, errors, interrupted, killed, client):
    check()
print("all good")
