"""Shards -> collection, by upsert, with nothing encoded.

A new collection, or `fresh`, is filled as a generation without an alias, counted, and only then served. Every
step may be repeated: what is in the collection already, with the same doc hash, is not written again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from m3index.corpus.mapping import declared
from m3index.errors import DriftError, Exit, M3IndexError, MissingHeadError, UsageError
from m3index.files import Folder
from m3index.index.collection import (
    Target,
    Wanted,
    check,
    find,
    generation_names,
    generation_number,
    load_target,
    new_generation,
    now,
    settings_json,
)
from m3index.index.generations import BUILDING, LIVE, drop_old
from m3index.index.lock import WriteLock, hold, is_local
from m3index.index.plan import Change
from m3index.index.settings import Never, Stop
from m3index.index.summary import Summary, Tally
from m3index.index.write import Rewrite, write
from m3index.progress import Progress, Reporter, Silent
from m3index.scale.manifest import CorpusRecord, Entry, ShardFolder, check_same_space
from m3index.scale.repeated import Repeated, documents_of, repeated
from m3index.scale.shards import Fingerprint, reading, rows_of
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store.base import Store
from m3index.types import (
    Document,
    FieldType,
    Place,
    Rejected,
    Row,
    SparseKind,
    Storage,
    key_of_passage,
    passage_key,
)

WINDOW_ROWS = 500
SERVER_WORKERS = 4
_LOADING = "loading"


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """None: as the shards or the collection have it; the indexes, that is, those of class small.

    fresh: into a new generation even where there is a collection; `keep` older ones stay for `rollback`.
    workers: how many shards are written at a time; None: 4 into a server, 1 into a local file.
    """

    fields: Mapping[str, FieldType] | None = None
    sparse: SparseKind | None = None
    analyzer: str | None = None
    tenant_field: str | None = None
    storage: Storage | None = None
    index: IndexChoice | None = None
    fresh: bool = False
    keep: int = 1
    workers: int | None = None
    retry_lock: float = 0.0


@dataclass(frozen=True, slots=True)
class Shards:
    """Complete folders of shards of one space, to be loaded together. `content` says what they hold;
    fields, tenant, storage: those of the collections that they come from, if they do."""

    parts: Sequence[tuple[ShardFolder, Entry]]
    fingerprint: Fingerprint
    fields: Mapping[str, FieldType]
    content: str
    tenant: str | None = None
    storage: Storage | None = None

    @classmethod
    def open(cls, folders: Sequence[Folder]) -> Shards:
        """Raises NotFoundError, DriftError where shards are missing, MismatchError for several spaces."""
        opened = [ShardFolder(folder) for folder in folders]
        complete = [folder.complete() for folder in opened]
        records: list[CorpusRecord] = [record for record, _ in complete]
        parts = [(f, entry) for f, (_, entries) in zip(opened, complete, strict=True) for entry in entries]
        fields = {name: kind for record in records for name, kind in record.fields.items()}
        content = " ".join(record.content for record in records)
        tenants = {record.tenant for record in records if record.tenant}
        if len(tenants) > 1:
            raise UsageError(
                f"The shards come from collections with the tenant fields {' and '.join(sorted(tenants))}: "
                "load them into collections of their own."
            )
        storages = {record.storage for record in records}
        return cls(
            parts,
            check_same_space(records),
            fields,
            content,
            tenants.pop() if tenants else None,
            storages.pop() if len(storages) == 1 else None,
        )

    @property
    def documents(self) -> int:
        return sum(entry.documents for _, entry in self.parts)


def load(
    store: Store,
    alias: str,
    folders: Sequence[Folder],
    settings: LoadSettings,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Loads the shards of all these folders; the first of equal ids counts, in their order.

    The summary's exit is 15 where the count is not what it must be; a new generation then does not serve.
    """
    reporter, stop = reporter or Silent(), stop or Never()
    shards = Shards.open(folders)
    with hold(store, alias, settings.retry_lock, "m3index load") as lock:
        target = open_target(store, alias, shards, settings, lock)
        reporter.stage("looking for repeated documents")
        again = repeated(shards.parts)
        if len(again):
            reporter.note(f"{len(again):,} documents are repeated; the first of each counts.")
        run = _Load(store, target, shards, again, reporter, stop, lock)
        reporter.stage(f"loading {len(shards.parts):,} shards into generation {target.generation}")
        return run.over(settings)


