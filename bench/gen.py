"""Makes the models that the benchmarks score.

    gen.py set NAME COUNT FOLDER      COUNT models, each trained on data of its own
    gen.py fleet COUNT FOLDER         COUNT files model_<Device>_<Tag>, see below

A set is three files: models.bin (pickles one after the other), models.u64 (where
each begins, and the end), rows.f64 (ROWS rows for each model, row-major). The
rows lie around the training data, so that some are anomalies.

A fleet trains BASES models with scikit-learn and varies their numbers: another
mean and scale of the readings, support vectors moved a little, and the intercept
that puts them on the boundary again, as training does. The numbers are put into
the bytes of the pickles that scikit-learn wrote, so every file is a real pickle
that scikit-learn loads; a sample is loaded and checked. fleet.f64 tells mean
and scale of each model's readings.
"""
import os
import pickle
import sys
from multiprocessing import Pool

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

ROWS = 60
BASES = 48
TAGS = 10  # sensors of a device


def train(name, seed):
    """One model of a set, and rows for it."""
    rng = np.random.default_rng([seed, sum(name.encode())])
    features = int(name.rsplit("_", 1)[1])
    mean, sd = rng.uniform(10, 100, features), rng.uniform(1, 20, features)
    x = rng.normal(mean, sd, (1000, features))
    if name.startswith("ref_"):
        estimator = OneClassSVM(nu=1e-4, gamma=0.01)
    elif name.startswith("sv200_"):
        estimator = OneClassSVM(nu=0.2, gamma=0.5 / features)
    elif name.startswith("if100_"):
        estimator = IsolationForest(n_estimators=100, max_samples=256, random_state=seed)
    else:
        sys.exit(f"there is no set {name}")
    model = make_pipeline(StandardScaler(), estimator).fit(x)
    return pickle.dumps(model), rng.normal(mean, 1.3 * sd, (ROWS, features))


def make_set(name, count, folder):
    os.makedirs(folder, exist_ok=True)
    ends, rows = [0], []
    with open(f"{folder}/models.bin", "wb") as f:
        for i in range(count):
            data, x = train(name, i)
            f.write(data)
            ends.append(ends[-1] + len(data))
            rows.append(x)
    np.array(ends, "<u8").tofile(f"{folder}/models.u64")
    np.array(rows, "<f8").tofile(f"{folder}/rows.f64")


class Base:
    """A trained model as bytes, and the positions of its numbers in them."""

    def __init__(self, seed):
        while True:
            model = pickle.loads(train("ref_1", seed)[0])
            scaler, svm = model[0], model[1]
            if len(svm.support_vectors_) > 1:  # a model with one support vector flags every row
                break
            seed += 1000
        self.bytes = np.frombuffer(pickle.dumps(model), np.uint8)
        self.vectors = svm.support_vectors_.ravel()
        self.coef = svm.dual_coef_.ravel()
        self.gamma = svm._gamma
        self.places = {}
        for name, numbers in (
            ("mean", scaler.mean_), ("scale", scaler.scale_), ("var", scaler.var_),
            ("vectors", svm.support_vectors_), ("intercept", svm.intercept_), ("offset", svm.offset_),
        ):
            self.places[name] = self.find(np.asarray(numbers, "<f8").tobytes())

    def find(self, what):
        data, at, out = self.bytes.tobytes(), -1, []
        while (at := data.find(what, at + 1)) >= 0:
            out.append(at)
        if not out:
            sys.exit("a number of the model is not in its pickle with the same bytes as in memory")
        return out

    def vary(self, count, rng):
        """count pickles, as rows of bytes, with mean and scale of each."""
        mean, scale = rng.uniform(10, 100, (count, 1)), rng.uniform(1, 20, (count, 1))
        sv = self.vectors + rng.normal(0, 0.05, (count, len(self.vectors)))
        kernel = np.exp(-self.gamma * (sv[:, :, None] - sv[:, None, :]) ** 2)
        rho = (kernel @ self.coef).mean(axis=1, keepdims=True)
        out = np.tile(self.bytes, (count, 1))
        for name, numbers in (
            ("mean", mean), ("scale", scale), ("var", scale**2),
            ("vectors", sv), ("intercept", -rho), ("offset", rho),
        ):
            raw = np.ascontiguousarray(numbers, "<f8").view(np.uint8)
            for at in self.places[name]:
                out[:, at:at + raw.shape[1]] = raw
        return out, np.hstack([mean, scale])


def make_share(share):
    folder, base, first, count = share
    files, numbers = Base(base).vary(count, np.random.default_rng([7, base, first]))
    for i in range(count):
        n = first + i
        fd = os.open(f"{folder}/model_{n // TAGS + 1}_{n % TAGS + 1}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.write(fd, files[i])
        os.close(fd)
    check(files[count // 2], numbers[count // 2])
    return numbers


def check(data, numbers):
    model = pickle.loads(data.tobytes())
    scaler, svm = model[0], model[1]
    boundary = model.decision_function(scaler.inverse_transform(svm.support_vectors_))
    rows = np.random.default_rng(1).normal(*numbers, (1000, 1))
    assert np.allclose([scaler.mean_[0], scaler.scale_[0]], numbers)
    assert np.abs(boundary).max() < 0.1 * np.abs(svm.dual_coef_).sum(), boundary
    assert (model.predict(rows) == 1).mean() > 0.5


def make_fleet(count, folder):
    os.makedirs(folder, exist_ok=True)
    per = -(-count // BASES)
    shares = [(folder, b, b * per, min(per, count - b * per)) for b in range(BASES) if b * per < count]
    with Pool(os.cpu_count()) as pool:
        np.vstack(pool.map(make_share, shares, chunksize=1)).astype("<f8").tofile(f"{folder}.f64")


if __name__ == "__main__":
    if sys.argv[1] == "set":
        make_set(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        make_fleet(int(sys.argv[2]), sys.argv[3])
