"""Collection -> the same shards: for a rebuild, a move to another Milvus, or another index type.

The documents go by their keys, so that an export which was interrupted is taken up, and a later one of the
same collection does only what has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3index.errors import DriftError, Exit
from m3index.files import Folder
from m3index.index.collection import Target, find
from m3index.index.settings import Never, Stop
from m3index.index.write import READ_ROWS, row_fields, row_of
from m3index.progress import Progress, Reporter, Silent
from m3index.scale import blocks
from m3index.scale.blocks import ShardKey, content_bytes
from m3index.scale.encode import Encoded, open_for, write_shard
from m3index.scale.manifest import CorpusRecord, digest_of_digests
from m3index.scale.shards import DenseType, Fingerprint
from m3index.store.base import Store
from m3index.store.filter import Compare
from m3index.types import EncoderInfo, Row, key_of_passage, passage_key

_LISTED = np.dtype([("key", "S32"), ("passages", np.int32), ("hash", "S65")])
_LISTED_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What a run did. rows: of the whole collection, as the shards have them."""

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
    """Writes every row of the collection. Raises DriftError where it holds half-written documents, or its
    count is not that of its documents' passages."""
    reporter, stop = reporter or Silent(), stop or Never()
    started = time.monotonic()
    target = find(store, alias)
    fingerprint = _fingerprint(target, dense)
    folder = open_for(out, fingerprint)
    reporter.stage("listing the documents")
    listed = _documents(store, target)
    rows, count = int(listed["passages"].sum()), store.count(target.name)
    if rows != count:
        raise DriftError(
            f"{alias!r} has {count:,} rows, and its documents say {rows:,}. Another run may be writing; else "
            f"mend it with `m3index verify --repair -c {alias}`."
        )
    contents, written, done = [], 0, 0
    reporter.stage(f"exporting {len(listed):,} documents")
    for number, first in enumerate(range(0, len(listed), block)):
        part = listed[first : first + block]
        shard = ShardKey(number, _content(part), len(part))
        contents.append(shard.content)
        if not stop() and not folder.finished(number, shard.content, fingerprint.digest):
            written += write_shard(folder, fingerprint, _pieces(store, target, shard, part)) is not None
        done += int(part["passages"].sum())
        reporter.progress(Progress(first + len(part), done, total=len(listed)))
    if not stop():
        content = digest_of_digests(contents)
        spec = target.spec
        folder.conclude(
            CorpusRecord(
                len(contents),
                len(listed),
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
        documents=len(listed),
        rows=rows,
        store_count=count,
        count_ok=True,
        seconds=round(time.monotonic() - started, 3),
        exit=int(stop.exit if stop() else Exit.OK),
    )


def _fingerprint(target: Target, dense: DenseType) -> Fingerprint:
    """What the collection says of its encoder; the model's own limits are not among it."""
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


def _documents(store: Store, target: Target) -> NDArray[np.void]:
    """Key, passages and hash of every document, by key."""
    parts: list[NDArray[np.void]] = []
    listed: list[tuple[str, int, str]] = []
    unfinished = 0
    for row in store.scan(target.name, Compare("ordinal", "==", 0), ["passages", "doc_hash"]):
        unfinished += not row["doc_hash"]
        listed.append((key_of_passage(row["passage_id"]), row["passages"], row["doc_hash"]))
        if len(listed) == _LISTED_ROWS:
            parts.append(np.array(listed, _LISTED))
            listed = []
    if unfinished:
        raise DriftError(
            f"{unfinished:,} documents of {target.alias!r} are half written: a run is under way or died. "
            "Run the sync of their corpus to its end first."
        )
    parts.append(np.array(listed, _LISTED))
    return np.sort(np.concatenate(parts), order="key")


def _content(part: NDArray[np.void]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, _, doc_hash in part.tolist():
        digest.update(content_bytes(key.decode(), doc_hash.decode()))
    return digest.hexdigest()


def _pieces(store: Store, target: Target, shard: ShardKey, part: NDArray[np.void]) -> Iterator[Encoded]:
    ids = [passage_key(key.decode(), o) for key, passages, _ in part.tolist() for o in range(passages)]
    for start in range(0, len(ids), READ_ROWS):
        rows = _rows(store, target, ids[start : start + READ_ROWS])
        yield Encoded(shard, rows, [None] * len(rows), last=start + READ_ROWS >= len(ids))


def _rows(store: Store, target: Target, ids: Sequence[str]) -> list[Row]:
    found = store.get(target.name, ids, row_fields(target.spec))
    if len(found) != len(ids):
        raise DriftError(
            f"{len(ids) - len(found):,} rows of {target.alias!r} went while they were read: another run is "
            "writing. Export again when it has ended."
        )
    return [row_of(passage_id, found[passage_id], target.spec) for passage_id in ids]