def open_target(store: Store, alias: str, shards: Shards, settings: LoadSettings, lock: WriteLock) -> Target:
    """The collection to load into: the one in use, or a generation that is being built."""
    made = shards.fingerprint
    wanted = Wanted(
        settings.sparse,
        settings.fields,
        settings.analyzer,
        tenant_field=settings.tenant_field,
        storage=settings.storage,
        index=settings.index,
    )
    in_use = store.resolve(alias) is not None
    if in_use:
        target = lock.lease(lambda: find(store, alias))
    if in_use and not settings.fresh:
        check(target, made.encoder, wanted)
    else:
        target = _building(store, alias, shards, wanted)
    if target.spec.sparse == "lexical" and made.sparse != "lexical":
        raise MissingHeadError(
            f"The shards have no lexical weights, and {alias!r} needs them. Encode with --sparse lexical."
        )
    return target


def _building(store: Store, alias: str, shards: Shards, wanted: Wanted) -> Target:
    """The generation that an interrupted load of the same shards began; else a new one."""
    fields = dict(shards.fields if wanted.fields is None else wanted.fields)
    if wanted.tenant_field is None and shards.tenant is not None:
        fields.setdefault(shards.tenant, shards.fields[shards.tenant])
    kept = shards.storage if shards.storage in store.describe()["storages"] else None
    wanted = replace(
        wanted,
        sparse=wanted.sparse or shards.fingerprint.sparse,
        fields=fields,
        tenant_field=wanted.tenant_field or shards.tenant,
        storage=wanted.storage or kept,
    )
    told = f"{shards.content} {wanted}"
    marker = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    names = generation_names(store, alias)
    for name in names:
        target = load_target(store, alias, name)
        if target.properties.get("state") == BUILDING and _LOADING in target.properties:
            if target.properties[_LOADING] == marker:
                return target
            store.drop(name)
    last = generation_number(alias, names[-1]) if names else 0
    made = shards.fingerprint
    target = new_generation(store, alias, (last or 0) + 1, made.encoder, made.passages, wanted, point=False)
    store.set_properties(target.name, {_LOADING: marker})
    return target


def is_building(target: Target) -> bool:
    return target.properties.get("state") == BUILDING


def serve(store: Store, target: Target, shards: Shards, keep: int) -> None:
    """What is to be done once a collection has been loaded and counted: a new generation gets the alias."""
    done = {"last_success": now(), "settings": settings_json(shards.fingerprint.passages)}
    store.set_properties(target.name, done | {"state": LIVE})
    if is_building(target):
        store.point(target.alias, target.name)
        drop_old(store, target.alias, keep)


