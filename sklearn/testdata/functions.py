"""Writes the results of NumPy's functions of one number where they are hard to compute:
near 0 and 1, for subnormal and huge numbers, around multiples of pi.

    python functions.py functions.zip

The file holds functions.json: a list of values, and for each function its results, as
base64 of little-endian float64. Made with NumPy 2.
"""
import base64
import json
import sys
import zipfile

import numpy as np

from wide import FUNCTIONS

np.seterr(all="ignore")
near = np.concatenate([[0.0, 5e-324, 1e-323, 3e-310, 2.2e-308, 2.3e-308, 1e-300, 1e-160, 1e-50, 1e-20, 1e-17, 1e-16, 1e-12, 1e-9, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.99],
                       1 - 2.0 ** -np.arange(1, 54), 1 + 2.0 ** -np.arange(0, 53), [1.5, 2, 2.5, 3, 3.5, np.e, np.pi, np.pi / 2, 2 * np.pi, 5, 7, 10, 20, 22, 30, 37, 50, 100, 1e3, 355.0, 700, 709, 709.7, 710, 745, 1e4, 1e5, 1e6, 1e8, 1e10, 1e15, 1e16, 1e22, 1e100, 1e154, 1e200, 1e300, 1.7e308]])
rng = np.random.RandomState(5)
x = np.concatenate([near, -near, rng.normal(0, 1, 200), rng.normal(0, 30, 100), 1 + rng.normal(0, 1e-3, 100), 10 ** rng.uniform(-300, 300, 100)])


def pack(a):
    return base64.b64encode(np.ascontiguousarray(a, dtype="<f8").tobytes()).decode()


out = {"numpy": np.__version__, "x": pack(x), "functions": {f: pack(getattr(np, f)(x)) for f in FUNCTIONS}}
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    info = zipfile.ZipInfo("functions.json")
    info.compress_type = zipfile.ZIP_DEFLATED
    z.writestr(info, json.dumps(out))
