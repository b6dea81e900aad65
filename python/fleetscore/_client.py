"""A client of a server's API, with the standard library alone."""
from __future__ import annotations

import datetime
import io
import json
import os
import pickle
import socket
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import IO, Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from ._errors import Error
from ._frames import kind as kind_of
from ._frames import pyarrow

Time = Union[str, datetime.datetime]
DEFAULT = "http://127.0.0.1:7180"


class Client:
    """Talks to a Fleetscore server.

    url         the server's address; by default this machine's at 127.0.0.1:7180
    token       the token to send, or
    token_file  a file that holds it, which is read for each request. Without both, the server
                of this user on this machine is found as the commands find it.
    ca_file     certificates to trust besides the system's, in PEM
    timeout     seconds that the server may be silent

    All methods raise Error with what the server says.
    """

    def __init__(self, url: Optional[str] = None, *, token: Optional[str] = None, token_file: "Optional[Union[str, os.PathLike[str]]]" = None,
                 ca_file: "Optional[Union[str, os.PathLike[str]]]" = None, timeout: float = 90.0) -> None:
        local = local_server(url or DEFAULT) or {}
        self.url = (url or local.get("url") or DEFAULT).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise Error("the address %s is not a URL" % self.url, "invalid", "write for example %s" % DEFAULT)
        self._token = token
        self._token_file = token_file
        self._timeout = timeout
        context = ssl.create_default_context()
        for file in (ca_file, local.get("ca_file")):
            if file:
                context.load_verify_locations(cafile=os.fspath(file))
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirects())

    def __repr__(self) -> str:
        return "<fleetscore.Client %s>" % self.url

    # What a server is to do.

    def apply(self, configuration: "Union[str, os.PathLike[str]]", *, dry_run: bool = False) -> Dict[str, Any]:
        """Applies a fleet.yaml: its path, or its text if that has several lines. Says the
        version, the changes and warnings."""
        text, name = os.fspath(configuration), "fleet.yaml"
        if "\n" not in text:
            name = os.path.abspath(text)
            with open(name, encoding="utf-8") as f:
                text = f.read()
        query = {"name": name}
        if dry_run:
            query["dry_run"] = "true"
        return self._json("PUT", "/config", query, text.encode(), "application/yaml")

    def upload(self, dataset: str, rows: Any, *, key: Optional[Sequence[str]] = None, time: Optional[str] = None, values: Optional[Sequence[str]] = None,
               complete_until: Optional[Time] = None) -> Dict[str, Any]:
        """Adds rows to a dataset: a DataFrame, or the path of a file in CSV, JSON lines or
        Parquet. A row with the time and key of an earlier one replaces it. key, time and
        values name columns; by default those of the dataset or of the hub."""
        query = {"key": joined(key), "time": time, "values": joined(values), "complete_until": None if complete_until is None else when(complete_until)}
        body, content_type, close = body_of(rows)
        with close:
            return self._json("POST", "/datasets/%s/rows" % quoted(dataset), query, body, content_type)

    def send(self, readings: Union[Any, Iterable[Mapping[str, Any]]], *, hub: str = "hub") -> int:
        """Sends readings to the hub: a DataFrame, or dictionaries with the time, the key
        columns and values. Returns how many were stored; they are synced to disk then.
        Raises Error if some are malformed; the others are stored."""
        accepted, lines, size, first = 0, [], 0, 1
        for record in records(readings):
            line = json.dumps(record, default=plain, allow_nan=False).encode()
            lines.append(line)
            size += len(line) + 1
            if size > 4 << 20:
                accepted += self._messages(hub, lines, first)
                first, lines, size = first + len(lines), [], 0
        return accepted + (self._messages(hub, lines, first) if lines else 0)

    def _messages(self, hub: str, lines: List[bytes], first: int) -> int:
        for attempt in range(5):
            try:
                return int(self._json("POST", "/hubs/%s/messages" % quoted(hub), {}, b"\n".join(lines), "application/x-ndjson")["accepted"])
            except Error as e:
                if e.kind not in ("unavailable", "exhausted") or attempt == 4:
                    if first > 1:
                        raise Error("%s (in the request that begins with reading %d)" % (e, first), e.kind) from None
                    raise
            time.sleep(0.5 * 2 ** attempt)  # repeats of a reading count once
        raise AssertionError

    def push(self, fleet: str, models: Mapping[Any, Any], *, message: Optional[str] = None, unchecked: bool = False) -> Dict[str, Any]:
        """Puts models into a fleet as one new version, after the server has checked them.
        models maps sensors, as ("1", "pressure") or "1/pressure", to fitted estimators, the
        paths of files or of folders that MLflow wrote, or bytes. unchecked pushes models, too, that can't be scored natively
        or don't fit the pipelines. Returns the version, its number is ["version"]."""
        with tempfile.TemporaryFile() as body:
            with tarfile.open(fileobj=body, mode="w") as archive:
                for key, model in models.items():
                    name = key if isinstance(key, str) else "/".join(str(v) for v in key) if isinstance(key, (tuple, list)) else str(key)
                    info = tarfile.TarInfo("keys/" + name)
                    if isinstance(model, (str, os.PathLike)) and os.path.isdir(model):
                        model = packed(model)
                    if isinstance(model, (str, os.PathLike)):
                        with open(model, "rb") as f:
                            info.size = os.fstat(f.fileno()).st_size
                            archive.addfile(info, f)
                    else:
                        data = bytes(model) if isinstance(model, (bytes, bytearray, memoryview)) else pickle.dumps(model, protocol=4)
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))
            body.flush()
            body.seek(0)
            query = {"message": message, "unchecked": "true" if unchecked else None}
            return self._json("POST", "/fleets/%s/versions" % quoted(fleet), query, body, "application/x-tar")

    def versions(self, fleet: str, *, limit: int = 20) -> List[Dict[str, Any]]:
        """What was pushed into a fleet, the newest first."""
        return list(self._json("GET", "/fleets/%s/versions" % quoted(fleet), {"limit": str(limit)})["items"])

    def rollback(self, fleet: str, to: int, *, message: str = "") -> Dict[str, Any]:
        """Brings back the models of a version, as a new version; 0 is the time before the
        first push."""
        return self._json("POST", "/fleets/%s/rollback" % quoted(fleet), {}, json.dumps({"to": to, "message": message}).encode(), "application/json")

    def submit(self, pipeline: str, *, start: Optional[Time] = None, end: Optional[Time] = None) -> Dict[str, Any]:
        """Makes a job for the rows later than start, until end; without both, for what no
        job has covered yet. Returns the job; its id is job["id"]."""
        body: Dict[str, Any] = {"pipeline": pipeline}
        if start is not None:
            body["from"] = when(start)
        if end is not None:
            body["to"] = when(end)
        return self._json("POST", "/jobs", {}, json.dumps(body).encode(), "application/json")

    def job(self, job: Union[str, Mapping[str, Any]]) -> Dict[str, Any]:
        """The job's present state."""
        return self._json("GET", "/jobs/" + quoted(id_of(job)), {})

    def wait(self, job: Union[str, Mapping[str, Any]], *, timeout: Optional[float] = None, check: bool = True) -> Dict[str, Any]:
        """Waits until the job ended, and returns it. Raises Error of the kind failed if it
        failed, was canceled or (with check) failed partly, and TimeoutError if it takes
        longer than timeout seconds."""
        name, end = id_of(job), None if timeout is None else time.monotonic() + timeout
        while True:
            left = 30.0 if end is None else min(30.0, max(0.0, end - time.monotonic()))
            got = self._json("GET", "/jobs/" + quoted(name), {"wait": "%dms" % (left * 1000)} if left else {})
            state = got["state"]
            if state == "succeeded" or state == "partly_failed" and not check:
                return got
            if state in ("failed", "canceled", "partly_failed"):
                raise Error("job %s: %s: %s" % (name, state, got.get("reason") or "coverage(job) says what became of its sensors"), "failed")
            if end is not None and time.monotonic() >= end:
                raise TimeoutError("job %s is %s after %g s: %s" % (name, state, timeout, got.get("reason", "")))

    def cancel(self, job: Union[str, Mapping[str, Any]]) -> Dict[str, Any]:
        """Cancels a job."""
        return self._json("POST", "/jobs/%s/cancel" % quoted(id_of(job)), {})

    # What is there.

    def predictions(self, pipeline: Union[str, Mapping[str, Any]], *, start: Optional[Time] = None, end: Optional[Time] = None,
                    frame: str = "pandas") -> Any:
        """The predictions of rows later than start, until end, as a DataFrame of pandas or
        Polars: one row for each key and time, the latest. For a job, its interval."""
        name, start, end = self._pipeline(pipeline, start, end)
        arrow = frame == "polars" or pyarrow() is not None
        query = {"from": None if start is None else when(start), "to": None if end is None else when(end), "format": "arrow" if arrow else "csv"}
        with self._open("GET", "/pipelines/%s/predictions" % quoted(name), query) as answer:
            data = answer.read()
        return data_frame(data, frame, arrow)

    def coverage(self, job: Union[str, Mapping[str, Any]], *, outcome: Optional[Sequence[str]] = None, frame: str = "pandas") -> Any:
        """What became of each sensor of a job that ended, as a DataFrame: key, outcome,
        rows, anomalies, reason and more. outcome names only some outcomes."""
        rows: List[Dict[str, Any]] = []
        after: Optional[str] = None
        while True:
            got = self._json("GET", "/jobs/%s/coverage" % quoted(id_of(job)), {"limit": "10000", "after": after, "outcome": joined(outcome)})
            for item in got["items"]:
                if isinstance(item.get("key"), list):
                    item["key"] = "/".join(item["key"])
                elif isinstance(item.get("key"), str):
                    item["key"] = item["key"].replace("\x1f", "/")
                rows.append(item)
            after = got.get("next")
            if not after:
                break
        if frame == "polars":
            import polars

            return polars.DataFrame(rows, infer_schema_length=None)
        import pandas

        return pandas.DataFrame(rows)

    def datasets(self) -> List[Dict[str, Any]]:
        """The datasets of the server."""
        return list(self._json("GET", "/datasets", {})["items"])

    def fleets(self) -> List[Dict[str, Any]]:
        """The fleets and their generations."""
        return list(self._json("GET", "/fleets", {})["items"])

    def jobs(self, *, pipeline: Optional[str] = None, state: Optional[Sequence[str]] = None, limit: int = 100) -> List[Dict[str, Any]]:
        """Jobs, newest first."""
        return list(self._json("GET", "/jobs", {"pipeline": pipeline, "state": joined(state), "limit": str(limit)})["items"])

    def health(self) -> Dict[str, Any]:
        """Whether all parts of the server work."""
        try:
            return self._json("GET", "/health", {})
        except Error as e:
            body = getattr(e, "body", None)
            if isinstance(body, dict) and "status" in body:
                return body
            raise

    # Requests.

    def _pipeline(self, what: Any, start: Optional[Time], end: Optional[Time]) -> Any:
        if isinstance(what, str):
            return what, start, end
        interval = what["interval"]
        return what["pipeline"], start or interval["from"], end or interval["to"]

    def _json(self, method: str, path: str, query: Mapping[str, Optional[str]], body: Any = None, content_type: Optional[str] = None) -> Any:
        with self._open(method, path, query, body, content_type) as answer:
            try:
                return json.load(answer)
            except ValueError as e:
                raise Error("the answer of %s to %s %s isn't JSON: %s" % (self.url, method, path, e), "internal") from None

    def _open(self, method: str, path: str, query: Mapping[str, Optional[str]], body: Any = None, content_type: Optional[str] = None) -> IO[bytes]:
        pairs = [(k, v) for k, v in query.items() if v is not None]
        request = urllib.request.Request(self.url + "/api/v1" + path + ("?" + urllib.parse.urlencode(pairs) if pairs else ""), data=body, method=method)
        if content_type:
            request.add_header("Content-Type", content_type)
        if body is not None and hasattr(body, "fileno"):
            request.add_header("Content-Length", str(os.fstat(body.fileno()).st_size))
        elif method in ("POST", "PUT") and body is None:
            request.data = b""
        token = self._find_token()
        if token:
            request.add_unredirected_header("Authorization", "Bearer " + token)
        try:
            return self._opener.open(request, timeout=self._timeout)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as e:
            raise problem(e) from None
        except urllib.error.URLError as e:
            raise Error("reach server %s: %s" % (self.url, e.reason), "unavailable", "check that the server is running; fleetscore up starts one") from None
        except (socket.timeout, OSError) as e:
            raise Error("reach server %s: %s" % (self.url, e or "it doesn't answer"), "unavailable") from None


    def _find_token(self) -> Optional[str]:
        """The token to send; a file is read each time, so that it may be replaced."""
        file = self._token_file
        if self._token or not file:
            local = None if self._token else local_server(self.url)
            if not local or not local.get("token_file"):
                return self._token
            file = local["token_file"]
        try:
            with open(file, encoding="utf-8") as f:
                return f.read().strip()
        except OSError as e:
            raise Error("read token %s: %s" % (os.fspath(file), e.strerror), "invalid", "token_file must name a file that holds a token of the server") from None


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The API redirects nowhere: a redirect would carry rows elsewhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def problem(e: urllib.error.HTTPError) -> Error:
    """What an answer says that isn't a success."""
    data = e.read(1 << 20)
    try:
        p = json.loads(data)
        text = "%s %s: %s" % (p.get("op", ""), p.get("subject", ""), p["message"]) if p.get("op") else p["message"]
        for line in p.get("lines") or []:
            text += "; reading %s: %s" % (line.get("line"), line.get("reason"))
        out = Error(" ".join(text.split()), p.get("kind", "internal"), p.get("hint", ""))
    except (ValueError, KeyError, AttributeError):
        p = None
        try:
            p = json.loads(data)
        except ValueError:
            pass
        out = Error("the server answers %d %s: %s" % (e.code, e.reason, data[:200].decode("utf-8", "replace")), "unavailable" if e.code >= 500 else "invalid")
    out.body = p  # type: ignore[attr-defined]
    return out


