"""The format of a shard (`schemas/shard.json`): converts rows to Parquet and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3index import schema
from m3index.corpus.windows import PassageSize
from m3index.errors import DriftError, MismatchError
from m3index.files import Folder
from m3index.scale.options import DenseType
from m3index.types import EncoderInfo, Row, SparseKind, SparseVector

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


class Writer:
    """Writes one shard, a row group at a time."""

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._schema = fingerprint.arrow
        self._rows: list[Row] = []
        self._tokens: list[int | None] = []
        self._file = pq.ParquetWriter(
            path,
            self._schema,
            compression=_FILE["compression"],
            compression_level=_FILE["compression_level"],
            write_page_checksum=_FILE["page_checksums"],
            use_dictionary=["source"],
            # Groups bytes of equal significance: vectors become a tenth smaller.
            column_encoding={"dense.list.element": "BYTE_STREAM_SPLIT"},
        )

    def add(self, rows: Sequence[Row], tokens: Sequence[int | None]) -> None:
        self._rows += rows
        self._tokens += tokens
        while len(self._rows) >= ROW_GROUP:
            self._write(ROW_GROUP)

    def _write(self, count: int) -> None:
        rows, tokens = self._rows[:count], self._tokens[:count]
        del self._rows[:count], self._tokens[:count]
        self._file.write_batch(to_arrow(rows, tokens, self._schema))

    def close(self) -> None:
        if self._rows:
            self._write(len(self._rows))
        self._file.close()


def to_arrow(rows: Sequence[Row], tokens: Sequence[int | None], arrow: pa.Schema) -> pa.RecordBatch:
    """Rows as a record batch of `Fingerprint.arrow`. tokens: of the input of each row, or None."""
    from m3index.schema import metadata_json

    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows]
        for name in ("passage_id", "doc_id", "ordinal", "source", "doc_hash", "passages", "title", "text")
    }
    columns["metadata"] = [metadata_json(row.metadata) for row in rows]
    columns["tokens"] = tokens
    arrays = {name: pa.array(values, arrow.field(name).type) for name, values in columns.items()}
    dense = arrow.field("dense").type
    flat = np.concatenate([row.dense for row in rows]).astype(dense.value_type.to_pandas_dtype(), copy=False)
    arrays["dense"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=dense)
    sparse = [row.sparse for row in rows]
    for name, part in (("lexical_indices", "indices"), ("lexical_values", "values")):
        arrays[name] = _lists(sparse, part, arrow.field(name).type)
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
    plain = {
        name: batch.column(name).to_pylist()
        for name in ("passage_id", "doc_id", "ordinal", "source", "doc_hash", "passages", "title", "text")
    }
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
