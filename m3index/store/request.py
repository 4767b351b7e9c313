"""The request that writes rows, built by column.

pymilvus builds the same message row by row, and each number of a vector as an object of Python, which takes
150 microseconds for a row of BGE-M3 and holds up the thread of the encoder. By column, vectors are copied
as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, FieldSchema
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from m3index.schema import CollectionSpec
from m3index.store.definition import to_milvus
from m3index.store.rows import WireRow
from m3index.types import AnyRow, FloatArray, RowUpdate, SparseVector

_FLOATS = b"\x0a"  # the tag of FloatArray.data: field 1, packed
_SCALARS = {
    DataType.VARCHAR: "string_data",
    DataType.INT64: "long_data",
    DataType.DOUBLE: "double_data",
    DataType.BOOL: "bool_data",
}
_HALVES = {DataType.FLOAT16_VECTOR: "float16_vector", DataType.BFLOAT16_VECTOR: "bfloat16_vector"}


def upsert_request(name: str, rows: Sequence[WireRow[AnyRow]], spec: CollectionSpec, *, lite: bool) -> Any:
    """The request of pymilvus for the entities of these rows, at least one: whole rows, or updates."""
    request = milvus_pb2.UpsertRequest(collection_name=name, num_rows=len(rows))
    request.partial_update = isinstance(rows[0].row, RowUpdate)
    for field in to_milvus(spec, lite=lite).fields:
        if field.name in rows[0].entity:  # the server computes the others, or keeps them
            request.fields_data.append(_column(field, [row.entity[field.name] for row in rows], spec.dim))
    return request


def _column(field: FieldSchema, values: Sequence[Any], dim: int) -> Any:
    data = schema_pb2.FieldData(type=field.dtype, field_name=field.name)
    if field.nullable:
        data.valid_data.extend(value is not None for value in values)
        values = [value for value in values if value is not None]
    if field.dtype in _SCALARS:
        getattr(data.scalars, _SCALARS[field.dtype]).data.extend(values)
    elif field.dtype == DataType.JSON:
        data.scalars.json_data.data.extend(value.encode() for value in values)
    elif field.dtype == DataType.ARRAY:
        lists = [schema_pb2.ScalarField(string_data=schema_pb2.StringArray(data=each)) for each in values]
        data.scalars.array_data.data.extend(lists)
    elif field.dtype == DataType.SPARSE_FLOAT_VECTOR:
        data.vectors.sparse_float_vector.contents.extend(_pairs(values))
    elif field.dtype in _HALVES:
        data.vectors.dim = dim
        setattr(data.vectors, _HALVES[field.dtype], b"".join(values))
    else:
        data.vectors.dim = dim
        data.vectors.float_vector.MergeFromString(_packed(values))
    return data


def _packed(vectors: Sequence[FloatArray]) -> bytes:
    """The bytes of a FloatArray of these vectors."""
    flat = np.concatenate(vectors).astype("<f4", copy=False).tobytes()
    length, varint = len(flat), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join((_FLOATS, varint, flat))


def _pairs(vectors: Sequence[SparseVector]) -> list[bytes]:
    """Each vector as pairs of a token id (4 bytes) and a weight (4 bytes)."""
    pairs = np.empty((sum(map(len, vectors)), 2), "<u4")
    pairs[:, 0] = np.concatenate([vector.indices for vector in vectors])
    pairs[:, 1] = np.concatenate([vector.values for vector in vectors]).astype("<f4").view("<u4")
    data, ends = pairs.tobytes(), np.cumsum([8 * len(vector) for vector in vectors]).tolist()
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
