"""The format of a shard (`schemas/shard.json`): converts rows to Parquet and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3index import schema
from m3index.corpus.windows import PassageSize
from m3index.errors import DriftError, MismatchError
from m3index.files import Folder, digest_of
from m3index.scale.options import DenseType
from m3index.schema import metadata_json
from m3index.types import PLAIN_FIELDS, EncodedBatch, EncoderInfo, FloatArray, Row, SparseKind, SparseVector

_DEFINITION: Any = schema.load("shard.json")
_FILE: Mapping[str, Any] = _DEFINITION["file"]
_KEY = str(_DEFINITION["metadata_key"]).encode()
VERSION: int = _DEFINITION["version"]
ROW_GROUP: int = _FILE["row_group_rows"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What all shards of a folder have in common: how they were encoded and cut, and their types."""

    encoder: EncoderInfo
    sparse: SparseKind
    passages: PassageSize
    dense: DenseType = "float32"
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fingerprint:
        """Raises MismatchError for shards of another version."""
        if record.get("version") != VERSION:
            raise MismatchError(
                f"The shards have version {record.get('version')}; this m3index reads version {VERSION}."
            )
        return cls(
            EncoderInfo(**record["encoder"]),
            record["sparse"],
            PassageSize(**record["passages"]),
            record["dense"],
        )

    @property
    def digest(self) -> str:
        """Equal if the same documents result in the same rows."""
        encoder = (self.encoder.space_id, self.encoder.encoder_id, self.encoder.dim)
        parts = [*encoder, self.sparse, asdict(self.passages), self.dense, self.version]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def arrow(self) -> pa.Schema:
        """The columns of `schemas/shard.json`, with the width and the type of the dense vectors."""
        fields = []
        for column in _DEFINITION["columns"]:
            kind = pa.type_for_alias(column["type"]) if column["type"] in ("string", "int32") else None
            if column["name"] == "dense":
                kind = pa.list_(pa.field("element", pa.type_for_alias(self.dense), False), self.encoder.dim)
            elif kind is None:
                kind = pa.list_(pa.field("element", pa.type_for_alias(column["element"]), False))
            fields.append(pa.field(column["name"], kind, column.get("nullable", False)))
        return pa.schema(fields, {_KEY: json.dumps(self.to_json()).encode()})


# ---------------------------------------------------------------- rows -> Parquet


class ShardWriter(Protocol):
    """Writes one shard."""

    def add(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> tuple[int, str]:
        """Completes the file; returns its size and its digest."""
        ...


class Writer:
    """Writes one shard in this process, a row group at a time."""

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._path = path
        self._waiting: list[pa.RecordBatch] = []
        self._file = pq.ParquetWriter(
            path,
            fingerprint.arrow,
            compression=_FILE["compression"],
            compression_level=_FILE["compression_level"],
            write_page_checksum=_FILE["page_checksums"],
            use_dictionary=["source"],
            # Groups bytes of equal significance: vectors become a tenth smaller.
            column_encoding={"dense.list.element": "BYTE_STREAM_SPLIT"},
        )

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        while sum(waiting.num_rows for waiting in self._waiting) >= ROW_GROUP:
            self._write(ROW_GROUP)

    def _write(self, count: int) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._waiting = table.slice(count).to_batches()
        self._file.write_table(table.slice(0, count), row_group_size=ROW_GROUP)

    def close(self) -> tuple[int, str]:
        if any(waiting.num_rows for waiting in self._waiting):
            self._write(ROW_GROUP)
        self._file.close()
        return self._path.stat().st_size, digest_of(self._path)


def to_arrow(rows: Sequence[Row], tokens: Sequence[int | None], arrow: pa.Schema) -> pa.RecordBatch:
    """Rows as a record batch of `Fingerprint.arrow`. tokens: of the input of each row, or None."""
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _TEXTS}
    columns["metadata"] = [metadata_json(row.metadata) for row in rows]
    columns["tokens"] = tokens
    width = arrow.field("dense").type.list_size
    dense = np.concatenate([row.dense for row in rows]) if rows else np.zeros(0, np.float32)
    sparse = [row.sparse for row in rows]
    lists = {
        name: _lists(sparse, part, arrow.field(name).type)
        for name, part in (("lexical_indices", "indices"), ("lexical_values", "values"))
    }
    return _record_batch(columns, dense.reshape(-1, width), lists, arrow)


