"""Rows on their way to a store and back: checked, sized, and in the form that is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from m3index import schema
from m3index.errors import RowRefusedError
from m3index.schema import CollectionSpec
from m3index.store.analyzer import bm25_text
from m3index.store.base import StoredRow
from m3index.store.half_precision import pack, unpack
from m3index.types import PLAIN_FIELDS, AnyRow, Row, RowUpdate, SparseVector, Storage, join_title

if TYPE_CHECKING:
    from scipy import sparse

EMPTY_DIMENSION = 2**31 - 1
"""The dimension of a passage without lexical tokens, because engines refuse an empty sparse vector. No
token id is that large, and no query may use it."""

NOT_STORED = "it is not stored"

BATCH_ROWS = 1_000
BATCH_BYTES = 16 * 2**20

_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LIMITS = {f["name"]: f["max_length"] for f in schema.collection()["fields"] if f["type"] == "VARCHAR"}
_TEXTS = tuple(
    (name, _LIMITS[name])
    for name in ("doc_id", "source", "doc_hash", "title", "breadcrumb", "anchor", "text")
)
"""The texts of a row with their limits in bytes."""
_NUMBERS = ("ordinal", "passages")
_UPDATED_TEXTS = tuple(text for text in _TEXTS if text[0] == "doc_hash")
_UPDATED_NUMBERS = ("passages",)
"""Of an update."""


@dataclass(frozen=True, slots=True)
class WireRow(Generic[AnyRow]):
    """A checked row: the value of each field. size: a rough upper estimate of its bytes on the wire."""

    row: AnyRow
    entity: Mapping[str, Any]
    size: int


def last_of_each(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """Keeps the last of rows with equal keys, because engines differ in which one wins."""
    return list({row.passage_id: row for row in rows}.values())


def checked(
    rows: Iterable[AnyRow], spec: CollectionSpec, *, bm25_limit: int
) -> tuple[list[WireRow[AnyRow]], dict[str, str]]:
    """The rows that can be written, and the reasons for the others by passage_id."""
    good: list[WireRow[AnyRow]] = []
    reasons: dict[str, str] = {}
    for row in last_of_each(rows):
        try:
            good.append(to_wire(row, spec, bm25_limit=bm25_limit))
        except ValueError as error:
            reasons[row.passage_id] = reason(row, str(error))
    return good, reasons


def reason(row: Row | RowUpdate, words: str) -> str:
    """Why a row is refused, in the words of the store."""
    if isinstance(row, Row):
        return f"document {row.doc_id!r}, passage {row.ordinal}: {words}"
    return f"the change of the row {row.passage_id}: {words}"


def refused(reasons: Mapping[str, str]) -> RowRefusedError:
    """The error that names the refused rows. The message shows at most two reasons."""
    shown = "; ".join(list(reasons.values())[:2])
    more = f"; and {len(reasons) - 2} more" if len(reasons) > 2 else ""
    return RowRefusedError(f"The store refuses {shown}{more}.", reasons)


def refusal(row: Row | RowUpdate, spec: CollectionSpec, *, bm25_limit: int) -> str:
    """Why no row with this content can be stored, whatever its vectors; empty if it can."""
    try:
        _content(row, spec, bm25_limit)
    except ValueError as error:
        return str(error)
    return ""


def to_wire(row: AnyRow, spec: CollectionSpec, *, bm25_limit: int) -> WireRow[AnyRow]:
    """Raises ValueError with the reason if no engine can store the row.

    bm25_limit: the limit of the text for BM25, as stored, in bytes.
    """
    entity, size = _content(row, spec, bm25_limit)
    if isinstance(row, RowUpdate):
        return WireRow(row, entity, size)
    entity["dense"] = _dense(row, spec)
    size += (4 if spec.storage == "fp32" else 2) * spec.dim
    if spec.sparse == "lexical":
        entity["lexical"] = _lexical(row.sparse)
        size += 8 * len(entity["lexical"])
    elif row.sparse is not None:
        raise ValueError("it has lexical weights, but the collection has no lexical field")
    return WireRow(row, entity, size)


def _content(row: Row | RowUpdate, spec: CollectionSpec, bm25_limit: int) -> tuple[dict[str, Any], int]:
    """Everything but the vectors, with its size: the only place of the bounds of a row. Raises ValueError."""
    if not _KEY.fullmatch(row.passage_id):
        raise ValueError(f"the key {row.passage_id!r} must be 1 to 64 letters, digits, - or _")
    entity: dict[str, Any] = {"passage_id": row.passage_id}
    size = 256
    texts, numbers = (_TEXTS, _NUMBERS) if isinstance(row, Row) else (_UPDATED_TEXTS, _UPDATED_NUMBERS)
    for name, limit in texts:
        entity[name] = value = getattr(row, name)
        size += len(value) if value.isascii() and len(value) <= limit else _utf8(name, value, limit)
    for name in numbers:
        entity[name] = _whole(name, getattr(row, name))
    entity["metadata"] = schema.metadata_json(row.metadata)
    size += schema.utf8_size(entity["metadata"])
    if unknown := row.fields.keys() - spec.fields.keys():
        raise ValueError(f"the field {sorted(unknown)[0]!r} is not declared")
    for name, kind in spec.fields.items():
        value = schema.field_value(name, kind, row.fields.get(name))
        entity[name] = list(value) if isinstance(value, tuple) else value
        size += schema.utf8_size(json.dumps(entity[name], ensure_ascii=False))
    if spec.tenant is not None and entity[spec.tenant] is None:
        raise ValueError(f"no value for the tenant field {spec.tenant!r}")
    if isinstance(row, Row) and spec.sparse == "bm25":
        text = bm25_text(join_title(row.title, row.breadcrumb, row.text), spec.analyzer or "")
        size += _utf8("the title and text for BM25", text, bm25_limit)
        entity["bm25_input"] = text
    return entity, size


def batches(rows: Iterable[WireRow[AnyRow]]) -> Iterator[list[WireRow[AnyRow]]]:
    """Groups of at most BATCH_ROWS rows and BATCH_BYTES bytes, one for each call; a larger row goes alone."""
    batch: list[WireRow[AnyRow]] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or size + row.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch


def from_wire(entity: Mapping[str, Any], fields: Sequence[str], storage: Storage = "fp32") -> dict[str, Any]:
    """A row as read: `passage_id` and the requested fields, in the types of StoredRow."""
    stored: dict[str, Any] = {"passage_id": entity["passage_id"]}
    for name in fields:
        value = entity[name]
        if name == "dense":
            value = unpack(value, storage)
        elif name == "lexical":
            value = sparse_vector(value)
        elif name == "metadata":
            value = json.loads(value) if isinstance(value, str | bytes) else value
        elif value is not None and not isinstance(value, str | int | float | bool):
            value = list(value)
        stored[name] = value
    return stored


def row_fields(spec: CollectionSpec) -> list[str]:
    """The fields of a complete row."""
    return [*PLAIN_FIELDS, "metadata", *spec.fields, *vector_fields(spec)]


def vector_fields(spec: CollectionSpec) -> list[str]:
    """The vector fields that are written; the store computes those of BM25."""
    return ["dense", "lexical"] if spec.sparse == "lexical" else ["dense"]


def row_of(passage_id: str, stored: StoredRow, spec: CollectionSpec) -> Row:
    """Turns a row read with `row_fields` into a row to write."""
    sparse: SparseVector | None = stored["lexical"] if spec.sparse == "lexical" else None
    return Row(
        passage_id=passage_id,
        **{name: stored[name] for name in PLAIN_FIELDS},
        metadata=stored["metadata"],
        fields={field: stored[field] for field in spec.fields},
        dense=stored["dense"],
        sparse=sparse,
    )


def changed(row: Row, update: RowUpdate) -> Row:
    """The whole row after the update."""
    return replace(
        row,
        doc_hash=update.doc_hash,
        passages=update.passages,
        metadata=update.metadata,
        fields=update.fields,
    )


def sparse_vector(weights: Mapping[int, float]) -> SparseVector:
    pairs = sorted((int(i), float(v)) for i, v in weights.items() if int(i) != EMPTY_DIMENSION)
    return SparseVector(
        np.array([i for i, _ in pairs], np.int32), np.array([v for _, v in pairs], np.float32)
    )


def csr_row(vector: SparseVector) -> sparse.csr_matrix:
    """One row in CSR form, which pymilvus packs faster than a dict."""
    from scipy import sparse  # not needed for the one row of a search

    indices, values = vector.indices, vector.values
    return sparse.csr_matrix((values, indices, np.array([0, len(indices)])), shape=(1, EMPTY_DIMENSION + 1))


def _utf8(name: str, value: str, limit: int) -> int:
    try:
        size = schema.utf8_size(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name}: a lone surrogate cannot be stored") from None
    if size > limit:
        raise ValueError(f"{name}: {size} bytes, the limit is {limit}")
    return size


def _whole(name: str, value: int) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 0")
    return value


def _dense(row: Row, spec: CollectionSpec) -> Any:
    vector = np.asarray(row.dense, np.float32)
    if vector.shape != (spec.dim,):
        raise ValueError(f"dense: shape {vector.shape}, but the collection has ({spec.dim},)")
    if not 0 < float(vector @ vector) < np.inf:  # surely neither, seen in one pass
        if not np.isfinite(vector).all():
            raise ValueError("dense: not finite")
        if not vector.any():
            raise ValueError("dense: all zeros")
    return pack(vector, spec.storage)


def _lexical(vector: SparseVector | None) -> SparseVector:
    if vector is None:
        raise ValueError("lexical: missing")
    indices, values = np.asarray(vector.indices), np.asarray(vector.values, np.float32)
    if len(indices) == 0:
        return SparseVector(np.array([EMPTY_DIMENSION], np.int32), np.array([1.0], np.float32))
    if indices[0] < 0 or indices[-1] >= EMPTY_DIMENSION or (indices[1:] <= indices[:-1]).any():
        raise ValueError("lexical: the token ids do not ascend from 0")
    if not (values.min() > 0 and values.max() < np.inf):
        raise ValueError("lexical: a weight is not finite and greater than 0")
    return SparseVector(indices.astype(np.int32, copy=False), values)
