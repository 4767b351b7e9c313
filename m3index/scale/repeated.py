"""Finds documents that occur several times in shards. Of equal ids, the first counts, across all shards.

Only the keys are read (one column of the Parquet files), one range at a time, so that memory does not grow
with the corpus: each pass sorts the keys in its range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from m3index.scale.manifest import Entry, ShardFolder
from m3index.scale.shards import reading
from m3index.types import Row

PASS_DOCUMENTS = 50_000_000
"""Number of documents compared in one pass; sorting takes about 100 bytes each."""

_KEY = 32  # hex digits before the "-" of a passage id


class Repeated:
    """The repeated documents, except the first of each, by shard and position."""

    def __init__(self, positions: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self._positions, self._starts = positions, starts

    def __len__(self) -> int:
        return len(self._positions)

    def of_shard(self, index: int) -> frozenset[int]:
        """The positions in a shard. index: of the shard in the sequence."""
        start, end = self._starts[index], self._starts[index + 1]
        first, last = np.searchsorted(self._positions, [start, end])
        return frozenset((self._positions[first:last] - start).tolist())


def repeated(
    shards: Sequence[tuple[ShardFolder, Entry]], *, pass_documents: int = PASS_DOCUMENTS
) -> Repeated:
    """Finds the repeated documents of the shards, in order. Raises DriftError for a damaged shard."""
    starts = np.concatenate([[0], np.cumsum([entry.documents for _, entry in shards])]).astype(np.int64)
    passes = max(1, -(-int(starts[-1]) // pass_documents))
    bounds = [(i * 2**64) // passes for i in range(1, passes)]
    parts = [
        _in_range(shards, starts, low, high) for low, high in zip([0, *bounds], [*bounds, 2**64], strict=True)
    ]
    return Repeated(np.sort(np.concatenate(parts)), starts)


def _in_range(
    shards: Sequence[tuple[ShardFolder, Entry]], starts: NDArray[np.int64], low: int, high: int
) -> NDArray[np.int64]:
    """The positions of repeated keys, except the first of each, whose first half is in [low, high)."""
    parts: list[NDArray[np.uint64]] = []
    positions: list[NDArray[np.int64]] = []
    for index, (folder, entry) in enumerate(shards):
        keys, documents = document_keys(folder, entry)
        inside = keys[:, 0] >= np.uint64(low)
        if high < 2**64:
            inside &= keys[:, 0] < np.uint64(high)
        parts.append(keys[inside])
        positions.append(documents[inside] + starts[index])
    if not parts:
        return np.zeros(0, np.int64)
    key, position = np.concatenate(parts), np.concatenate(positions)
    order = np.lexsort((position, key[:, 1], key[:, 0]))
    key, position = key[order], position[order]
    is_repeated = (key[1:] == key[:-1]).all(axis=1)
    later: NDArray[np.int64] = position[1:][is_repeated]
    return later


def document_keys(folder: ShardFolder, entry: Entry) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The 128-bit keys of the documents of a shard, (n, 2), and their positions in the shard, from 0.

    A document without passages (it could not be cut) counts in `Entry.documents`, but not here.
    """
    with reading(folder.shards, entry.file) as file:
        ids = file.read(columns=["passage_id", "ordinal"])
    first = ids.filter(pc.equal(ids.column("ordinal"), 0)).column("passage_id")
    text = pc.utf8_slice_codeunits(first, 0, _KEY).cast(pa.binary())
    flat = np.frombuffer(b"".join(text.to_pylist()), np.uint8).reshape(-1, _KEY)
    digits = np.where(flat >= ord("a"), flat - (ord("a") - 10), flat - ord("0")).astype(np.uint8)
    keys = (digits[:, ::2] << 4 | digits[:, 1::2]).copy().view(">u8").astype(np.uint64)
    return keys, np.arange(len(keys), dtype=np.int64)


def documents_of(rows: Iterator[Row], skipped: frozenset[int]) -> Iterator[list[Row]]:
    """The rows of a shard as whole documents, without those at the skipped positions."""
    position = -1
    document: list[Row] = []
    for row in rows:
        if row.ordinal == 0:
            if document and position not in skipped:
                yield document
            position, document = position + 1, []
        document.append(row)
    if document and position not in skipped:
        yield document
