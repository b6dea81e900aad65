"""Writes Delta tables: some with delta-rs, and by the protocol's own words those that
it can't write.

usage: tables.py FOLDER

Each table lies in a folder of its own; FOLDER/expected.json says how many rows it
has and what the sum of its values is, or which words its refusal has.
"""
import datetime as dt
import json
import os
import struct
import sys
import uuid
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

root = sys.argv[1]
expected = {}
START = dt.datetime(2026, 11, 25, tzinfo=dt.timezone.utc)


def rows(n, first=0, zone=dt.timezone.utc):
    return pa.table({
        "TS": [(START + dt.timedelta(minutes=first + i)).replace(tzinfo=zone) for i in range(n)],
        "Device": [f"d {i % 2}/x" for i in range(n)],
        "Value": [float(first + i) for i in range(n)],
    })


def read(path):
    # With deltalake's own file system Python sometimes aborts at its end (apache/arrow#34314).
    return DeltaTable(path).to_pyarrow_table(filesystem=SubTreeFileSystem(path, LocalFileSystem()))


def note(name, table):
    values = table.column("Value").to_pylist()
    expected[name] = {"rows": len(values), "sum": sum(v for v in values if v is not None)}


# --- delta-rs ---

path = os.path.join(root, "delta-rs")
for i in range(6):
    write_deltalake(path, rows(10, 10 * i), mode="append", partition_by=["Device"])
    if i == 3:
        DeltaTable(path).create_checkpoint()
DeltaTable(path).delete("Value < 5")
write_deltalake(path, rows(10, 60).append_column("Extra", pa.array([1.0] * 10)), mode="append", schema_mode="merge")
note("delta-rs", read(path))

path = os.path.join(root, "delta-rs cut")  # whose first commits are gone
for i in range(4):
    write_deltalake(path, rows(10, 10 * i), mode="append")
DeltaTable(path).create_checkpoint()
write_deltalake(path, rows(10, 40), mode="append")
note("delta-rs cut", read(path))
for i in range(4):
    os.remove(os.path.join(path, "_delta_log", f"{i:020d}.json"))

path = os.path.join(root, "without zone")
write_deltalake(path, rows(10, zone=None))
note("without zone", read(path))

path = os.path.join(root, "dates")
t = rows(10)
t = t.set_column(0, "TS", pa.array([dt.date(2026, 11, 1 + i) for i in range(10)]))
write_deltalake(path, t)
note("dates", t)

path = os.path.join(root, "by day")  # whose time is the partition, and stands in no file
for i in range(5):
    write_deltalake(path, t.slice(2 * i, 2), mode="append", partition_by=["TS"])
note("by day", t)

path = os.path.join(root, "without stamps")  # some rows of which have no time
t = rows(10)
t = t.set_column(0, "TS", pa.array([None] + t.column("TS").to_pylist()[1:], pa.timestamp("us", "UTC")))
write_deltalake(path, t)
expected["without stamps"] = {"refused": "null"}

# --- by the protocol ---

FIELDS = [("TS", "timestamp"), ("Device", "string"), ("Value", "double")]
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data):
    out = ""
    for i in range(0, len(data), 4):
        n = int.from_bytes(data[i : i + 4], "big")
        digits = ""
        for _ in range(5):
            n, d = divmod(n, 85)
            digits = Z85[d] + digits
        out += digits
    return out


def vector(deleted, runs=False):
    """A RoaringBitmapArray in the portable form, of rows below 65536."""
    deleted = sorted(deleted)
    if runs:
        spans = [[deleted[0], 0]]
        for d in deleted[1:]:
            if d == sum(spans[-1]) + 1:
                spans[-1][1] += 1
            else:
                spans.append([d, 0])
        bitmap = struct.pack("<HH", 12347, 0) + b"\x01" + struct.pack("<HH", 0, len(deleted) - 1)
        bitmap += struct.pack("<H", len(spans)) + b"".join(struct.pack("<HH", a, n) for a, n in spans)
    else:
        bitmap = struct.pack("<II", 12346, 1) + struct.pack("<HH", 0, len(deleted) - 1) + struct.pack("<I", 16)
        bitmap += b"".join(struct.pack("<H", d) for d in deleted)
    return struct.pack("<I", 1681511377) + struct.pack("<Q", 1) + struct.pack("<I", 0) + bitmap


