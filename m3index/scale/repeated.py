"""Documents that shards hold more than once: the first of equal ids counts, over all shards.

Only the keys are read (one column of the Parquet files), a range of them at a time, so that memory does not
grow with the corpus: each pass sorts the keys that fall into its range.
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
"""How many documents are compared in one pass: about 100 bytes each while they are sorted."""

_KEY = 32  # hex digits before the "-" of a passage id


class Repeated:
    """For each shard the documents, by their place in it, that are no first ones."""

    def __init__(self, places: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self._places, self._starts = places, starts

    def __len__(self) -> int:
        return len(self._places)

    def of_shard(self, index: int) -> frozenset[int]:
        """index: of the shard among all that were given."""
        start, end = self._starts[index], self._starts[index + 1]
        first, last = np.searchsorted(self._places, [start, end])
        return frozenset((self._places[first:last] - start).tolist())


def repeated(
    shards: Sequence[tuple[ShardFolder, Entry]], *, pass_documents: int = PASS_DOCUMENTS
) -> Repeated:
    """Looks through these shards, in their order."""
    starts = np.concatenate([[0], np.cumsum([entry.documents for _, entry in shards])]).astype(np.int64)
    passes = max(1, -(-int(starts[-1]) // pass_documents))
    bounds = [(i * 2**64) // passes for i in range(1, passes)]
    found = [
        _in_range(shards, starts, low, high) for low, high in zip([0, *bounds], [*bounds, 2**64], strict=True)
    ]
    return Repeated(np.sort(np.concatenate(found)), starts)


def _in_range(
    shards: Sequence[tuple[ShardFolder, Entry]], starts: NDArray[np.int64], low: int, high: int
) -> NDArray[np.int64]:
    """The places of the later ones of equal keys, among the keys whose first half is in [low, high)."""
    parts: list[NDArray[np.uint64]] = []
    places: list[NDArray[np.int64]] = []
    for index, (folder, entry) in enumerate(shards):
        keys, documents = document_keys(folder, entry)
        inside = keys[:, 0] >= np.uint64(low)
        if high < 2**64:
            inside &= keys[:, 0] < np.uint64(high)
        parts.append(keys[inside])
        places.append(documents[inside] + starts[index])
    if not parts:
        return np.zeros(0, np.int64)
    key, place = np.concatenate(parts), np.concatenate(places)
    order = np.lexsort((place, key[:, 1], key[:, 0]))
    key, place = key[order], place[order]
    again = (key[1:] == key[:-1]).all(axis=1)
    later: NDArray[np.int64] = place[1:][again]
    return later


def document_keys(folder: ShardFolder, entry: Entry) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The 128-bit keys of a shard's documents, (n, 2), and the place of each in the shard, from 0.

    A document that has no passage (it could not be cut) has a place in `Entry.documents` and none here.
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
    """A shard's rows as whole documents, without those at the skipped places."""
    place = -1
    document: list[Row] = []
    for row in rows:
        if row.ordinal == 0:
            if document and place not in skipped:
                yield document
            place, document = place + 1, []
        document.append(row)
    if document and place not in skipped:
        yield document
