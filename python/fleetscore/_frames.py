"""DataFrames of pandas and Polars, and the files that the program reads and writes.

Rows go to the program and come back as Arrow; without pyarrow, those of pandas as CSV.
"""
from __future__ import annotations

import importlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple


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

    def write(self, file: str, columns: Dict[str, Any], row: str, time: Optional[str]) -> None:
        """Writes columns, the rows' numbers under the name row, and for time, if it is
        named, a time for each row."""
        n = len(self.df)
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            series = [s.alias(name) for name, s in columns.items()]
            series.append(pl.Series(row, range(n), dtype=pl.Float64))
            if time:
                series.append(pl.Series(time, range(1, n + 1), dtype=pl.Int64).cast(pl.Datetime("us")))
            pl.DataFrame(series).write_ipc_stream(file)
            return
        np, pd = importlib.import_module("numpy"), importlib.import_module("pandas")
        if self.arrow is None:
            out = pd.DataFrame({name: s.array for name, s in columns.items()})
            out[row] = np.arange(n)
            if time:
                out[time] = np.arange(1, n + 1).astype("datetime64[us]")
            out.to_csv(file, index=False, date_format="%Y-%m-%dT%H:%M:%S.%f%z")
            return
        pa = self.arrow
        arrays, names = [], []
        for name, s in columns.items():
            arrays.append(arrow_column(pa, name, s))
            names.append(name)
        arrays.append(pa.array(np.arange(n, dtype="float64")))
        names.append(row)
        if time:
            arrays.append(pa.array(np.arange(1, n + 1), type=pa.int64()).cast(pa.timestamp("us")))
            names.append(time)
        table = pa.Table.from_arrays(arrays, names=names)
        with pa.OSFile(file, "wb") as f, pa.ipc.new_stream(f, table.schema) as out:
            out.write_table(table)

    def scored(self, file: str, row: str) -> Tuple[Any, Any]:
        """Prediction and Score of each row as arrays; NaN where there is none."""
        np = importlib.import_module("numpy") if self.kind == "pandas" or self.format == "csv" else None
        n = len(self.df)
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            got = pl.read_ipc(file, columns=[row, "Prediction", "Score"])
            if got.height == n:
                return got["Prediction"], got["Score"]
            all_rows = pl.DataFrame({row: pl.Series(range(n), dtype=pl.Float64)})
            got = all_rows.join(got, on=row, how="left").sort(row)
            return got["Prediction"], got["Score"]
        if self.format == "csv":
            got = read_csv(file, {})
            rows, columns = got[row].to_numpy(), [got["Prediction"].to_numpy(dtype="float64"), got["Score"].to_numpy(dtype="float64")]
        else:
            with self.arrow.memory_map(file) as f:  # only the columns that are needed are read
                table = self.arrow.ipc.open_file(f).read_all()
                rows, columns = table[row], [table[c].to_numpy() for c in ("Prediction", "Score")]  # the DataFrame gets copies
        if len(rows) == n:
            return columns[0], columns[1]
        out = []
        for values in columns:
            full = np.full(n, np.nan)
            full[np.asarray(rows).astype("int64")] = values
            out.append(full)
        return out[0], out[1]

    def coverage(self, file: str, key: List[str], without: Sequence[str]) -> Callable[[], Any]:
        """What makes the coverage as a DataFrame of the same kind, without some columns; keys are texts. The file is read now."""
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            got = pl.read_ipc(file).drop(list(without))
            return lambda: got.with_columns([pl.col(c).cast(pl.Utf8) for c, t in zip(got.columns, got.dtypes) if t == pl.Categorical])
        if self.format == "csv":
            pd = importlib.import_module("pandas")
            got = read_csv(file, {k: str for k in key + ["model", "reason", "outcome"]})
            for c in ("first", "last"):
                got[c] = pd.to_datetime(got[c], utc=True, format="ISO8601" if pd.__version__ >= "2" else None)
            return lambda: got.drop(columns=list(without))
        pa = self.arrow
        with pa.OSFile(file, "rb") as f:
            table = pa.ipc.open_file(f).read_all()
        return lambda: texts(pa, table.select([c for c in table.column_names if c not in without])).to_pandas()

    def extended(self, prediction: Any, score: Any) -> Any:
        """The DataFrame with the two columns, which replace earlier ones."""
        if self.kind == "polars":
            pl = importlib.import_module("polars")
            return self.df.with_columns([pl.Series("Prediction", prediction), pl.Series("Score", score)])
        return self.df.assign(Prediction=prediction, Score=score)


def texts(pa: Any, table: Any) -> Any:
    """The table with texts where it has numbers of texts."""
    fields = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))


def arrow_column(pa: Any, name: str, s: Any) -> Any:
    """A column of pandas as Arrow. Columns of mixed objects, as keys often are, are texts."""
    try:
        a = pa.array(s, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if s.isna().any():
            raise ValueError("column %s holds missing values and values of several types" % name) from None
        a = pa.array(s.astype(str))
    return a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a


def read_csv(file: str, types: Dict[str, Any]) -> Any:
    pd = importlib.import_module("pandas")
    exact = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}  # newer ones always are
    return pd.read_csv(file, dtype=types, keep_default_na=False, na_values={c: [""] for c in ("Prediction", "Score", "first", "last")}, **exact)
