"""Applies a feed of changes in order, for sources that know what changed: documents (`op` is `upsert` or
missing) and `{"op": "delete", "id": ...}`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from m3index.corpus.check import unreadable_feed
from m3index.corpus.formats import Parsed, jsonl
from m3index.corpus.lines import MAX_LINE, Meter, UnreadableError, open_bytes, reading, standard_input
from m3index.corpus.mapping import STANDARD, FieldMapping, RowError
from m3index.corpus.memory import Documents
from m3index.corpus.places import COMPRESSIONS
from m3index.corpus.remote import Remote, is_remote
from m3index.encoder.base import Encoder
from m3index.index.delete import stored_ordinals
from m3index.index.first_run import opened
from m3index.index.forecast import plan
from m3index.index.lock import hold
from m3index.index.options import IngestOptions, Never, Stop
from m3index.index.plan import windows_of
from m3index.index.summary import Summary
from m3index.index.sync import Run
from m3index.index.tenant import tenant_of
from m3index.progress import Reporter, Silent
from m3index.store.base import Store
from m3index.types import Document, Place, Rejected, document_key


@dataclass(frozen=True, slots=True)
class Deletion:
    """The document with this id was removed from the source."""

    doc_id: str
    place: Place


ChangeItem: TypeAlias = Document | Deletion | Rejected


def read_changes(
    path: str | os.PathLike[str],
    mapping: FieldMapping | None = None,
    *,
    embeddings: Counter[str] | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[ChangeItem]:
    """Yields the changes from a JSON Lines file (plain, gzip or zstd; local or in an object store) or, for
    `-`, from stdin.

    embeddings: counts the rows whose embedding is left out of the metadata, by key. Raises UsageError if the
    file cannot be read to the end; the changes before the error have been yielded.
    """
    mapping = mapping or STANDARD
    name = os.fspath(path)
    try:
        with reading(), ExitStack() as stack:
            if name == "-":
                source = stdin or standard_input()
            elif is_remote(name):
                source = stack.enter_context(Remote.of(name).stream())
            else:
                source = stack.enter_context(Path(name).open("rb"))
            suffix = Path(name.partition("?")[0]).suffix.lower()
            compression = suffix if suffix in COMPRESSIONS else ""
            stream = stack.enter_context(open_bytes(source, Meter(), compression))
            for row in jsonl(stream, name, MAX_LINE):
                yield row if isinstance(row, Rejected) else _change(row, mapping, embeddings)
    except UnreadableError as error:
        raise unreadable_feed(name, str(error)) from None


def apply_changes(
    store: Store,
    encoder: Encoder,
    alias: str,
    changes: Iterable[ChangeItem],
    settings: IngestOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Applies the writes and deletions of a feed in order; the last change to an id counts.

    Deletions are explicit, so `max_delete` does not apply. Applying a feed twice changes nothing. Raises the
    same errors as `sync`.
    """
    with hold(store, alias, settings.lock_seconds, f"m3index {settings.command} --changes") as lock:
        reporter = reporter or Silent()
        with opened(store, alias, encoder, settings, lock, reporter, rewrites=[settings.source]) as target:
            run = Run(store, encoder, target, settings, reporter, stop or Never(), lock)
            with run.accounted():
                for part in windows_of(changes):
                    _apply(run, part)
                    if run.ending():
                        break
                run.check_rejected()
                return run.finish()


def plan_changes(
    store: Store,
    encoder: Encoder,
    alias: str,
    changes: Iterable[ChangeItem],
    settings: IngestOptions,
    *,
    reporter: Reporter | None = None,
) -> Summary:
    """Predicts what `apply_changes` would do. Holds the feed in memory. Raises the same errors as `plan`."""
    items = list(changes)
    documents, deleted_keys = _last_changes(items, settings.source)
    corpus, others = Documents(documents), len(items) - len(documents)
    summary = plan(store, encoder, alias, corpus, settings, reporter=reporter, removes=False, others=others)
    name = store.resolve(alias)
    deleted = 0
    if name is not None and deleted_keys:
        tenant = tenant_of(store.spec(name), alias, settings.tenant_name)
        deleted = len(stored_ordinals(store, name, deleted_keys, tenant))
    return replace(summary, scanned=len(items), deleted=deleted)


def _last_changes(items: Sequence[ChangeItem], source: str) -> tuple[list[Document | Rejected], list[str]]:
    """The last change to each id: the rejected rows followed by the documents to write, and the keys of the
    documents to delete."""
    rejected = [item for item in items if isinstance(item, Rejected)]
    last = {item.doc_id: item for item in items if not isinstance(item, Rejected)}
    documents = [item for item in last.values() if isinstance(item, Document)]
    deleted = [document_key(source, item.doc_id) for item in last.values() if isinstance(item, Deletion)]
    return [*rejected, *documents], deleted


def _apply(run: Run, part: list[ChangeItem]) -> None:
    """Applies one part of the feed completely: later parts may change the same documents."""
    documents, deleted = _last_changes(part, run.settings.source)
    run.planner = run.new_planner()
    for _ in run.write_changes(documents):
        run.progress(0, None)
    stored = stored_ordinals(run.store, run.target.name, deleted, run.tenant) if deleted else {}
    run.tally.scanned += len(part) - len(documents)
    if stored:
        run.remove(stored)


def _change(parsed: Parsed, mapping: FieldMapping, embeddings: Counter[str] | None) -> ChangeItem:
    row, place, raw = dict(parsed.row), parsed.place, parsed.raw or ""
    mapping = STANDARD if parsed.standard else mapping
    operation = row.pop("op", "upsert")
    try:
        if operation == "upsert":
            return mapping.document(row, place, embeddings)
        if operation == "delete":
            return Deletion(mapping.row_id(row), place)
    except RowError as error:
        return Rejected(place, error.reason, raw, error.doc_id)
    return Rejected(place, f"unknown operation {operation!r}; use upsert or delete", raw)
