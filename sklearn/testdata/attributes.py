"""Adds the names of all parameters and attributes of the supported classes, as the
release that runs it has them, to a file.

    python attributes.py attributes.json

The parameters come from signatures, the attributes from estimators that live.py
fits. TestAttributes judges each: it is looked at, or known to be inert. Run it with
each release from 0.19 on, one after the other; a name that is there stays.
"""
import inspect
import json
import os
import sys

import numpy as np

import live
import wide

SUPPORTED = set(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "classes.txt")).read().split())
found = {}


def note(obj, depth=0):
    """Notes an object's attributes, and those of estimators in it."""
    if depth > 6:
        return
    if isinstance(obj, (list, tuple)) or isinstance(obj, np.ndarray) and obj.dtype == object:
        for v in list(np.ravel(obj) if isinstance(obj, np.ndarray) else obj)[:6]:
            note(v, depth + 1)
    elif hasattr(obj, "get_params") and type(obj).__module__.startswith("sklearn."):
        name = type(obj).__name__
        if name in SUPPORTED:
            names = found.setdefault(name, set())
            names.update(vars(obj))
            names.update(p for p in inspect.signature(type(obj).__init__).parameters if p not in ("self", "args", "kwargs", "params"))
        for v in list(vars(obj).values()):
            note(v, depth + 1)


def main():
    for r in range(6):
        for i, f in enumerate(live.FAMILIES + wide.FAMILIES):
            d = live.Draw(r * 1000 + i)
            try:
                est, x, y = live.case(d, f)
                note(est.fit(x) if y is None else est.fit(x, y))
            except Exception:  # parameters that don't go together
                pass
    path = sys.argv[1]
    known = json.load(open(path)) if os.path.exists(path) else {}
    for name, names in found.items():
        known[name] = sorted(set(known.get(name, [])) | names)
    with open(path, "w") as fh:
        json.dump(known, fh, indent=0, sort_keys=True)


if __name__ == "__main__":
    main()
