"""Loads shards into a collection by upsert, without encoding.

For a new collection, or with `fresh`, the load fills a generation without an alias, which serves once its
rows are counted. Every step can be repeated: documents stored with the same hash are not written again.
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
    Collection,
    check_fits,
    find,
    generation_names,
    generation_number,
    load_target,
    new_generation,
    now,
    settings_json,
)
from m3index.index.generations import BUILDING, LIVE, drop_old, switch
from m3index.index.lock import WriteLock, hold, is_local
from m3index.index.options import Columns, Never, Stop
from m3index.index.plan import Change
from m3index.index.summary import Summary, Tally
from m3index.index.write import DocumentWrite, write
from m3index.progress import Progress, Reporter, Silent
from m3index.scale.manifest import CorpusRecord, Entry, ShardFolder, check_same_space
from m3index.scale.options import LoadOptions
from m3index.scale.repeated import Repeated, documents_of, repeated
from m3index.scale.shards import Fingerprint, reading, rows_of
from m3index.schema import CollectionSpec
from m3index.store.base import Store
from m3index.types import (
    Document,
    FieldType,
    Place,
    Rejected,
    Row,
    Storage,
    key_of_passage,
    passage_key,
)
from m3index.wording import many

WINDOW_ROWS = 500
SERVER_WORKERS = 4
_LOADING = "loading"


@dataclass(frozen=True, slots=True)
class Shards:
    """Complete folders of shards in one space, loaded together. content: digests of their contents. fields,
    tenant, storage: of the collections they were exported from, if any."""

    parts: Sequence[tuple[ShardFolder, Entry]]
    fingerprint: Fingerprint
    fields: Mapping[str, FieldType]
    content: str
    tenant: str | None = None
    storage: Storage | None = None

    @classmethod
    def open(cls, folders: Sequence[Folder]) -> Shards:
        """Raises NotFoundError, DriftError if shards are missing, MismatchError for several spaces, and
        UsageError for several tenant fields."""
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
                "load them into separate collections."
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
    settings: LoadOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Loads the shards of all folders, in order. Of documents with equal ids, the first counts.

    The exit code of the summary is 15 if the row count is wrong; a new generation then does not serve.
    Raises LockedError, MismatchError, MissingHeadError, StoreError, and the errors of `Shards.open`.
    """
    reporter, stop = reporter or Silent(), stop or Never()
    shards = Shards.open(folders)
    with hold(store, alias, settings.lock_seconds, "m3index shards load") as lock:
        target = open_target(store, alias, shards, settings, lock)
        reporter.stage("looking for repeated documents")
        duplicates = repeated(shards.parts)
        if len(duplicates):
            reporter.note(
                f"{many(len(duplicates), 'repeated document is', 'repeated documents are')} left out; the "
                "first of each counts."
            )
        run = _Load(store, target, shards, duplicates, reporter, stop, lock)
        reporter.stage(f"loading {many(len(shards.parts), 'shard')} into generation {target.generation}")
        return run.run(settings)


def open_target(
    store: Store, alias: str, shards: Shards, settings: LoadOptions, lock: WriteLock
) -> Collection:
    """The collection to load into: the current one, or a generation that is being built."""
    fingerprint = shards.fingerprint
    in_use = store.resolve(alias) is not None
    if in_use:
        target = lock.lease(lambda: find(store, alias), rewrites=None)
    if in_use and not settings.fresh:
        check_fits(target, fingerprint.encoder, settings)
    else:
        target = _building(store, alias, shards, settings)
    if target.spec.sparse == "lexical" and fingerprint.sparse != "lexical":
        raise MissingHeadError(
            f"The shards have no lexical weights, which {alias!r} needs. "
            "Encode them with `m3index shards encode --sparse lexical`."
        )
    return target


def _building(store: Store, alias: str, shards: Shards, settings: LoadOptions) -> Collection:
    """The generation that an interrupted load of the same shards started, or a new one."""
    fields = dict(shards.fields if settings.declared is None else settings.declared)
    if settings.tenant_field is None and shards.tenant is not None:
        fields.setdefault(shards.tenant, shards.fields[shards.tenant])
    kept = shards.storage if shards.storage in store.describe()["storages"] else None
    columns = Columns(
        sparse=settings.sparse or shards.fingerprint.sparse,
        fields=fields,
        analyzer=settings.analyzer,
        tenant_field=settings.tenant_field or shards.tenant,
        storage=settings.storage or kept,
        index_class=settings.index_class,
        index=settings.index,
    )
    contents = f"{shards.content} {columns}"
    marker = hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()
    names = generation_names(store, alias)
    for name in names:
        target = load_target(store, alias, name)
        if target.properties.get("state") == BUILDING and _LOADING in target.properties:
            if target.properties[_LOADING] == marker:
                return target
            store.drop(name)
    last = generation_number(alias, names[-1]) if names else 0
    fingerprint = shards.fingerprint
    target = new_generation(
        store, alias, (last or 0) + 1, fingerprint.encoder, fingerprint.passages, columns, point=False
    )
    store.set_properties(target.name, {_LOADING: marker})
    return target


def is_building(target: Collection) -> bool:
    return target.properties.get("state") == BUILDING


def serve(store: Store, target: Collection, shards: Shards, keep: int) -> None:
    """Marks a loaded and counted collection as live, and moves the alias to it if it is new."""
    done = {"last_success": now(), "settings": settings_json(shards.fingerprint.passages)}
    store.set_properties(target.name, done | {"state": LIVE})
    if is_building(target):
        switch(store, target.alias, target.name)
        drop_old(store, target.alias, keep)


