"""Makes a fleet of many kinds of models: good ones, and some that do harm.

    mixed.py FLEET OUT

FLEET is a folder of models of gen.py. OUT/good gets the good models alone, and OUT/mixed all. Prints how
many are good, and what there is.
"""
import glob
import os
import pickle
import shutil
import sys

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

import odd

fleet, out = sys.argv[1:3]
x = np.random.default_rng(1).normal(50, 5, size=(200, 1))
kinds = {"a class of one's own": make_pipeline(odd.Scaled(3.0), OneClassSVM(nu=0.1)).fit(x)}
try:
    from pyod.models.hbos import HBOS
    kinds["pyod"] = HBOS().fit(x)
except ImportError:
    pass
files = sorted(glob.glob(os.path.join(fleet, "model_*")))
bad = {"never ends": [odd.Endless()], "takes 8 GiB": [odd.Glutton()], "ends its process": [odd.Quitter()] * 4, "crashes": [odd.Crasher()] * 4}
places = iter(range(7, len(files), len(files) // 40))  # among the others
for folder in "good", "mixed":
    os.makedirs(os.path.join(out, folder))
    for file in files:
        shutil.copy(file, os.path.join(out, folder))


def put(model, folders):
    name = os.path.basename(files[next(places)])
    for folder in "good", "mixed":
        os.remove(os.path.join(out, folder, name))
    for folder in folders:
        with open(os.path.join(out, folder, name), "wb") as f:
            pickle.dump(model, f)


for model in kinds.values():
    for _ in range(5):
        put(model, ["good", "mixed"])
put(odd.Forker(), ["good", "mixed"])
for models in bad.values():
    for model in models:
        put(model, ["mixed"])
n = sum(map(len, bad.values()))
print(len(files) - n)
print(", ".join(["scikit-learn"] + ["5 of " + k for k in kinds] + ["1 that forks"]) + "; " + ", ".join("%d that %s" % (len(m), k) for k, m in bad.items()))
