"""A content-addressed cache of vectors: each input is encoded only once per model and settings.

The key is a digest of the input's token ids (including title, prompt and special tokens), in a folder named
after the encoder id. Entries are stored in packs: Arrow files that are written once and named by the digest
of their bytes, so any number of processes and machines can share a cache without a lock. A damaged or missing
pack is a cache miss, never an error.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from m3index.corpus.windows import Tokenizer
from m3index.encoder.base import Encoder
from m3index.errors import NotFoundError
from m3index.files import Folder
from m3index.types import EncodedBatch, EncoderInfo, FloatArray, IntArray, SparseRows, SparseVector

T = TypeVar("T")

PACK_ROWS = 8_192
PACK_SECONDS = 60.0
_KEY_BYTES = 16
_MERGE_AT = 8
_READERS = 16
_OPEN_LOCAL, _OPEN_REMOTE = 64, 4
"""How many packs stay open: local ones are memory-mapped, remote ones are held in memory."""


class CachedEncoder:
    """An encoder that looks up documents in the cache before encoding. Implements `encoder.base.Encoder`.

    Queries and multi-vectors are not cached. hits, misses: how many inputs the cache held, how many were
    encoded.
    """

    def __init__(self, encoder: Encoder, folder: Folder) -> None:
        self._encoder, self._folder = encoder, folder
        self._vectors: dict[bool, _Vectors] = {}
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def info(self) -> EncoderInfo:
        return self._encoder.info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._encoder.tokenizer

    @property
    def workers(self) -> int:
        return self._encoder.workers

    def prepare(self) -> None:
        self._encoder.prepare()

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Like `Encoder.encode_ids`, but encodes only the inputs that are missing from the cache."""
        if multi_vector or not len(ids):
            return self._encoder.encode_ids(ids, lexical=lexical, multi_vector=multi_vector)
        [(_, batch)] = self.encode_stream([(None, ids)], lexical=lexical)
        return batch

    def encode_stream(
        self, calls: Iterable[tuple[T, Sequence[IntArray]]], *, lexical: bool
    ) -> Iterator[tuple[T, EncodedBatch]]:
        """Like `Encoder.encode_stream`, but encodes only the inputs that are missing from the cache."""

        def looked_up() -> Iterator[tuple[_LookedUp[T], list[IntArray]]]:
            for item, ids in calls:
                found = self._look_up(item, ids, lexical)
                yield found, [ids[i] for i in found.missing]

        for found, encoded in self._encoder.encode_stream(looked_up(), lexical=lexical):
            if not len(found.ids):
                yield found.item, encoded
                continue
            new = {
                found.keys[i]: (encoded.dense[j], None if encoded.lexical is None else encoded.lexical.row(j))
                for j, i in enumerate(found.missing)
            }
            if new:
                with self._lock:
                    self._open(lexical).add(new)
            self.misses += len(found.missing)
            self.hits += len(found.keys) - len(found.missing)
            entries = found.entries | new
            yield found.item, _batch([entries[key] for key in found.keys], found.ids, lexical=lexical)

    def _look_up(self, item: T, ids: Sequence[IntArray], lexical: bool) -> _LookedUp[T]:
        keys = [_key(row) for row in ids]
        entries: dict[bytes, Vectors] = {}
        if keys:
            with self._lock:
                entries = self._open(lexical).get(keys)
        return _LookedUp(item, ids, keys, entries, [i for i, key in enumerate(keys) if key not in entries])

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        return self._encoder.encode_queries(texts, lexical=lexical, multi_vector=multi_vector)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return self._encoder.token_texts(ids)

    def flush(self) -> None:
        """Writes all pending entries."""
        with self._lock:
            for vectors in self._vectors.values():
                vectors.flush()

    def close(self) -> None:
        self.flush()
        self._encoder.close()

    def _open(self, lexical: bool) -> _Vectors:
        if lexical not in self._vectors:
            kind = "lexical" if lexical else "dense"
            folder = self._folder.sub(f"{self.info.encoder_id}-{kind}")
            self._vectors[lexical] = _Vectors(folder, self.info.dim, lexical=lexical)
        return self._vectors[lexical]


Vectors = tuple[FloatArray, SparseVector | None]


@dataclass(frozen=True, slots=True)
class _LookedUp(Generic[T]):
    """The inputs of a call, and what the cache has of them. missing: the indices of the others."""

    item: T
    ids: Sequence[IntArray]
    keys: Sequence[bytes]
    entries: dict[bytes, Vectors]
    missing: Sequence[int]


def _key(ids: IntArray) -> bytes:
    return hashlib.blake2b(np.asarray(ids, "<i4").tobytes(), digest_size=_KEY_BYTES).digest()


def _batch(rows: Sequence[Vectors], ids: Sequence[IntArray], *, lexical: bool) -> EncodedBatch:
    dense = np.stack([dense for dense, _ in rows]).astype(np.float32, copy=False)
    tokens = np.array([len(row) for row in ids], np.int32)
    if not lexical:
        return EncodedBatch(dense, None, tokens)
    sparse = [vector for _, vector in rows if vector is not None]
    indptr = np.concatenate([[0], np.cumsum([len(vector) for vector in sparse])]).astype(np.int64)
    indices = np.concatenate([vector.indices for vector in sparse])
    values = np.concatenate([vector.values for vector in sparse])
    return EncodedBatch(dense, SparseRows(indptr, indices, values), tokens)


