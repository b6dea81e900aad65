"""DuckDB does what the stream path does: readings of a file, averages of 5 seconds per device and tag,
Parquet. Its answer is the CPU time and wall time of this process's work. With a folder of Fleetscore's
rows it compares the rows with its own."""

import json
import resource
import sys
import time

import duckdb

readings, out = sys.argv[1:3]
columns = "{TS: 'TIMESTAMP', Device: 'BIGINT', Tag: 'BIGINT', Value: 'DOUBLE'}"


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


db = duckdb.connect()
db.execute("SET threads = 2")
began, before = time.monotonic(), cpu()
db.execute(f"""
    COPY (
        SELECT time_bucket(INTERVAL 5 SECOND, TS - INTERVAL 1 MICROSECOND, TIMESTAMP '2026-01-05') + INTERVAL 5 SECOND AS TS,
               Device, Tag, avg(Value) AS Value
        FROM read_json('{readings}', format = 'newline_delimited', columns = {columns})
        GROUP BY ALL
    ) TO '{out}' (FORMAT parquet)""")
answer = {"CPU": cpu() - before, "Wall": time.monotonic() - began, "Version": duckdb.__version__}
if len(sys.argv) > 3:
    db.execute(f"""
        CREATE VIEW ours AS SELECT TS::TIMESTAMP AS TS, Device::BIGINT AS Device, Tag::BIGINT AS Tag, Value
        FROM read_parquet('{sys.argv[3]}/date=*/hour=*/*.parquet', hive_partitioning = false)""")
    rows, differ = db.execute(f"""
        SELECT count(*), count(*) FILTER (WHERE a.Value IS NULL OR b.Value IS NULL OR abs(a.Value - b.Value) > 1e-9)
        FROM ours a FULL JOIN (SELECT * FROM '{out}' WHERE TS <= (SELECT max(TS) FROM ours)) b USING (TS, Device, Tag)""").fetchone()
    answer |= {"Rows": rows, "Differ": differ}
print(json.dumps(answer))
