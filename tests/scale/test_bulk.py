"""Bulk import: files as pymilvus's own writer makes them, jobs that survive a crash, counts that are right.

The server here is a stand-in that speaks the import interface over a real socket, reads the files from a real
S3 server, and puts their rows into the store in memory; like Milvus it does not look for equal keys.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeEncoder
from scale_support import ENCODE, PASSAGES, comparable, document

from m3index.corpus.readers import FileCorpus
from m3index.errors import StoreError, UnreachableError, UsageError
from m3index.files import Folder
from m3index.index.options import SyncOptions
from m3index.index.sync import sync
from m3index.scale import bulk
from m3index.scale.bulk import BulkSettings, bulk_load
from m3index.scale.encode import encode
from m3index.scale.options import LoadOptions
from m3index.schema import CollectionSpec
from m3index.store.bulk import BulkFile, ServerImporter, arrow_schema
from m3index.store.memory import MemoryStore
from m3index.store.rows import row_fields, row_of
from m3index.types import FieldType, Row, SparseVector

pytest.importorskip("minio", reason="needs m3index[bulk]")
FIELDS: dict[str, FieldType] = {
    "year": "int", "tags": "str[]", "score": "float", "ok": "bool", "lang": "str",
}  # fmt: skip
BULK = BulkSettings(workers=2, poll=0.02)


def row(number: int, *, sparse: bool = True, **changes: Any) -> Row:
    weights = SparseVector(np.array([3, 70 + number], np.int32), np.array([0.25, 1.1], np.float32))
    values: dict[str, Any] = {
        "passage_id": f"{number:032x}-0",
        "doc_id": f"d{number}",
        "ordinal": 0,
        "source": "default",
        "doc_hash": "a.b",
        "passages": 1,
        "title": "Tïtle",
        "breadcrumb": "Günstig > Teuer",
        "anchor": "teuer",
        "text": "some text",
        "metadata": {"year": number, "nested": {"a": [1, None, "é"]}},
        "fields": {"year": number, "tags": ("x", "y"), "score": 0.5, "ok": True, "lang": None},
        "dense": np.array([0.6, 0.8, 0.0], np.float32),
        "sparse": weights if sparse else None,
    }
    return Row(**values | changes)


@pytest.mark.parametrize(
    ("sparse", "storage"), [("lexical", "fp32"), ("bm25", "fp16"), ("none", "bf16"), ("none", "fp32")]
)
def test_files_are_those_of_pymilvus_own_writer(sparse: Any, storage: Any, tmp_path: Path) -> None:
    import ml_dtypes
    from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter

    from m3index.store.definition import to_milvus
    from m3index.store.rows import to_wire

    fields: dict[str, FieldType] = {**FIELDS, "org": "str"}
    spec = CollectionSpec(3, sparse, fields, "icu" if sparse == "bm25" else None, "org", storage)
    rows = [row(n, sparse=sparse == "lexical") for n in range(5)]
    rows = [replace(one, fields={**one.fields, "org": f"org {one.doc_id}"}) for one in rows]
    ours = BulkFile(tmp_path / "ours.parquet", spec)
    for one in rows:
        assert ours.add([one]) == {}
    ours.close()
    theirs = LocalBulkWriter(
        to_milvus(spec, lite=False), str(tmp_path / "theirs"), file_type=BulkFileType.PARQUET
    )
    for one in rows:
        entity = dict(to_wire(one, spec, bm25_limit=65_535).entity)
        entity["metadata"] = json.loads(entity["metadata"])
        if storage == "fp32":
            entity["dense"] = entity["dense"].tolist()
        else:
            dtype = np.float16 if storage == "fp16" else ml_dtypes.bfloat16
            entity["dense"] = np.frombuffer(entity["dense"], dtype)
        if sparse == "lexical":
            entity["lexical"] = entity["lexical"].to_dict()
        entity.pop("lang")
        theirs.append_row(entity | {"lang": None})
    theirs.commit()
    [[path]] = theirs.batch_files
    expected, got = pq.read_table(path), pq.read_table(tmp_path / "ours.parquet")
    assert got.schema.equals(arrow_schema(spec))
    types = {field.name: field.type for field in expected.schema}
    assert {field.name: field.type for field in got.schema} == types
    parsed = [
        [
            {k: json.loads(v) if k in ("metadata", "lexical") else v for k, v in r.items()}
            for r in t.to_pylist()
        ]
        for t in (got.select(sorted(types)), expected.select(sorted(types)))
    ]
    assert parsed[0] == parsed[1]
    if sparse == "lexical":
        weights = parsed[0][0]["lexical"]
        assert weights == {"3": 0.25, "70": float(np.float32(1.1))}


def test_a_document_of_which_a_row_is_refused_is_left_out_whole(tmp_path: Path) -> None:
    spec = CollectionSpec(3, "lexical", FIELDS)
    file = BulkFile(tmp_path / "f.parquet", spec)
    bad = row(1, passage_id=f"{1:032x}-1", ordinal=1, dense=np.zeros(3, np.float32))
    assert list(file.add([row(1), bad])) == [bad.passage_id]
    assert file.add([row(2)]) == {}
    file.close()
    assert pq.read_table(tmp_path / "f.parquet").column("doc_id").to_pylist() == ["d2"]


class Server:
    """The import jobs of a Milvus, over HTTP; counts like one: equal keys count twice."""

    def __init__(self, store: MemoryStore, bucket: Folder) -> None:
        self.store, self.bucket = store, bucket
        self.jobs: dict[str, dict[str, Any]] = {}
        self.crash_after_create = self.fail_next = False
        self.imported: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server.answer(self.path.rpartition("/")[2], body, self.headers["Authorization"])
                data = json.dumps(answer).encode()
                self.send_response(200 if answer else 500)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, action: str, body: dict[str, Any], authorization: str) -> dict[str, Any] | None:
        if authorization != "Bearer user:secret":
            return {"code": 1800, "message": "not authorised"}
        match action:
            case "create":
                job_id = str(1000 + len(self.jobs))
                self.jobs[job_id] = {"collectionName": body["collectionName"], "looks": 0}
                if self.fail_next:
                    self.fail_next = False
                    self.jobs[job_id]["state"] = "Failed"
                else:
                    for [path] in body["files"]:
                        self._import(body["collectionName"], path)
                if self.crash_after_create:
                    self.crash_after_create = False
                    return None
                return {"code": 0, "data": {"jobId": job_id}}
            case "describe":
                job = self.jobs[body["jobId"]]
                job["looks"] += 1
                state = job.get("state") or ("Completed" if job["looks"] > 1 else "Importing")
                return {"code": 0, "data": {"state": state, "progress": 100, "reason": "no reason"}}
            case "list":
                found = [i for i, j in self.jobs.items() if j["collectionName"] == body["collectionName"]]
                return {"code": 0, "data": {"records": [{"jobId": i} for i in found]}}
        return {"code": 1, "message": action}

    def _import(self, collection: str, path: str) -> None:
        prefix = self.bucket.in_bucket("x").removesuffix("x")
        folder, _, name = path.removeprefix(prefix).rpartition("/")
        data = (self.bucket.sub(folder) if folder else self.bucket).read(name)
        assert data is not None
        assert name not in self.imported, "imported twice"
        self.imported.append(name)
        spec = self.store.spec(collection)
        rows = []
        for entity in pq.read_table(pa.BufferReader(data)).to_pylist():
            weights = sorted((int(i), w) for i, w in json.loads(entity["lexical"]).items())
            sparse = SparseVector(
                np.array([i for i, _ in weights], np.int32), np.array([w for _, w in weights], np.float32)
            )
            base = (
                "passage_id",
                "doc_id",
                "ordinal",
                "source",
                "doc_hash",
                "passages",
                "title",
                "breadcrumb",
                "anchor",
                "text",
            )
            rows.append(
                Row(
                    **{name: entity[name] for name in base},
                    metadata=json.loads(entity["metadata"]),
                    fields={name: entity[name] for name in spec.fields},
                    dense=np.array(entity["dense"], np.float32),
                    sparse=sparse,
                )
            )
        self.store.upsert(collection, rows)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(s3: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    opened = Server(MemoryStore(), Folder(f"{s3}/bulk-{abs(hash(request.node.name))}"))
    yield opened
    opened.close()


def stored(store: MemoryStore) -> dict[str, Any]:
    name = store.resolve("docs")
    assert name is not None
    spec = store.spec(name)
    rows = store.scan(name, None, row_fields(spec))
    return {r["passage_id"]: comparable(row_of(r["passage_id"], r, spec)) for r in rows}


def test_a_bulk_load_equals_an_ingest(
    corpus: Callable[..., FileCorpus], encoder: FakeEncoder, out: Folder, tmp_path: Path, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(bulk, "JOB_FILES", 2)
    monkeypatch.setattr(bulk, "FILE_BYTES", 8_000)
    other, rows = Folder(tmp_path / "other"), [document(n) for n in range(60)]
    encode(corpus(rows), out, encoder, ENCODE)
    encode(corpus([document(3, 2, title="again"), document(70)]), other, encoder, ENCODE)
    importer = ServerImporter(server.uri, "user:secret")
    settings = LoadOptions(fields={"year": "int"})
    with pytest.raises(StoreError, match="not authorised"):
        bulk_load(
            server.store, ServerImporter(server.uri), "docs", [out, other], server.bucket, settings, BULK
        )
    summary = bulk_load(server.store, importer, "docs", [out, other], server.bucket, settings, BULK)
    assert (summary.added, summary.count_ok, summary.exit) == (61, True, 0)
    assert len(server.imported) > 9  # shards were split by size
    ingested = MemoryStore()
    whole = SyncOptions(**PASSAGES, fields={"year": "int"})
    sync(ingested, encoder, "docs", corpus([*rows, document(70)]), whole)
    assert stored(server.store) == stored(ingested)
    with pytest.raises(UsageError, match="--fresh"):
        bulk_load(server.store, importer, "docs", [out, other], server.bucket, settings, BULK)


def test_a_load_that_died_imports_nothing_twice(
    corpus: Callable[..., FileCorpus], encoder: FakeEncoder, out: Folder, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(bulk, "JOB_FILES", 2)
    encode(corpus(), out, encoder, ENCODE)
    importer = ServerImporter(server.uri, "user:secret")

    def load() -> Any:
        return bulk_load(server.store, importer, "docs", [out], server.bucket, LoadOptions(), BULK)

    server.crash_after_create = True
    with pytest.raises(StoreError):
        load()
    server.fail_next = True
    with pytest.raises(StoreError, match="no reason"):
        load()
    assert server.store.resolve("docs") is None
    assert load().count_ok
    assert len(server.imported) == len(set(server.imported)) == 8
    assert len(server.jobs) == 5


def test_a_server_that_is_down_is_said_to_be() -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        ServerImporter("http://127.0.0.1:9").job("1")


def test_a_local_folder_is_no_bucket(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no object store"):
        Folder(tmp_path).in_bucket("x")
