"""Reads a Delta table with delta-rs and with DuckDB; prints what each sees.

usage: readers.py TABLE VALUE_COLUMN
"""
import json
import sys

import duckdb
from deltalake import DeltaTable

path, column = sys.argv[1:]
table = DeltaTable(path)
arrow = table.to_pyarrow_table()
files = table.file_uris()
query = f'SELECT count(*), sum("{column}"), epoch_us(min("TS")), epoch_us(max("TS")), count(DISTINCT "Device" || \'/\' || "Tag") FROM '
seen = {
    "delta-rs": duckdb.sql(query + "arrow").fetchall()[0],
    "duckdb": duckdb.execute(query + "read_parquet(?)", [files]).fetchall()[0],
}
print(json.dumps(seen))
