"""Exports a collection as shards: for a rebuild, a move to another Milvus, or another index type.

The documents are sorted by key, so an interrupted export continues, and a later export of the same collection
writes only shards that have changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from m3index.errors import DriftError, decide
from m3index.files import Folder
from m3index.index.collection import Collection, find
from m3index.index.options import Never, Stop
from m3index.index.write import READ_ROWS
from m3index.progress import Progress, Reporter, Silent
from m3index.scale import blocks
from m3index.scale.blocks import ShardKey, content_bytes
from m3index.scale.encode import EncodedRows, open_for, write_shard
from m3index.scale.manifest import CorpusRecord, digest_of_digests
from m3index.scale.options import DenseType
from m3index.scale.shards import Fingerprint, to_arrow
from m3index.store.base import Store
from m3index.store.filter import Compare
from m3index.store.rows import row_fields, row_of
from m3index.types import EncoderInfo, Row, key_of_passage, passage_key
from m3index.wording import many

_DOCUMENT = np.dtype([("key", "S32"), ("passages", np.int32), ("hash", "S65")])
_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The result of a run. rows: of the whole collection."""

    collection: str
    out: str
    encoder: str
    shards: int
    written: int
    kept: int
    documents: int
    rows: int
    store_count: int
    count_ok: bool
    seconds: float
    exit: int

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", "command": "export", **asdict(self)}


def export(
    store: Store,
    alias: str,
    out: Folder,
    *,
    dense: DenseType = "float32",
    block: int = blocks.DOCUMENTS,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> ExportSummary:
    """Writes all rows of the collection. Raises DriftError if it has half-written documents or its row count
    does not match its documents, CollectionNotFoundError, MismatchError, StoreError."""
    reporter, stop = reporter or Silent(), stop or Never()
    started = time.monotonic()
    target = find(store, alias)
    fingerprint = _fingerprint(target, dense)
    folder = open_for(out, fingerprint)
    reporter.stage("listing the documents")
    documents = _documents(store, target)
    rows, count = int(documents["passages"].sum()), store.count(target.name)
    if rows != count:
        raise DriftError(
            f"{alias!r} has {many(count, 'row')}, but its documents have {many(rows, 'passage')}. If no "
            f"other run is writing, repair it with `m3index verify --repair -c {alias}`."
        )
    contents, written, done = [], 0, 0
    reporter.stage(f"exporting {many(len(documents), 'document')}")
    for number, first in enumerate(range(0, len(documents), block)):
        part = documents[first : first + block]
        shard = ShardKey(number, _content(part), len(part))
        contents.append(shard.content)
        if not stop() and not folder.finished(number, shard.content, fingerprint.digest):
            written += (
                write_shard(folder, fingerprint, _pieces(store, target, shard, part, fingerprint.arrow))
                is not None
            )
        done += int(part["passages"].sum())
        reporter.progress(Progress(first + len(part), done, total=len(documents)))
    if not stop():
        content = digest_of_digests(contents)
        spec = target.spec
        folder.conclude(
            CorpusRecord(
                len(contents),
                len(documents),
                content,
                fingerprint,
                dict(spec.fields),
                spec.tenant,
                spec.storage,
            )
        )
    return ExportSummary(
        collection=alias,
        out=str(out),
        encoder=fingerprint.encoder.name,
        shards=len(contents),
        written=written,
        kept=len(contents) - written,
        documents=len(documents),
        rows=rows,
        store_count=count,
        count_ok=True,
        seconds=round(time.monotonic() - started, 3),
        exit=int(decide(stopped=stop.exit if stop() else None)),
    )


def _fingerprint(target: Collection, dense: DenseType) -> Fingerprint:
    """The fingerprint of the collection, which does not record the limits of the model itself."""
    properties, spec = target.properties, target.spec
    info = EncoderInfo(
        name=properties.get("encoder", ""),
        dim=spec.dim,
        limit=target.passages.tokens,
        window_reserve=0,
        lexical=spec.sparse == "lexical",
        multi_vector=False,
        space_id=properties["space_id"],
        encoder_id=properties["encoder_id"],
    )
    return Fingerprint(info, spec.sparse, target.passages, dense)


def _documents(store: Store, target: Collection) -> NDArray[np.void]:
    """Key, number of passages and hash of every document, sorted by key. Raises DriftError."""
    parts: list[NDArray[np.void]] = []
    documents: list[tuple[str, int, str]] = []
    unfinished = 0
    for row in store.scan(target.name, Compare("ordinal", "==", 0), ["passages", "doc_hash"]):
        unfinished += not row["doc_hash"]
        documents.append((key_of_passage(row["passage_id"]), row["passages"], row["doc_hash"]))
        if len(documents) == _CHUNK:
            parts.append(np.array(documents, _DOCUMENT))
            documents = []
    if unfinished:
        raise DriftError(
            f"{target.alias!r} has {many(unfinished, 'half-written document')}: a run is in progress or was "
            "interrupted. Complete the sync of their corpus first."
        )
    parts.append(np.array(documents, _DOCUMENT))
    return np.sort(np.concatenate(parts), order="key")


def _content(part: NDArray[np.void]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, _, doc_hash in part.tolist():
        digest.update(content_bytes(key.decode(), doc_hash.decode()))
    return digest.hexdigest()


def _pieces(
    store: Store, target: Collection, shard: ShardKey, part: NDArray[np.void], arrow: pa.Schema
) -> Iterator[EncodedRows]:
    ids = [passage_key(key.decode(), o) for key, passages, _ in part.tolist() for o in range(passages)]
    for start in range(0, len(ids), READ_ROWS):
        rows = _rows(store, target, ids[start : start + READ_ROWS])
        batch = to_arrow(rows, [None] * len(rows), arrow)
        yield EncodedRows(shard, batch, 0, last=start + READ_ROWS >= len(ids))


def _rows(store: Store, target: Collection, ids: Sequence[str]) -> list[Row]:
    stored = store.get(target.name, ids, row_fields(target.spec))
    if len(stored) != len(ids):
        raise DriftError(
            f"{many(len(ids) - len(stored), 'row')} of {target.alias!r} disappeared during the export: "
            "another run is writing. Export again when it has ended."
        )
    return [row_of(passage_id, stored[passage_id], target.spec) for passage_id in ids]