class Table:
    def __init__(self, name, features=(), mode=None):
        self.path = os.path.join(root, name)
        self.name, self.mode, self.version, self.all = name, mode, 0, []
        os.makedirs(os.path.join(self.path, "_delta_log"))
        fields = []
        for i, (column, kind) in enumerate(FIELDS):
            meta = {"delta.columnMapping.id": i + 1, "delta.columnMapping.physicalName": f"col-{i}"} if mode else {}
            fields.append({"name": column, "type": kind, "nullable": True, "metadata": meta})
        self.protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": list(features), "writerFeatures": list(features)}}
        if not features:
            self.protocol = {"protocol": {"minReaderVersion": 2 if mode else 1, "minWriterVersion": 5}}
        settings = {"delta.columnMapping.mode": mode} if mode else {}
        self.meta = {"metaData": {"id": str(uuid.uuid4()), "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps({"type": "struct", "fields": fields}), "partitionColumns": [], "configuration": settings, "createdTime": 0}}
        self.commit([self.protocol, self.meta])

    def commit(self, actions):
        with open(os.path.join(self.path, "_delta_log", f"{self.version:020d}.json"), "w") as f:
            f.write("\n".join(map(json.dumps, actions)) + "\n")
        self.version += 1

    def file(self, table, deletion=None, names=None):
        """Writes a data file and returns its add action."""
        name = f"part-{uuid.uuid4()}.parquet"
        if self.mode:
            names = names or [f"col-{i}" for i in range(len(FIELDS))]
            table = pa.table(table.columns, schema=pa.schema([pa.field(n, c.type, metadata={b"PARQUET:field_id": str(i + 1).encode()}) for i, (n, c) in enumerate(zip(names, table.columns))]))
        pq.write_table(table, os.path.join(self.path, name))
        add = {"path": name, "partitionValues": {}, "size": os.path.getsize(os.path.join(self.path, name)), "modificationTime": 0, "dataChange": True}
        times = [t.isoformat(timespec="milliseconds") for t in table.column(0).to_pylist()]
        column = table.column_names[0] if self.mode != "id" else "col-0"
        add["stats"] = json.dumps({"numRecords": len(times), "minValues": {column: min(times)}, "maxValues": {column: max(times)}, "nullCount": {column: 0}})
        if deletion:
            add["deletionVector"] = deletion
        return {"add": add}

    def stored(self, vectors):
        """Writes a file of deletion vectors and returns where each lies."""
        id, data, out = uuid.uuid4(), b"\x01", []
        for v, n in vectors:
            out.append({"storageType": "u", "pathOrInlineDv": "ab" + z85(id.bytes), "offset": len(data), "sizeInBytes": len(v), "cardinality": n})
            data += struct.pack(">I", len(v)) + v + struct.pack(">I", zlib.crc32(v))
        os.makedirs(os.path.join(self.path, "ab"), exist_ok=True)
        with open(os.path.join(self.path, "ab", f"deletion_vector_{id}.bin"), "wb") as f:
            f.write(data)
        return out

    def without(self, table, deleted):
        keep = [i for i in range(table.num_rows) if i not in deleted]
        self.all.append(table.take(keep))

    def done(self):
        note(self.name, pa.concat_tables(self.all))


for mode in ("name", "id"):
    t = Table("mapped by " + mode, mode=mode)
    for i in range(3):
        a = rows(10, 10 * i)
        t.commit([t.file(a, names=["other", "names", "here"] if mode == "id" else None)])
        t.all.append(a)
    t.done()

t = Table("deletions", ["deletionVectors"])
a, b, c = rows(500), rows(500, 500), rows(20, 1000)
gone = [set(range(0, 500, 3)), set(range(100, 400)), {0, 19}]
places = t.stored([(vector(gone[0]), len(gone[0])), (vector(gone[1], runs=True), len(gone[1]))])
inline = vector(gone[2])
padded = inline + b"\x00" * (-len(inline) % 4)
places.append({"storageType": "i", "pathOrInlineDv": z85(padded), "sizeInBytes": len(inline), "cardinality": 2})
adds = [t.file(x, p) for x, p in zip((a, b, c), places)]
bare = {k: v for k, v in adds[0]["add"].items() if k != "deletionVector"}
t.commit([{"add": bare}])
t.commit(adds + [{"remove": {"path": bare["path"], "deletionTimestamp": 0, "dataChange": True}}])
for x, g in zip((a, b, c), gone):
    t.without(x, g)
t.done()


def checkpoint_table(actions):
    """Actions as rows of a Parquet file, as the protocol describes them."""
    columns = {
        "add": pa.struct([("path", pa.string()), ("partitionValues", pa.map_(pa.string(), pa.string())), ("size", pa.int64()), ("modificationTime", pa.int64()), ("dataChange", pa.bool_()), ("stats", pa.string())]),
        "metaData": pa.struct([("id", pa.string()), ("format", pa.struct([("provider", pa.string()), ("options", pa.map_(pa.string(), pa.string()))])), ("schemaString", pa.string()), ("partitionColumns", pa.list_(pa.string())), ("configuration", pa.map_(pa.string(), pa.string())), ("createdTime", pa.int64())]),
        "protocol": pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32()), ("readerFeatures", pa.list_(pa.string())), ("writerFeatures", pa.list_(pa.string()))]),
        "checkpointMetadata": pa.struct([("version", pa.int64())]),
        "sidecar": pa.struct([("path", pa.string()), ("sizeInBytes", pa.int64()), ("modificationTime", pa.int64())]),
    }

    def plain(v):
        return {k: (list(x.items()) if k in ("partitionValues", "configuration", "options") else plain(x) if isinstance(x, dict) else x) for k, x in v.items()}

    return pa.table({n: pa.array([plain(a[n]) if n in a else None for a in actions], type=kind) for n, kind in columns.items()})