class _Load:
    def __init__(
        self,
        store: Store,
        target: Collection,
        shards: Shards,
        duplicates: Repeated,
        reporter: Reporter,
        stop: Stop,
        lock: WriteLock,
    ) -> None:
        self.store, self.target, self.shards, self.duplicates = store, target, shards, duplicates
        self.reporter, self.stop, self.lock = reporter, stop, lock
        self.tally = Tally()
        self._report_lock = threading.Lock()
        self._failed = False

    def run(self, settings: LoadOptions) -> Summary:
        store, name, building = self.store, self.target.name, is_building(self.target)
        before = store.count(name)
        try:
            self._write_shards(settings.workers or (1 if is_local(store.uri) else SERVER_WORKERS))
            store.flush(name)
            count = store.count(name)
        except M3IndexError as error:
            error.summary = self._summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise
        tally = self.tally
        tally.fail(settings.most_errors.refusal(tally.quarantined, tally.scanned), self.reporter)
        if self.tally.stopped is not None:
            return self._summary(count, count_ok=None)
        expected = self.tally.rows if building else before + self.tally.row_delta
        if count != expected:
            self.reporter.warning(
                f"{self.target.alias!r} has {many(count, 'row')}, but {expected:,} were expected. "
                + ("It does not serve. Load again." if building else "Check it with `m3index verify`.")
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

    def _is_stopping(self) -> bool:
        self.lock.check()
        if self.tally.stopped is None and self.stop():
            self.tally.stopped = self.stop.exit
        return self._failed or self.tally.stopped is not None

    def _shard(self, index: int) -> None:
        folder, entry = self.shards.parts[index]
        skipped = self.duplicates.of_shard(index)
        if self._is_stopping():
            return
        with reading(folder.shards, entry.file) as file:
            if file.metadata.num_rows != entry.rows:
                raise DriftError(
                    f"{folder.shards}/{entry.file} does not have the rows in its manifest. Encode it again."
                )
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in rows_of(batch))
            window: list[list[Row]] = []
            for document in documents_of(rows, skipped):
                window.append(document)
                if sum(map(len, window)) >= WINDOW_ROWS:
                    self._write(window)
                    window = []
                    if self._is_stopping():
                        return
            if window:
                self._write(window)

    def _write(self, documents: Sequence[Sequence[Row]]) -> None:
        """Writes the documents that the collection lacks or has with another hash."""
        store, name = self.store, self.target.name
        existing = store.get(name, [rows[0].passage_id for rows in documents], ["doc_hash", "passages"])
        new, rejected, unchanged, unchanged_rows = [], [], 0, 0
        for rows in documents:
            first = rows[0]
            stored = existing.get(first.passage_id)
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
            new.append(DocumentWrite(key, written, stored["passages"] if stored else 0))
        row_counts = self._row_counts([rewrite for rewrite in new if rewrite.stored])
        refused = {refusal.key: refusal for refusal in write(store, name, new)}
        with self._report_lock:
            tally = self.tally
            tally.scanned += len(documents)
            tally.unchanged += unchanged
            tally.rows += unchanged_rows
            for rewrite in new:
                rows_now = len(rewrite.rows)
                if refusal := refused.get(rewrite.key):
                    rejected.append(rejected_of(rewrite.rows, refusal.reason))
                    rows_now = 0 if refusal.removed else row_counts.get(rewrite.key, 0)
                else:
                    tally.count(Change.UPDATED if rewrite.stored else Change.ADDED)
                    tally.passages += rows_now
                tally.rows += rows_now
                tally.row_delta += rows_now - row_counts.get(rewrite.key, 0)
            for item in rejected:
                tally.quarantined += 1
                self.reporter.rejected(item)
            progress = Progress(
                tally.scanned, tally.passages, total=self.shards.documents - len(self.duplicates)
            )
            self.reporter.progress(progress)

    def _row_counts(self, changed: Sequence[DocumentWrite[Row]]) -> dict[str, int]:
        """The number of rows that the collection actually has of each document."""
        if not changed:
            return {}
        ids = [passage_key(r.key, ordinal) for r in changed for ordinal in range(r.stored)]
        counts: dict[str, int] = {}
        for passage_id in self.store.get(self.target.name, ids, ["ordinal"]):
            key = key_of_passage(passage_id)
            counts[key] = counts.get(key, 0) + 1
        return counts

    def _summary(self, count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
        target, name = self.target, self.shards.fingerprint.encoder.name
        return self.tally.summary(
            "load", target.alias, name, target.generation, count, count_ok=count_ok, exit_code=exit_code
        )


def rows_for(rows: Sequence[Row], spec: CollectionSpec) -> Sequence[Row]:
    """The rows of a document for this collection. Raises ValueError if a declared field has another type."""
    fields = declared(rows[0], spec.fields, spec.tenant)
    lexical = spec.sparse == "lexical"
    return [replace(row, fields=fields, sparse=row.sparse if lexical else None) for row in rows]


def rejected_of(rows: Sequence[Row], reason: str) -> Rejected:
    first, place = rows[0], Place(f"source {rows[0].source}")
    if not first.text.strip():  # a blank passage, which is not a valid Document
        return Rejected(place, reason, doc_id=first.doc_id)
    return Rejected.of(Document(first.doc_id, first.text, first.title, first.metadata, place), reason)
