"""Runs the queries of standard input, a JSON list, in DuckDB over readings, and prints their rows."""

import json
import sys

import duckdb

readings, limits = sys.argv[1:]
db = duckdb.connect()
db.execute(
    "create table r as select *, epoch_us(TS) as us from read_json(?, format='newline_delimited', "
    "columns={N: 'BIGINT', TS: 'TIMESTAMP', Device: 'VARCHAR', Tag: 'BIGINT', Value: 'DOUBLE'})",
    [readings],
)
db.execute("create table limits as select * from read_csv(?, header=true, all_varchar=true)", [limits])
json.dump([db.execute(q).fetchall() for q in json.load(sys.stdin)], sys.stdout)
