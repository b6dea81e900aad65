"""DataFrames of pandas and Polars, and the files that the program reads and writes.

Rows go to the program and come back as Arrow; without pyarrow, those of pandas as CSV.
"""
from __future__ import annotations

import importlib
import io
import mmap
import os
import weakref
from typing import IO, Any, Dict, List, Sequence

BATCH_BYTES = 1 << 28  # of a part of an Arrow stream: most DataFrames are one part, and the program refuses parts of 1 GiB


def kind(df: Any) -> str:
    """pandas or polars."""
    module = type(df).__module__.split(".")[0]
    if type(df).__name__ == "DataFrame" and module in ("pandas", "polars"):
        return module
    for base in type(df).__mro__:  # a subclass, such as GeoDataFrame
        if base.__name__ == "DataFrame" and base.__module__.split(".")[0] in ("pandas", "polars"):
            return base.__module__.split(".")[0]
    if type(df).__name__ == "LazyFrame":
        raise TypeError("a LazyFrame has no rows yet; give df.collect()")
    raise TypeError("the rows must be a DataFrame of pandas or Polars, not %s.%s" % (type(df).__module__, type(df).__qualname__))


def pyarrow() -> Any:
    """The module, or None."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        return None


class Exchange:
    """How one DataFrame is written and results are read."""

    def __init__(self, df: Any) -> None:
        self.df = df
        self.kind = kind(df)
        self.arrow = pyarrow() if self.kind == "pandas" else None
        self.format = "csv" if self.kind == "pandas" and self.arrow is None else "arrow"

    def column(self, name: Any) -> Any:
        """A column by its name; ValueError if there isn't exactly one."""
        columns = list(self.df.columns)
        n = columns.count(name)
        if n != 1:
            raise ValueError("the DataFrame has %s column %r; it has: %s" % ("more than one" if n else "no", name, ", ".join(map(str, columns))))
        return self.df[name]

    def write(self, file: IO[bytes], columns: Dict[str, Any]) -> None:
        """Writes columns."""
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            pl.DataFrame([s.alias(name) for name, s in columns.items()]).write_ipc_stream(file)
            return
        if self.arrow is None:
            pd = importlib.import_module("pandas")
            out = pd.DataFrame({name: s.array for name, s in columns.items()})
            out.to_csv(file, mode="wb", index=False, date_format="%Y-%m-%dT%H:%M:%S.%f%z")
            return
        pa = self.arrow
        arrays, names = [], []
        for name, s in columns.items():
            arrays.append(arrow_column(pa, name, s))
            names.append(name)
        table = pa.Table.from_arrays(arrays, names=names)
        with pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, max_chunksize=max(1, BATCH_BYTES * len(table) // max(1, table.nbytes)))

    def coverage(self, file: bytes, key: List[str], without: Sequence[str]) -> Any:
        """The coverage as a DataFrame of the same kind, without some columns; keys are texts."""
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            got = pl.read_ipc(file).drop(list(without))
            return got.with_columns([pl.col(c).cast(pl.Utf8) for c, t in zip(got.columns, got.dtypes) if t == pl.Categorical])
        if self.format == "csv":
            pd = importlib.import_module("pandas")
            got = read_csv(io.BytesIO(file), {k: str for k in key + ["model", "reason", "outcome"]})
            for c in ("first", "last"):
                got[c] = pd.to_datetime(got[c], utc=True, format="ISO8601" if pd.__version__ >= "2" else None)
            return got.drop(columns=list(without))
        table = self.arrow.ipc.open_file(self.arrow.py_buffer(file)).read_all()
        return texts(self.arrow, table.select([c for c in table.column_names if c not in without])).to_pandas()

    def extended(self, results: IO[bytes]) -> Any:
        """The DataFrame with Prediction and Score, which replace earlier columns of these names. NaN (in Polars null) says that a row has none."""
        np = importlib.import_module("numpy")
        n = len(self.df)
        both = np.frombuffer(mapped(results, 16 * n) if n else b"", dtype="float64")
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            return self.df.with_columns([pl.Series("Prediction", both[:n], nan_to_null=True), pl.Series("Score", both[n:], nan_to_null=True)])
        pd = importlib.import_module("pandas")
        prediction, score = (pd.Series(v, index=self.df.index, copy=False) for v in (both[:n], both[n:]))
        return self.df.assign(Prediction=prediction, Score=score)


def mapped(file: IO[bytes], size: int) -> Any:
    """The memory that the program wrote to; what is changed later is a copy of this process's own.

    It needs no open file, of which a process may have few: with mmap.mmap each result would keep one.
    """
    if os.fstat(file.fileno()).st_size < size:
        raise ValueError("the program gave fewer results than there are rows")
    ctypes = importlib.import_module("ctypes")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
    at = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, file.fileno(), 0)
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_char * size).from_address(at)
    weakref.finalize(memory, libc.munmap, at, size).atexit = False  # it may be in use until the very end
    return memory


def texts(pa: Any, table: Any) -> Any:
    """The table with texts where it has numbers of texts."""
    fields = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))


def arrow_column(pa: Any, name: str, s: Any) -> Any:
    """A column of pandas as Arrow. Columns of mixed objects, as keys often are, are texts."""
    try:
        # To find missing numbers takes time, and the program takes NaN for missing.
        a = pa.array(s.values) if str(s.dtype) == "float64" else pa.array(narrow(s), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # the last one of whole numbers with more than 64 bits
        if s.isna().any():
            raise ValueError("column %s holds missing values and values of several types" % name) from None
        a = pa.array(s.astype(str))
    return a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a


def narrow(s: Any) -> Any:
    """Whole numbers in as few bytes as hold them all: most keys are small, and each byte of a row is copied twice."""
    values = getattr(s, "values", None)
    if str(getattr(values, "dtype", "")) != "int64" or len(values) == 0:
        return s
    np = importlib.import_module("numpy")
    least, most = values.min(), values.max()
    for t in ("int16", "int32"):
        limits = np.iinfo(t)
        if limits.min <= least and most <= limits.max:
            return values.astype(t)
    return s


def read_csv(file: Any, types: Dict[str, Any]) -> Any:
    pd = importlib.import_module("pandas")
    exact = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}  # newer ones always are
    return pd.read_csv(file, dtype=types, keep_default_na=False, na_values={c: [""] for c in ("Prediction", "Score", "first", "last")}, **exact)
