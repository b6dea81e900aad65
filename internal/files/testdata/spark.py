"""Writes Delta tables with Spark, in the forms that its users have.

usage: spark.py FOLDER [JARS]

Each table lies in a folder of its own; FOLDER/expected.json says how many rows it
has and what the sum of its values is, as Spark itself reads them.
"""
import json
import os
import sys

from pyspark.sql import SparkSession

folder = sys.argv[1]
jars = ("spark.jars", sys.argv[2]) if len(sys.argv) > 2 else ("spark.jars.packages", "io.delta:delta-spark_2.12:3.3.2")
spark = (
    SparkSession.builder.master("local[2]")
    .config(*jars)
    .config("spark.driver.memory", "1g")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.databricks.delta.snapshotPartitions", "2")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
expected = {}


def create(name, partitioned="", properties=""):
    path = os.path.join(folder, name)
    columns = "TS TIMESTAMP, Device STRING, Tag STRING, Value DOUBLE, date DATE"
    spark.sql(f"CREATE TABLE delta.`{path}` ({columns}) USING delta {partitioned} TBLPROPERTIES ('delta.checkpointInterval' = '4' {properties})")
    return f"delta.`{path}`"


def insert(table, day, values):
    rows = ", ".join(
        f"(TIMESTAMP '2026-11-{day:02d} {i // 60:02d}:{i % 60:02d}:00', '{1 + i % 2}', 'a b', {v}, DATE '2026-11-{day:02d}')" for i, v in enumerate(values)
    )
    spark.sql(f"INSERT INTO {table} VALUES {rows}")


def note(name, table, value="Value"):
    n, total = spark.sql(f"SELECT count(*), sum({value}) FROM {table}").first()
    expected[name] = {"rows": n, "sum": total, "value": value}


t = create("checkpoints", "PARTITIONED BY (date)")
for day in range(1, 8):
    insert(t, day, range(10))
spark.sql(f"DELETE FROM {t} WHERE date = DATE '2026-11-02'")
note("checkpoints", t)

t = create("mapped", "PARTITIONED BY (date)", ", 'delta.columnMapping.mode' = 'name'")
insert(t, 1, range(10))
spark.sql(f"ALTER TABLE {t} RENAME COLUMN Value TO `Reading of the sensor`")
spark.sql(f"ALTER TABLE {t} ADD COLUMNS (Extra DOUBLE)")
spark.sql(f"INSERT INTO {t} (TS, Device, Tag, `Reading of the sensor`, Extra, date) VALUES (TIMESTAMP '2026-11-02 00:00:00', '1', 'a b', 5, 7, DATE '2026-11-02')")
note("mapped", t, "`Reading of the sensor`")
expected["mapped"]["value"] = "Reading of the sensor"

t = create("ids", "", ", 'delta.columnMapping.mode' = 'id'")
insert(t, 1, range(10))
spark.sql(f"ALTER TABLE {t} RENAME COLUMN Value TO Reading")
insert(t, 2, range(10))
note("ids", t, "Reading")

t = create("deletions", "PARTITIONED BY (date)", ", 'delta.enableDeletionVectors' = 'true'")
insert(t, 1, range(400))
insert(t, 2, range(400))
spark.sql(f"DELETE FROM {t} WHERE Value % 3 = 0 AND date = DATE '2026-11-01'")
spark.sql(f"DELETE FROM {t} WHERE Value = 399 AND date = DATE '2026-11-02'")
spark.sql(f"UPDATE {t} SET Value = 1000 WHERE Value = 7 AND date = DATE '2026-11-02'")
for day in range(3, 7):
    insert(t, day, range(3))
note("deletions", t)

for form in ("json", "parquet"):
    spark.conf.set("spark.databricks.delta.checkpointV2.topLevelFileFormat", form)
    name = "checkpoints-v2-" + form
    t = create(name, "", ", 'delta.checkpointPolicy' = 'v2'")
    for day in range(1, 7):
        insert(t, day, range(10))
    note(name, t)

with open(os.path.join(folder, "expected.json"), "w") as f:
    json.dump(expected, f)