class _Load:
    def __init__(
        self,
        store: Store,
        target: Target,
        shards: Shards,
        again: Repeated,
        reporter: Reporter,
        stop: Stop,
        lock: WriteLock,
    ) -> None:
        self.store, self.target, self.shards, self.repeated = store, target, shards, again
        self.reporter, self.stop, self.lock = reporter, stop, lock
        self.tally = Tally()
        self._told = threading.Lock()
        self._failed = False

    def over(self, settings: LoadSettings) -> Summary:
        store, name, building = self.store, self.target.name, is_building(self.target)
        before = store.count(name)
        try:
            self._write_shards(settings.workers or (1 if is_local(store.uri) else SERVER_WORKERS))
            store.flush(name)
            count = store.count(name)
        except M3IndexError as error:
            error.summary = self._summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise
        if self.tally.stopped is not None:
            return self._summary(count, count_ok=None)
        expected = self.tally.rows if building else before + self.tally.row_delta
        if count != expected:
            self.reporter.warning(
                f"{self.target.alias!r} has {count:,} rows, {expected:,} were expected. "
                + ("It does not serve; load again." if building else "Prove it with `m3index verify`.")
            )
            return self._summary(count, count_ok=False)
        serve(store, self.target, self.shards, settings.keep)
        return self._summary(count, count_ok=True)

    def _write_shards(self, workers: int) -> None:
        with ThreadPoolExecutor(workers, thread_name_prefix="m3index-load") as pool:
            try:
                for done in [pool.submit(self._shard, i) for i in range(len(self.shards.parts))]:
                    done.result()
            except BaseException:
                self._failed = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ending(self) -> bool:
        self.lock.check()
        if self.tally.stopped is None and self.stop():
            self.tally.stopped = self.stop.exit
        return self._failed or self.tally.stopped is not None

    def _shard(self, index: int) -> None:
        folder, entry = self.shards.parts[index]
        skipped = self.repeated.of_shard(index)
        if self._ending():
            return
        with reading(folder.shards, entry.file) as file:
            if file.metadata.num_rows != entry.rows:
                raise DriftError(f"{folder.shards}/{entry.file} has not the rows that its manifest says.")
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in rows_of(batch))
            window: list[list[Row]] = []
            for document in documents_of(rows, skipped):
                window.append(document)
                if sum(map(len, window)) >= WINDOW_ROWS:
                    self._write(window)
                    window = []
                    if self._ending():
                        return
            if window:
                self._write(window)

    def _write(self, documents: Sequence[Sequence[Row]]) -> None:
        """Writes those of these documents that the collection has not, or has otherwise."""
        store, name = self.store, self.target.name
        found = store.get(name, [rows[0].passage_id for rows in documents], ["doc_hash", "passages"])
        new, rejected, unchanged, unchanged_rows = [], [], 0, 0
        for rows in documents:
            first = rows[0]
            stored = found.get(first.passage_id)
            if stored and stored["doc_hash"] == first.doc_hash:
                unchanged += 1
                unchanged_rows += len(rows)
                continue
            try:
                written = rows_for(rows, self.target.spec)
            except ValueError as error:
                rejected.append(rejected_of(rows, str(error)))
                continue
            key = key_of_passage(first.passage_id)
            new.append(Rewrite(key, written, stored["passages"] if stored else 0))
        held = self._held([rewrite for rewrite in new if rewrite.stored])
        refused = {refusal.key: refusal for refusal in write(store, name, new)}
        with self._told:
            tally = self.tally
            tally.scanned += len(documents)
            tally.unchanged += unchanged
            tally.rows += unchanged_rows
            for rewrite in new:
                rows_now = len(rewrite.rows)
                if refusal := refused.get(rewrite.key):
                    rejected.append(rejected_of(rewrite.rows, refusal.reason))
                    rows_now = 0 if refusal.removed else held.get(rewrite.key, 0)
                else:
                    tally.count(Change.UPDATED if rewrite.stored else Change.ADDED)
                    tally.passages += rows_now
                tally.rows += rows_now
                tally.row_delta += rows_now - held.get(rewrite.key, 0)
            for item in rejected:
                tally.quarantined += 1
                self.reporter.rejected(item)
            told = Progress(tally.scanned, tally.passages, total=self.shards.documents - len(self.repeated))
            self.reporter.progress(told)

    def _held(self, changed: Sequence[Rewrite]) -> dict[str, int]:
        """How many rows the collection really has of these documents."""
        if not changed:
            return {}
        ids = [passage_key(r.key, ordinal) for r in changed for ordinal in range(r.stored)]
        held: dict[str, int] = {}
        for passage_id in self.store.get(self.target.name, ids, ["ordinal"]):
            key = key_of_passage(passage_id)
            held[key] = held.get(key, 0) + 1
        return held

    def _summary(self, count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
        target, name = self.target, self.shards.fingerprint.encoder.name
        return self.tally.summary(
            "load", target.alias, name, target.generation, count, count_ok=count_ok, exit_code=exit_code
        )


def rows_for(rows: Sequence[Row], spec: CollectionSpec) -> Sequence[Row]:
    """A document as this collection takes it. ValueError where a declared field has another type."""
    first = rows[0]
    document = Document(first.doc_id, first.text, first.title, first.metadata)
    fields = declared(document, spec.fields, spec.tenant)
    lexical = spec.sparse == "lexical"
    return [replace(row, fields=fields, sparse=row.sparse if lexical else None) for row in rows]


def rejected_of(rows: Sequence[Row], reason: str) -> Rejected:
    first = rows[0]
    document = Document(
        first.doc_id, first.text, first.title, first.metadata, Place(f"source {first.source}")
    )
    return Rejected.of(document, reason)
