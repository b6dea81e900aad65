"""Writes support vector machines with rows on both sides of a change of the label, exact to
the last bit, and neighbours with their own training rows.

    python edges.py edges/RELEASE.zip

The file holds pickles and edges.json: rows and labels of each. Made with the releases
0.22.1, in which libsvm adds products itself, and 1.9.1, in which a BLAS does.
"""
import json
import pickle
import sys
import zipfile

import numpy as np
import sklearn
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, OneClassSVM

rng = np.random.RandomState(3)


def edge(m, x, n):
    """Pairs of neighbouring rows with different labels, and the rows next to them."""
    p, rows = m.predict(x), []
    ins, outs = np.flatnonzero(p == p.max()), np.flatnonzero(p != p.max())
    for _ in range(n):
        a, b = x[rng.choice(ins)].copy(), x[rng.choice(outs)].copy()
        label = m.predict(a[None])[0]
        for _ in range(80):
            c = (a + b) / 2
            if (c == a).all() or (c == b).all():
                break
            if m.predict(c[None])[0] == label:
                a = c
            else:
                b = c
        rows += [a, b, np.nextafter(a, a + 1), np.nextafter(b, b - 1)]
    return np.array(rows)


cases = []
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    def write(name, data):
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(info, data)

    def save(name, m, q):
        write(name + ".pickle", pickle.dumps(m, 2))
        cases.append({"name": name, "x": q.tolist(), "want": [float(v) for v in m.predict(q)]})

    for cols in (1, 3):
        x = rng.normal(0, 1, (80, cols))
        y = (x.sum(1) + rng.normal(0, 0.3, 80) > 0).astype(int)
        for kernel in ("linear", "poly"):
            if cols == 1 or sklearn.__version__.startswith("0.22"):
                for name, m in (("OneClassSVM", OneClassSVM(kernel=kernel, nu=0.2, gamma=0.3, coef0=0.5).fit(x)), ("SVC", SVC(kernel=kernel, gamma=0.3, coef0=0.5).fit(x, y))):
                    save("%s_%s_%d" % (name, kernel, cols), m, edge(m, x, 12))
        for algorithm in ("brute", "kd_tree", "ball_tree"):
            for weights in ("uniform", "distance"):
                for kind, data in (("plain", x), ("far", x * 1e3 + 1e6)):
                    m = KNeighborsClassifier(5, weights=weights, algorithm=algorithm).fit(data, rng.randint(0, 3, 80))
                    if algorithm == "brute" or cols == 1:
                        save("neighbours_%s_%s_%s_%d" % (algorithm, weights, kind, cols), m, data)
    write("edges.json", json.dumps(cases))
