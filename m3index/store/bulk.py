"""Bulk import: rows as Parquet files that a Milvus server reads by itself, and the jobs that import them.

The layout is that of pymilvus's own bulk writer: JSON and sparse vectors as text, dense vectors as lists
(of numbers, or of the bytes of 16-bit floats). Jobs use the server's HTTP interface, which has the same
address as its gRPC interface.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType

from m3index.addresses import is_own
from m3index.errors import StoreError, UnreachableError
from m3index.schema import CollectionSpec
from m3index.store.definition import bm25_limit, to_milvus
from m3index.store.rows import WireRow, checked
from m3index.types import Row, SparseVector

ROW_GROUP = 1_000

_ARROW = {
    DataType.VARCHAR: pa.string(),
    DataType.JSON: pa.string(),
    DataType.INT64: pa.int64(),
    DataType.DOUBLE: pa.float64(),
    DataType.BOOL: pa.bool_(),
    DataType.FLOAT_VECTOR: pa.list_(pa.float32()),
    DataType.FLOAT16_VECTOR: pa.list_(pa.uint8()),
    DataType.BFLOAT16_VECTOR: pa.list_(pa.uint8()),
    DataType.SPARSE_FLOAT_VECTOR: pa.string(),
    DataType.ARRAY: pa.list_(pa.string()),
}


def arrow_schema(spec: CollectionSpec) -> pa.Schema:
    """The columns that a bulk import of this collection needs; the server computes the others."""
    fields = to_milvus(spec, lite=False).fields
    return pa.schema(
        [pa.field(field.name, _ARROW[field.dtype]) for field in fields if not field.is_function_output]
    )


class BulkFile:
    """A file to import, written one batch of rows at a time. bytes: a rough upper estimate, uncompressed."""

    def __init__(self, path: Path, spec: CollectionSpec) -> None:
        self._spec, self._schema = spec, arrow_schema(spec)
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[WireRow[Row]] = []
        self.rows = self.bytes = 0

    def add(self, rows: Sequence[Row]) -> dict[str, str]:
        """Writes all of these rows, or none of them and returns the reasons by passage_id."""
        good, reasons = checked(rows, self._spec, bm25_limit=bm25_limit(lite=False))
        if not reasons:
            self._waiting += good
            self.rows += len(good)
            self.bytes += sum(wire.size for wire in good)
            if len(self._waiting) >= ROW_GROUP:
                self._write()
        return reasons

    def _write(self) -> None:
        columns = [
            pa.array([_value(wire.entity.get(field.name)) for wire in self._waiting], field.type)
            for field in self._schema
        ]
        self._file.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._waiting = []

    def close(self) -> None:
        if self._waiting:
            self._write()
        self._file.close()


def _value(value: Any) -> Any:
    """A value of `to_wire` in the form for bulk files: lexical weights as JSON, token id -> weight."""
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8)
    if not isinstance(value, SparseVector):
        return value
    pairs = zip(value.indices.tolist(), value.values.tolist(), strict=True)
    return json.dumps({str(index): weight for index, weight in pairs})


@dataclass(frozen=True, slots=True)
class ImportJob:
    """The state of an import. state: `running`, `done` or `failed`. progress: in percent."""

    job_id: str
    state: str
    progress: int
    rows: int
    reason: str = ""


class Importer(Protocol):
    """Runs imports. Milvus does not check for equal keys during an import."""

    def submit(self, collection: str, files: Sequence[str]) -> str:
        """Starts an import of these files, given as paths in the server's bucket. Returns the job id."""
        ...

    def job(self, job_id: str) -> ImportJob: ...

    def jobs(self, collection: str) -> list[str]:
        """The ids of all jobs of a collection, including finished ones."""
        ...


class ServerImporter:
    """The import jobs of a Milvus server, through pymilvus's bulk_import (extra: bulk)."""

    def __init__(self, uri: str, token: str = "", db: str = "", timeout: int = 60) -> None:
        self._common: dict[str, Any] = {
            "url": uri.rstrip("/"),
            "api_key": token,
            "db_name": db,
            "timeout": timeout,
        }
        if is_own(uri):
            self._common["proxies"] = {"http": "", "https": "", "all": ""}

    def submit(self, collection: str, files: Sequence[str]) -> str:
        from pymilvus.bulk_writer import bulk_import

        answer = self._ask(bulk_import, collection_name=collection, files=[[file] for file in files])
        return str(answer["jobId"])

    def job(self, job_id: str) -> ImportJob:
        from pymilvus.bulk_writer import get_import_progress

        answer = self._ask(get_import_progress, job_id=job_id)
        state = {"Completed": "done", "Failed": "failed"}.get(answer.get("state", ""), "running")
        rows = int(answer.get("importedRows") or 0)
        return ImportJob(job_id, state, int(answer.get("progress") or 0), rows, answer.get("reason") or "")

    def jobs(self, collection: str) -> list[str]:
        from pymilvus.bulk_writer import list_import_jobs

        answer = self._ask(list_import_jobs, collection_name=collection, page_size=1000)
        return [str(record["jobId"]) for record in answer.get("records") or []]

    def _ask(self, call: Any, **given: Any) -> Mapping[str, Any]:
        """One call. pymilvus raises MilvusException for every failure, including network failures."""
        import requests
        from pymilvus.exceptions import MilvusException

        try:
            answer: Mapping[str, Any] = call(**self._common, **given).json()["data"]
        except MilvusException as error:
            if isinstance(error.__cause__ or error.__context__, requests.exceptions.RequestException):
                raise UnreachableError(f"{self._common['url']} does not answer: {error.message}") from error
            raise StoreError(f"The server refused the import: {error.message}") from error
        return answer
