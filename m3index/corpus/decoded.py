"""Bounds on what a Parquet file becomes when it is decoded: its own sizes are those of encoded values.

A dictionary stores a value once for any number of rows, so that kilobytes become gigabytes. Columns in which
that is possible are read as dictionaries, measured, and decoded in parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from m3index.types import IntArray

HARMLESS = 256 * 1024
"""The encoded bytes of a column of a row group up to which it is decoded at once: no value is longer."""

MAX_VALUES = 1 << 26
"""The number of values of a column of lists in a row group: even those of one row are decoded at once."""


_COMPACT = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"})
"""The encodings that can be read as a dictionary."""


def compact_columns(metadata: Any) -> list[str]:
    """The paths of the columns of text that can become much larger than they are, and can be measured before:
    they are to be read as dictionaries."""
    growing: set[str] = set()
    others: set[str] = set()
    for group in range(metadata.num_row_groups):
        for chunk in _chunks(metadata.row_group(group)):
            if not _COMPACT.issuperset(chunk.encodings):
                others.add(chunk.path_in_schema)
            elif _can_grow(chunk):
                growing.add(chunk.path_in_schema)
    return sorted(growing - others)


def rows_at_once(group: Any, compact: Collection[str], most_rows: int, most_bytes: int) -> int:
    """The number of rows to read at once from a row group, whose columns `compact` are read as dictionaries.
    Raises ValueError if one row can be too large."""
    row_bytes = group.total_byte_size / max(group.num_rows, 1)
    rows = min(most_rows, most_bytes // max(row_bytes, 1))
    for chunk in _chunks(group):
        if chunk.num_values > MAX_VALUES:
            raise ValueError(
                f"column {chunk.path_in_schema!r} has {chunk.num_values:,} values in a row group, "
                f"more than {MAX_VALUES:,}"
            )
        if _can_grow(chunk) and chunk.path_in_schema not in compact:  # a value can be as long as all of it
            rows = min(rows, most_bytes // chunk.total_uncompressed_size)
    return int(max(1, rows))


def _chunks(group: Any) -> Iterator[Any]:
    return (group.column(i) for i in range(group.num_columns))


def _can_grow(chunk: Any) -> bool:
    return bool(chunk.physical_type == "BYTE_ARRAY" and chunk.total_uncompressed_size > HARMLESS)


def parts(batch: Any, most: int) -> Iterator[tuple[Any, IntArray]]:
    """The batch in parts of at most `most` decoded bytes, or of one row, with the bytes of each row."""
    sizes = sum((decoded_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    start = 0
    while start < batch.num_rows:
        fitting = int(np.searchsorted(np.cumsum(sizes[start:]), most, side="right"))
        end = start + max(1, fitting)
        yield batch.slice(start, end - start), sizes[start:end]
        start = end


def decoded(batch: Any) -> Any:
    """The batch with plain columns in place of dictionaries at the top level."""
    import pyarrow as pa

    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def decoded_sizes(column: Any) -> IntArray:
    """The decoded bytes of each value of a column, about."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        if not len(column.dictionary):
            return np.zeros(len(column), np.int64)
        lengths = decoded_sizes(column.dictionary)
        return np.where(_valid(column), lengths[_filled(column.indices, 0)], 0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        inner = [column.keys, column.items] if pa.types.is_map(kind) else [column.values]
        totals = np.concatenate([[0], np.cumsum(sum(8 + decoded_sizes(values) for values in inner))])
        offsets = column.offsets.to_numpy(zero_copy_only=False)
        return np.asarray(totals[offsets[1:]] - totals[offsets[:-1]], np.int64)
    if pa.types.is_struct(kind):
        return sum((decoded_sizes(part) for part in column.flatten()), np.zeros(len(column), np.int64))
    if _has_length(kind):
        return _filled(pc.binary_length(column), 0)
    return np.full(len(column), 8, np.int64)


def _has_length(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        of(kind)
        for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _valid(column: Any) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _filled(numbers: Any, value: int) -> IntArray:
    return np.asarray(numbers.fill_null(value).to_numpy(zero_copy_only=False), np.int64)