def encoded_to_arrow(
    columns: Mapping[str, Sequence[Any]], encoded: EncodedBatch, arrow: pa.Schema
) -> pa.RecordBatch:
    """Passages as a record batch of `Fingerprint.arrow`: the columns by name, and the vectors as the encoder
    gave them, without a step for each row."""
    lexical = encoded.lexical
    offsets = None if lexical is None else pa.array(lexical.indptr.astype(np.int32))
    lists = {
        name: pa.nulls(len(encoded), arrow.field(name).type)
        if lexical is None
        else pa.ListArray.from_arrays(offsets, pa.array(getattr(lexical, part)), type=arrow.field(name).type)
        for name, part in (("lexical_indices", "indices"), ("lexical_values", "values"))
    }
    return _record_batch({**columns, "tokens": encoded.tokens.tolist()}, encoded.dense, lists, arrow)


_TEXTS = ("passage_id", *PLAIN_FIELDS)


def _record_batch(
    columns: Mapping[str, Sequence[Any]],
    dense: FloatArray,
    lists: Mapping[str, pa.ListArray],
    arrow: pa.Schema,
) -> pa.RecordBatch:
    kind = arrow.field("dense").type
    flat = pa.array(dense.ravel().astype(kind.value_type.to_pandas_dtype(), copy=False))
    arrays = {name: pa.array(values, arrow.field(name).type) for name, values in columns.items()}
    arrays["dense"] = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    arrays |= lists
    return pa.RecordBatch.from_arrays([arrays[field.name] for field in arrow], schema=arrow)


def _lists(sparse: Sequence[SparseVector | None], part: str, kind: pa.ListType) -> pa.ListArray:
    """Lexical weights as a list column of their `indices` or `values`; null where a row has none."""
    present = [getattr(vector, part) for vector in sparse if vector is not None]
    if not present:
        return pa.nulls(len(sparse), kind)
    lengths = [0 if vector is None else len(vector) for vector in sparse]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array([vector is None for vector in sparse])
    values = pa.array(np.concatenate(present), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind, mask=mask)


# ---------------------------------------------------------------- Parquet -> rows


@contextmanager
def reading(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """Opens a shard to read, with page checksums. Raises DriftError if it is damaged or missing."""
    try:
        with folder.open(name) as source:
            yield pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DriftError(f"{folder}/{name} is damaged ({error}). Delete it and encode it again.") from error


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a record batch, without declared fields. `dense` is always float32."""
    width = batch.schema.field("dense").type.list_size
    flat = batch.column("dense").flatten().to_numpy(zero_copy_only=False)
    dense = flat.reshape(-1, width).astype(np.float32, copy=False)
    plain = {name: batch.column(name).to_pylist() for name in _TEXTS}
    metadata = batch.column("metadata").to_pylist()
    sparse = _vectors(batch.column("lexical_indices"), batch.column("lexical_values"))
    for i, vector in enumerate(sparse):
        yield Row(
            **{name: values[i] for name, values in plain.items()},
            metadata=json.loads(metadata[i]),
            fields={},
            dense=dense[i],
            sparse=vector,
        )


def _vectors(indices: pa.ListArray, values: pa.ListArray) -> list[SparseVector | None]:
    """The inverse of `_lists`."""
    ids = indices.values.to_numpy(zero_copy_only=False) if indices.null_count < len(indices) else None
    if ids is None:
        return [None] * len(indices)
    weights = values.values.to_numpy(zero_copy_only=False)
    present = indices.is_valid().to_pylist()
    id_offsets, weight_offsets = indices.offsets.to_pylist(), values.offsets.to_pylist()
    return [
        SparseVector(
            ids[id_offsets[i] : id_offsets[i + 1]], weights[weight_offsets[i] : weight_offsets[i + 1]]
        )
        if is_present
        else None
        for i, is_present in enumerate(present)
    ]