@dataclass(frozen=True, slots=True)
class _Places:
    """An index of entries: the two halves of each key, sorted by the first, with its pack and row."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    pack: NDArray[np.int32]
    row: NDArray[np.int32]

    @classmethod
    def of(cls, keys: bytes, pack: int) -> _Places:
        pairs = np.frombuffer(keys, "<u8").reshape(-1, 2)
        rows = np.arange(len(pairs), dtype=np.int32)
        return cls.sorted(pairs[:, 0], pairs[:, 1], np.full(len(rows), pack, np.int32), rows)

    @classmethod
    def sorted(
        cls,
        first: NDArray[np.uint64],
        second: NDArray[np.uint64],
        pack: NDArray[np.int32],
        row: NDArray[np.int32],
    ) -> _Places:
        order = np.argsort(first, kind="stable")
        return cls(first[order], second[order], pack[order], row[order])

    @classmethod
    def merged(cls, parts: Sequence[_Places]) -> _Places:
        columns = zip(*((p.first, p.second, p.pack, p.row) for p in parts), strict=True)
        return cls.sorted(*(np.concatenate(column) for column in columns))

    def find(self, keys: NDArray[np.uint64]) -> dict[int, tuple[int, int]]:
        """Maps i to the pack and row of keys[i], for each key in this index."""
        if not len(self.first):
            return {}
        places = np.minimum(np.searchsorted(self.first, keys[:, 0]), len(self.first) - 1)
        # If two keys share a first half, the second one is a miss. This is rarer than a disk failure.
        matches = (self.first[places] == keys[:, 0]) & (self.second[places] == keys[:, 1])
        return {
            int(i): (int(self.pack[places[i]]), int(self.row[places[i]])) for i in np.flatnonzero(matches)
        }


class _Vectors:
    """The entries of one encoder. Holds 24 bytes of memory per entry, plus the open packs."""

    def __init__(self, folder: Folder, dim: int, *, lexical: bool) -> None:
        self._folder, self._lexical = folder, lexical
        columns = {"key": pa.binary(_KEY_BYTES), "dense": pa.list_(pa.float32(), dim)}
        if lexical:
            columns |= {"indices": pa.list_(pa.int32()), "values": pa.list_(pa.float32())}
        self._schema = pa.schema(list(columns.items()))
        self._packs = sorted(name for name in folder.sizes() if name.endswith(".arrow"))
        with ThreadPoolExecutor(_READERS) as pool:
            keys = [(i, k) for i, k in enumerate(pool.map(self._keys, self._packs)) if k is not None]
        self._places = [_Places.merged([_Places.of(k, i) for i, k in keys])] if keys else []
        self._open: OrderedDict[int, pa.RecordBatch | None] = OrderedDict()
        self._pending: dict[bytes, Vectors] = {}
        self._flushed = time.monotonic()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        entries = {key: self._pending[key] for key in keys if key in self._pending}
        queries = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
        for places in self._places:
            for i, (pack, row) in places.find(queries).items():
                if keys[i] not in entries and (entry := self._entry(pack, row)) is not None:
                    entries[keys[i]] = entry
        return entries

    def add(self, entries: dict[bytes, Vectors]) -> None:
        self._pending |= entries
        if len(self._pending) >= PACK_ROWS or time.monotonic() - self._flushed > PACK_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._pending:
            return
        batch = self._arrow()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._schema) as writer:
            writer.write_batch(batch)
        data = sink.getvalue().to_pybytes()
        name = f"{_digest(data)}.arrow"
        self._folder.write(name, data)
        self._places.append(_Places.of(b"".join(self._pending), len(self._packs)))
        self._packs.append(name)
        self._pending = {}
        if len(self._places) > _MERGE_AT:
            self._places = [_Places.merged(self._places)]

    def _arrow(self) -> pa.RecordBatch:
        rows = list(self._pending.values())
        flat = pa.array(np.concatenate([dense for dense, _ in rows]).astype(np.float32, copy=False))
        arrays = [
            pa.array(list(self._pending), self._schema.field("key").type),
            pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("dense").type),
        ]
        if self._lexical:
            vectors = [vector for _, vector in rows if vector is not None]
            offsets = pa.array(np.concatenate([[0], np.cumsum([len(v) for v in vectors])]).astype(np.int32))
            arrays += [
                pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([v.indices for v in vectors]))),
                pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([v.values for v in vectors]))),
            ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _keys(self, name: str) -> bytes | None:
        """The concatenated keys of a pack, or None if it cannot be read."""
        options = pa.ipc.IpcReadOptions(included_fields=[0])
        try:
            with self._folder.open(name) as source:
                column = pa.ipc.open_file(source, options=options).get_batch(0).column(0)
                return b"".join(column.to_pylist())
        except (pa.ArrowException, OSError, NotFoundError):
            return None

    def _entry(self, pack: int, row: int) -> Vectors | None:
        batch = self._batch(pack)
        if batch is None:
            return None
        dense = batch.column(1)[row].values.to_numpy(zero_copy_only=False)
        if not self._lexical:
            return dense, None
        indices, values = (batch.column(i)[row].values.to_numpy(zero_copy_only=False) for i in (2, 3))
        return dense, SparseVector(indices, values)

    def _batch(self, pack: int) -> pa.RecordBatch | None:
        if pack in self._open:
            self._open.move_to_end(pack)
            return self._open[pack]
        self._open[pack] = self._read(self._packs[pack])
        if len(self._open) > (_OPEN_LOCAL if self._folder.local else _OPEN_REMOTE):
            self._open.popitem(last=False)
        return self._open[pack]

    def _read(self, name: str) -> pa.RecordBatch | None:
        try:
            source = self._folder.map(name)
            if _digest(source) != name.partition(".")[0]:
                return None
            batch = pa.ipc.open_file(source).get_batch(0)
        except (pa.ArrowException, OSError, NotFoundError):
            return None
        return batch if batch.schema.equals(self._schema) else None


def _digest(data: bytes | pa.Buffer) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
