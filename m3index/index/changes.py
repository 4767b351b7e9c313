"""A feed of changes, where the source already knows what has changed: `{"op": "delete", "id": ...}`
and documents (`op` is `upsert` or left out), applied in their order."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from m3index.corpus.formats import Parsed, jsonl
from m3index.corpus.lines import MAX_LINE, Meter, UnreadableError, open_bytes, reading
from m3index.corpus.mapping import FieldMapping, RowError
from m3index.corpus.memory import Documents
from m3index.corpus.places import COMPRESSIONS
from m3index.corpus.remote import Remote, is_remote
from m3index.encoder.base import Encoder
from m3index.errors import UsageError
from m3index.index.collection import open_collection
from m3index.index.delete import stored_ordinals
from m3index.index.forecast import Plan, plan
from m3index.index.lock import hold
from m3index.index.plan import windows_of
from m3index.index.settings import Never, Stop, SyncSettings
from m3index.index.summary import Summary
from m3index.index.sync import Run
from m3index.index.tenant import tenant_of
from m3index.progress import Reporter, Silent
from m3index.store.base import Store
from m3index.types import Document, Place, Rejected, document_key


@dataclass(frozen=True, slots=True)
class Deletion:
    """The document with this id has left the source."""

    doc_id: str
    place: Place


ChangeItem: TypeAlias = Document | Deletion | Rejected


def read_changes(
    path: str | os.PathLike[str], mapping: FieldMapping | None = None, *, stdin: BinaryIO | None = None
) -> Iterator[ChangeItem]:
    """The changes in a file of JSON lines (gzip and zstd too; of an object store) or, for `-`, on stdin.

    Raises UsageError where it cannot be read to its end: what came before it has been given by then.
    """
    mapping = mapping or FieldMapping()
    name = os.fspath(path)
    try:
        with reading(), ExitStack() as stack:
            if name == "-":
                source = stdin or sys.stdin.buffer
            elif is_remote(name):
                source = stack.enter_context(Remote.of(name).stream())
            else:
                source = stack.enter_context(Path(name).open("rb"))
            suffix = Path(name.partition("?")[0]).suffix.lower()
            compression = suffix if suffix in COMPRESSIONS else ""
            stream = stack.enter_context(open_bytes(source, Meter(), compression))
            for row in jsonl(stream, name, MAX_LINE):
                yield row if isinstance(row, Rejected) else _change(row, mapping)
    except UnreadableError as error:
        raise UsageError(f"{name} cannot be read: {error}.") from None


def apply_changes(
    store: Store,
    encoder: Encoder,
    alias: str,
    changes: Iterable[ChangeItem],
    settings: SyncSettings,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Writes and deletes what the feed says, in its order: of one id the last change counts.

    Deletions are explicit and have no guard. Applying a feed twice changes nothing. Errors as `sync`.
    """
    with hold(store, alias, settings.retry_lock, "m3index ingest --changes") as lock:
        target = lock.lease(lambda: open_collection(store, alias, encoder, settings.wanted, settings.tenant))
        run = Run(store, encoder, target, settings, "ingest", reporter or Silent(), stop or Never(), lock)
        with run.accounted():
            for part in windows_of(changes):
                _apply(run, part)
                if run.ending():
                    break
            return run.finish()


def plan_changes(
    store: Store,
    encoder: Encoder,
    alias: str,
    changes: Iterable[ChangeItem],
    settings: SyncSettings,
    *,
    reporter: Reporter | None = None,
) -> Plan:
    """What `apply_changes` would do. Holds the feed in memory: of one id only the last change counts."""
    items = list(changes)
    kept, gone = _last_of_each(items, settings.source)
    found = plan(store, encoder, alias, Documents(kept), settings, mode="ingest", reporter=reporter)
    name = store.resolve(alias)
    deleted = 0
    if name is not None and gone:
        owner = tenant_of(store.spec(name), alias, settings.tenant)
        deleted = len(stored_ordinals(store, name, gone, owner))
    return replace(found, scanned=len(items), deleted=deleted)


def _last_of_each(items: Sequence[ChangeItem], source: str) -> tuple[list[Document | Rejected], list[str]]:
    """Of one id the last change counts: what is rejected and the documents to write, in this order, and the
    keys of the documents to delete."""
    rejected = [item for item in items if isinstance(item, Rejected)]
    last = {item.doc_id: item for item in items if not isinstance(item, Rejected)}
    documents = [item for item in last.values() if isinstance(item, Document)]
    gone = [document_key(source, item.doc_id) for item in last.values() if isinstance(item, Deletion)]
    return [*rejected, *documents], gone


def _apply(run: Run, part: list[ChangeItem]) -> None:
    """A stretch of the feed. What follows may touch the same documents, so it waits for this."""
    kept, gone = _last_of_each(part, run.settings.source)
    run.planner = run.new_planner()
    for _ in run.write_changes(kept):
        run.progress(0, None)
    documents = stored_ordinals(run.store, run.target.name, gone, run.tenant) if gone else {}
    run.tally.scanned += len(part) - len(kept)
    if documents:
        run.remove(documents)


def _change(parsed: Parsed, mapping: FieldMapping) -> ChangeItem:
    row, place, raw = dict(parsed.row), parsed.place, parsed.raw or ""
    mapping = FieldMapping() if parsed.standard else mapping
    operation = row.pop("op", "upsert")
    try:
        if operation == "upsert":
            return mapping.document(row, place)
        if operation == "delete":
            only_id = {key: row[key] for key in mapping.id if key in row}
            return Deletion(mapping.document(only_id | {mapping.text[0]: "-"}, place).doc_id, place)
    except RowError as error:
        return Rejected(place, error.reason, raw, error.doc_id)
    return Rejected(place, f"no such operation: {operation!r}; there are upsert and delete", raw)
