"""The peers of the micro benchmarks, asked by lines of JSON: see worker.go, which
answers the same questions for our side."""
import json
import pickle
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
ROWS = 60


class Set:
    def __init__(self, folder):
        ends = np.fromfile(f"{folder}/models.u64", "<u8").astype(int)
        with open(f"{folder}/models.bin", "rb") as f:
            data = f.read()
        self.files = [data[a:b] for a, b in zip(ends, ends[1:])]
        self.models = [pickle.loads(f) for f in self.files]
        rows = np.fromfile(f"{folder}/rows.f64", "<f8")
        self.x = rows.reshape(len(self.files), ROWS, -1)
        self.made = {}

    def stacked(self):
        if "stacked" not in self.made:
            self.made["stacked"] = Stacked(self)
        return self.made["stacked"]

    def sessions(self, n):
        """onnxruntime sessions of the first n models: one thread each, float32 as
        the converter makes them."""
        if "onnx" not in self.made:
            import onnxruntime
            from skl2onnx import to_onnx

            o = onnxruntime.SessionOptions()
            o.intra_op_num_threads = o.inter_op_num_threads = 1
            self.made["onnx"] = [
                onnxruntime.InferenceSession(to_onnx(m, x[:1].astype(np.float32), target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString(), o)
                for m, x in zip(self.models[:n], self.x)
            ]
        return self.made["onnx"]


class Stacked:
    """Parameters of all models stacked, to be scored in one expression a block of
    models: what an expert does who leaves scikit-learn. Shorter models are padded
    with coefficients of 0. The block is the one that runs fastest here."""

    def __init__(self, s):
        svms = [m[1] for m in s.models]
        most = max(len(m.support_vectors_) for m in svms)
        n, _, features = s.x.shape
        self.x = s.x
        self.mean = np.array([m[0].mean_ for m in s.models])[:, None, :]
        self.scale = np.array([m[0].scale_ for m in s.models])[:, None, :]
        self.sv, self.coef = np.zeros((n, most, features)), np.zeros((n, most, 1))
        for i, m in enumerate(svms):
            k = len(m.support_vectors_)
            self.sv[i, :k], self.coef[i, :k, 0] = m.support_vectors_, m.dual_coef_[0]
        self.gamma = np.array([m._gamma for m in svms])[:, None, None]
        self.intercept = np.array([m.intercept_ for m in svms])
        best = None
        for block in (1, 2, 4, 8, 16, 64, 256, n):
            self.block = min(block, n)
            self.buffer = np.empty((self.block, ROWS, most))
            self.decisions()
            t = min(self.timed() for _ in range(3))
            if best is None or t < best[0]:
                best = (t, self.block)
        self.block = best[1]
        self.buffer = np.empty((self.block, ROWS, most))

    def timed(self):
        t = time.process_time()
        self.decisions()
        return time.process_time() - t

    def decisions(self):
        n = len(self.x)
        out = np.empty((n, ROWS))
        for a in range(0, n, self.block):
            b = min(n, a + self.block)
            k, z = self.buffer[: b - a], (self.x[a:b] - self.mean[a:b]) / self.scale[a:b]
            sv = self.sv[a:b].transpose(0, 2, 1)
            if z.shape[2] == 1:
                np.subtract(z, sv, out=k)
                np.multiply(k, k, out=k)
            else:  # |z − s|² = |z|² − 2 z·s + |s|², by the BLAS
                np.matmul(z, sv, out=k)
                k *= -2
                k += (z * z).sum(axis=2, keepdims=True)
                k += (sv * sv).sum(axis=1, keepdims=True)
            np.multiply(k, -self.gamma[a:b], out=k)
            np.exp(k, out=k)
            np.add(np.matmul(k, self.coef[a:b])[:, :, 0], self.intercept[a:b], out=out[a:b])
        return out


sets = {}


def run(s, what, passes, n):
    if what == "load":
        for _ in range(passes):
            for f in s.files:
                pickle.loads(f)
    elif what == "score":
        for _ in range(passes):
            for m, x in zip(s.models, s.x):
                m.predict(x)
    elif what == "stacked":
        st = s.stacked()
        for _ in range(passes):
            st.decisions() > 0
    elif what == "onnx":
        inputs = [(o, {o.get_inputs()[0].name: x.astype(np.float32)}) for o, x in zip(s.sessions(n), s.x)]
        for _ in range(passes):
            for o, x in inputs:
                o.run(None, x)
        return len(inputs)
    else:
        raise ValueError(f"there is no operation {what}")
    return len(s.files)


def answers(s, what, n, out):
    """The predictions of all rows, then their decision values."""
    if what == "stacked":
        d = s.stacked().decisions()
        p = np.where(d > 0, 1.0, -1.0)
    elif what == "onnx":
        got = [o.run(None, {o.get_inputs()[0].name: x.astype(np.float32)}) for o, x in zip(s.sessions(n), s.x)]
        p, d = np.array([g[0].ravel() for g in got], float), np.array([g[1].ravel() for g in got], float)
    else:
        p = np.array([m.predict(x) for m, x in zip(s.models, s.x)], float)
        d = np.array([m.decision_function(x) for m, x in zip(s.models, s.x)])
    np.concatenate([p.ravel(), d.ravel()]).astype("<f8").tofile(out)


def check(folder, file, out):
    """Scores rows that a run of score wrote: keys and values as lines in a file."""
    groups = {}
    with open(file) as f:
        for line in f:
            device, tag, value = line.rstrip("\n").split(",")
            groups.setdefault((device, tag), []).append(float(value))
    p, d = [], []
    for (device, tag), values in groups.items():
        with open(f"{folder}/model_{device}_{tag}", "rb") as f:
            m = pickle.load(f)
        x = np.array(values)[:, None]
        p.append(m.predict(x)), d.append(m.decision_function(x))
    np.concatenate(p + d).astype("<f8").tofile(out)


def handle(q):
    if q["op"] == "check":
        check(q["folder"], q["in"], q["out"])
        return {}
    if q["op"] == "versions":
        return versions()
    name = q["set"]
    if name not in sets:
        sets.clear()
        sets[name] = Set(q["folder"])
    s, n = sets[name], q.get("models", 0)
    if q["op"] == "answers":
        answers(s, q["what"], n, q["out"])
        return {}
    if q["what"] in ("stacked", "onnx"):
        run(s, q["what"], 0, n)  # the first call isn't measured
    wall, cpu = time.perf_counter(), time.process_time()
    units = run(s, q["what"], q["passes"], n)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "units": units * q["passes"]}


def versions():
    import platform

    import joblib, pandas, scipy, sklearn
    from threadpoolctl import threadpool_info

    out = {"Python": platform.python_version(), "NumPy": np.__version__, "pandas": pandas.__version__, "SciPy": scipy.__version__,
           "scikit-learn": sklearn.__version__, "joblib": joblib.__version__}
    for name in ("onnxruntime", "skl2onnx"):
        try:
            out[name] = __import__(name).__version__
        except ImportError:
            pass
    blas = {f'{i["internal_api"]} {i.get("architecture", "")}, {i["num_threads"]} thread' for i in threadpool_info() if i["user_api"] == "blas"}
    return {"versions": out | {"BLAS": "; ".join(sorted(blas))}}


for line in sys.stdin:
    try:
        reply = handle(json.loads(line))
    except Exception as e:
        reply = {"error": f"{type(e).__name__}: {e}"[:2000]}
    print(json.dumps(reply), flush=True)
