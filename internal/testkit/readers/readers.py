"""Reads a Delta table with delta-rs and with DuckDB's delta_scan; prints what each of them reads.

usage: readers.py TABLE VALUE_COLUMN
"""
import json
import sys
from pathlib import Path

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

path, column = sys.argv[1:]
# With deltalake's own file system Python sometimes aborts at its end (apache/arrow#34314).
arrow = DeltaTable(path).to_pyarrow_table(filesystem=SubTreeFileSystem(path, LocalFileSystem()))
[extension] = Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")
query = f'SELECT count(*), sum("{column}"), epoch_us(min("TS")), epoch_us(max("TS")), count(DISTINCT "Device" || \'/\' || "Tag") FROM '
seen = {
    "delta-rs": duckdb.sql(query + "arrow").fetchall()[0],
    "duckdb": duckdb.execute(query + "delta_scan(?)", [path]).fetchall()[0],
}
print(json.dumps(seen))