def local_server(url: str) -> Optional[Dict[str, str]]:
    """The file that a server of this user on this machine left for commands."""
    parts = urllib.parse.urlsplit(url if "//" in url else "//" + url)
    addresses = [parts.netloc]
    if parts.hostname == "localhost":
        addresses = ["127.0.0.1:%s" % parts.port, "[::1]:%s" % parts.port]
    folders = []
    for base in (os.environ.get("XDG_STATE_HOME"), os.path.join(os.path.expanduser("~"), ".local", "state")):
        if base and os.path.isabs(base):
            folders.append(os.path.join(base, "fleetscore", "servers"))
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        folders.append(os.path.join(runtime, "fleetscore"))
    folders.append(os.path.join(os.environ.get("TMPDIR") or "/tmp", "fleetscore-%d" % os.getuid()))
    for folder in folders:
        try:
            st = os.lstat(folder)
            if st.st_uid != os.getuid() or st.st_mode & 0o077 or not os.path.isdir(folder) or os.path.islink(folder):
                continue  # another user could have written it
        except OSError:
            continue
        for address in addresses:
            name = "%s_%s.json" % (socket.gethostname(), address)
            for old, new in ((":", "-"), ("[", ""), ("]", ""), ("/", "-"), ("%", "-")):
                name = name.replace(old, new)
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    found = json.load(f)
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
    return None