def with_checkpoint(name, features, write):
    t = Table(name, features)
    adds = []
    for i in range(4):
        a = rows(10, 10 * i)
        adds.append(t.file(a))
        t.commit([adds[-1]])
        t.all.append(a)
    write(t, os.path.join(t.path, "_delta_log", f"{t.version - 1:020d}.checkpoint"), [t.protocol, t.meta], adds)
    for i in range(t.version):
        os.remove(os.path.join(t.path, "_delta_log", f"{i:020d}.json"))
    a = rows(10, 40)
    t.commit([t.file(a)])
    t.all.append(a)
    t.done()


def multipart(t, start, head, adds):
    pq.write_table(checkpoint_table(head + adds[:2]), f"{start}.0000000001.0000000002.parquet")
    pq.write_table(checkpoint_table(adds[2:]), f"{start}.0000000002.0000000002.parquet")


def sidecars(t, adds):
    out = []
    os.makedirs(os.path.join(t.path, "_delta_log", "_sidecars"))
    for part in (adds[:1], adds[1:]):
        name = f"{uuid.uuid4()}.parquet"
        pq.write_table(checkpoint_table(part), os.path.join(t.path, "_delta_log", "_sidecars", name))
        out.append({"sidecar": {"path": name, "sizeInBytes": 0, "modificationTime": 0}})
    return out


def v2_json(t, start, head, adds):
    actions = [{"checkpointMetadata": {"version": t.version - 1}}] + head + sidecars(t, adds)
    with open(f"{start}.{uuid.uuid4()}.json", "w") as f:
        f.write("\n".join(map(json.dumps, actions)))


def v2_parquet(t, start, head, adds):
    actions = [{"checkpointMetadata": {"version": t.version - 1}}] + head + sidecars(t, adds)
    pq.write_table(checkpoint_table(actions), f"{start}.{uuid.uuid4()}.parquet")


def v2_classic(t, start, head, adds):
    pq.write_table(checkpoint_table([{"checkpointMetadata": {"version": t.version - 1}}] + head + sidecars(t, adds)), start + ".parquet")


with_checkpoint("checkpoint in parts", [], multipart)
with_checkpoint("checkpoint v2 json", ["v2Checkpoint"], v2_json)
with_checkpoint("checkpoint v2 parquet", ["v2Checkpoint"], v2_parquet)
with_checkpoint("checkpoint v2 classic", ["v2Checkpoint"], v2_classic)

# --- refused ---

t = Table("refused feature", ["deletionVectors", "variantType"])
expected[t.name] = {"refused": "the reader feature variantType"}
t = Table("refused vector", ["deletionVectors"])
t.commit([t.file(rows(10), {"storageType": "p", "pathOrInlineDv": "s3://other/deletion_vector.bin", "offset": 1, "sizeInBytes": 40, "cardinality": 1})])
expected[t.name] = {"refused": "a deletion vector lies outside the table's folder"}
t = Table("damaged vector", ["deletionVectors"])
place = t.stored([(vector({1, 2}), 2)])[0]
t.commit([t.file(rows(10), {**place, "offset": place["offset"] + 1})])
expected[t.name] = {"refused": "deletion vector"}
t = Table("shallow clone")
t.commit([{"add": {"path": "file:///elsewhere/part.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True}}])
expected[t.name] = {"refused": "lies outside the table's folder"}
t = Table("gap")
t.version += 1
t.commit([t.file(rows(10))])
expected[t.name] = {"refused": "the commit is missing"}

with open(os.path.join(root, "expected.json"), "w") as f:
    json.dump(expected, f)