def id_of(job: Union[str, Mapping[str, Any]]) -> str:
    return job if isinstance(job, str) else str(job["id"])


def quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def joined(names: Union[None, str, Sequence[str]]) -> Optional[str]:
    return None if names is None else names if isinstance(names, str) else ",".join(names)


def when(t: Time) -> str:
    """A time as the API takes it; without a zone it is UTC."""
    if isinstance(t, str):
        text = t.strip().replace(" ", "T")
        if len(text) == 10:
            text += "T00:00:00"
        if "T" in text and not (text.endswith("Z") or "+" in text[10:] or "-" in text[10:]):
            text += "Z"
        return text
    if t.tzinfo is None:
        t = t.replace(tzinfo=datetime.timezone.utc)
    return t.isoformat()


def plain(x: Any) -> Any:
    """A value of NumPy or a time, for JSON."""
    if hasattr(x, "isoformat"):
        return when(x) if isinstance(x, datetime.datetime) else x.isoformat()
    if hasattr(x, "item"):
        return x.item()
    raise TypeError("a reading can't hold %r" % (x,))


def records(readings: Any) -> Iterator[Mapping[str, Any]]:
    """The readings as dictionaries; missing numbers of a DataFrame are left out."""
    if not (hasattr(readings, "columns") and hasattr(readings, "shape")):
        for r in readings:
            yield r
        return
    rows = readings.to_dict("records") if kind_of(readings) == "pandas" else readings.iter_rows(named=True)
    for r in rows:
        yield {k: v for k, v in r.items() if v is not None and v == v}


def body_of(rows: Any) -> Any:
    """The body of an upload, its type, and what closes it."""
    if isinstance(rows, (str, os.PathLike)):
        name = os.fspath(rows).lower()
        f = open(rows, "rb")
        for ending in (".gz", ".zst"):
            name = name[:-len(ending)] if name.endswith(ending) else name
        return f, "application/vnd.apache.parquet" if name.endswith(".parquet") else "application/x-ndjson" if name.endswith((".ndjson", ".jsonl")) else "text/csv", f
    f = tempfile.TemporaryFile()
    if kind_of(rows) == "polars":
        rows.write_parquet(f)
        content_type = "application/vnd.apache.parquet"
    elif pyarrow() is not None:
        rows.to_parquet(f, index=False, engine="pyarrow")
        content_type = "application/vnd.apache.parquet"
    else:
        text = io.TextIOWrapper(f, encoding="utf-8", newline="")
        rows.to_csv(text, index=False)
        text.flush()
        text.detach()
        content_type = "text/csv"
    f.seek(0)
    return f, content_type, f


def data_frame(data: bytes, frame: str, arrow: bool) -> Any:
    if frame == "polars":
        import polars

        got = polars.read_ipc(io.BytesIO(data), use_pyarrow=False)
        return got.with_columns([polars.col(c).cast(polars.Utf8) for c, t in zip(got.columns, got.dtypes) if t == polars.Categorical])
    import pandas

    if arrow:
        import pyarrow as pa

        got = pa.ipc.open_file(pa.BufferReader(data)).read_all().to_pandas()
        for c in got.columns:
            if str(got[c].dtype) == "category":
                got[c] = got[c].astype(str)
        return got
    exact = {} if int(pandas.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
    got = pandas.read_csv(io.BytesIO(data), **exact)
    time_column = got.columns[0]
    got[time_column] = pandas.to_datetime(got[time_column], utc=True)
    return got


def packed(folder: Union[str, "os.PathLike[str]"]) -> bytes:
    """A folder of MLflow as an archive, as the server keeps it."""
    folder, out = os.fspath(folder), io.BytesIO()
    if not os.path.isfile(os.path.join(folder, "MLmodel")):
        raise ValueError("%s is a folder without MLmodel; give the path of a model's file, or of a folder that MLflow wrote" % folder)
    with zipfile.ZipFile(out, "w") as z:
        for at, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(at, name)
                z.write(path, os.path.relpath(path, folder))
    return out.getvalue()
