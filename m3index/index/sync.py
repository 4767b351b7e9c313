"""A run over a corpus: what changed is encoded and written, and `sync` removes what has left.

documents -> changed ones -> passages -> batches -> (thread) encode -> write -> commit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from m3index.encoder.base import Encoder
from m3index.errors import Exit, M3IndexError
from m3index.index.batches import Batcher, Encoded
from m3index.index.collection import Target, now, open_collection, settings_json
from m3index.index.lock import WriteLock, hold
from m3index.index.plan import Corpus, Planner, Window, windows_of
from m3index.index.prefetch import prefetch
from m3index.index.prune import Listing, kept_because, rows_of, why_withheld
from m3index.index.settings import Mode, Never, Stop, SyncSettings
from m3index.index.summary import Summary, Tally
from m3index.index.tenant import tenant_of
from m3index.index.write import remove, write
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.types import Document, Rejected

RATE_TOKENS = 4_096  # fewer say nothing about the encoder's rate
REPAIR = "Prove and mend it with `m3index verify --repair`."


def sync(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: SyncSettings,
    *,
    mode: Mode = "sync",
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Brings the collection up to date with the corpus. `ingest` deletes nothing, `prune` only deletes.

    Raises the errors of the store, with what was done so far in their `summary`; LockedError,
    MismatchError.
    """
    with hold(store, alias, settings.retry_lock, f"m3index {mode}") as lock:
        target = lock.lease(lambda: open_collection(store, alias, encoder, settings.wanted, settings.tenant))
        run = Run(store, encoder, target, settings, mode, reporter or Silent(), stop or Never(), lock)
        return run.over(corpus)


def pipeline(
    windows: Iterable[Window], batcher: Batcher, stop: Callable[[], bool]
) -> Generator[Window | Encoded, None, None]:
    """Reading, comparing and cutting run ahead in one thread, encoding in another; the caller writes."""
    batches = prefetch(batcher.pack(windows), depth=2)
    return prefetch(batcher.encode(batches, stop), depth=1)


class Counted:
    """A corpus that counts what is taken out of it. Reading is ahead of writing by some windows: the
    share of these items that is finished is the share of the bytes read that a progress bar shows."""

    def __init__(self, corpus: Iterable[Document | Rejected]) -> None:
        self._corpus = corpus
        self.count = 0

    def __iter__(self) -> Iterator[Document | Rejected]:
        for item in self._corpus:
            self.count += 1
            yield item


class Run:
    """One run into one concrete collection."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        target: Target,
        settings: SyncSettings,
        mode: Mode,
        reporter: Reporter,
        stop: Stop,
        lock: WriteLock | None,
    ) -> None:
        passages = settings.passages.resolve(encoder.tokenizer) if settings.passages else target.passages
        self.store, self.target, self.settings, self.mode = store, target, settings, mode
        self.encoder_name = encoder.info.name
        self.reporter, self.stop, self.lock = reporter, stop, lock
        self.passages = passages
        self.tenant = tenant_of(target.spec, target.alias, settings.tenant)
        self.planner = self.new_planner()
        self.batcher = Batcher(store, target, encoder, settings.source, passages)
        self.tally = Tally()
        self.rows_before = 0
        self.expected: int | None = None  # rows of the source, where the listing has shown others

    def new_planner(self) -> Planner:
        target, settings = self.target, self.settings
        return Planner(
            self.store,
            target.name,
            target.spec.fields,
            settings.source,
            self.passages,
            tenant_field=target.spec.tenant,
            tenant=self.tenant,
            force=settings.force,
        )

    def over(self, corpus: Corpus) -> Summary:
        """The whole run: write what changed, remove what has left, count."""
        with self.accounted():
            total, items = corpus.total_bytes, Counted(corpus)
            for _ in self.write_changes(items):
                self.progress(int(corpus.bytes_read * self.tally.finished / max(items.count, 1)), total)
            for error in corpus.read_errors:
                self._quarantine(error)
            self._remove_absent(corpus)
            return self.finish()

    @contextmanager
    def accounted(self) -> Iterator[None]:
        """Counts the rows before, and gives an error what was done until then."""
        try:
            self.rows_before = self.store.count(self.target.name)
            yield
        except M3IndexError as error:
            error.summary = self._summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise

    def write_changes(self, items: Iterable[Document | Rejected]) -> Iterator[None]:
        """The pipeline; yields after each window that was read and each batch that was written."""
        only_keys = self.mode == "prune"
        windows = (self.planner.window(part, only_keys=only_keys) for part in windows_of(items))
        with closing(pipeline(windows, self.batcher, self.ending)) as encoded:
            for done in encoded:
                if isinstance(done, Window):
                    self._note(done)
                else:
                    self._commit(done)
                yield
                if self.ending():
                    return

    def _note(self, window: Window) -> None:
        self.tally.note(window)
        for rejected in window.rejected:
            self._quarantine(rejected)

    def _commit(self, batch: Encoded) -> None:
        """Writes a batch; only then its documents count."""
        tally = self.tally
        refused = {r.key: r for r in write(self.store, self.target.name, [r for _, r in batch.documents])}
        for planned, rewrite in batch.documents:
            if refusal := refused.get(planned.key):
                self._quarantine(Rejected.of(planned.document, refusal.reason))
                rows = 0 if refusal.removed else planned.rows
            else:
                rows = len(rewrite.rows)
                tally.count(planned.change)
                tally.passages += rows
            tally.rows += rows
            tally.row_delta += rows - planned.rows
        tally.pending -= len(batch.documents)
        tally.tokens += batch.tokens
        tally.encoding_seconds += batch.seconds

    def _quarantine(self, rejected: Rejected) -> None:
        self.tally.quarantined += 1
        self.reporter.rejected(rejected)
        if self.settings.max_errors is not None and self.tally.quarantined > self.settings.max_errors:
            self.tally.stopped = Exit.STOPPED

    def progress(self, bytes_read: int, total_bytes: int | None) -> None:
        tally = self.tally
        self.reporter.progress(
            Progress(tally.finished, tally.passages, tally.tokens, bytes_read, total_bytes)
        )

    def ending(self) -> bool:
        """Whether the run ends before the corpus does."""
        if self.lock is not None:
            self.lock.check()
        if self.tally.stopped is None and self.stop():
            self.tally.stopped = self.stop.exit
        return self.tally.stopped is not None

    def _remove_absent(self, corpus: Corpus) -> None:
        """Deletes what the corpus has no more, unless something speaks against it."""
        if self.mode == "ingest" or self.ending():
            return
        self.reporter.stage("looking for documents that have left the corpus")
        listing = Listing(self.store, self.target.name, self.planner)
        kept = listing.rows_protected
        withheld = why_withheld(
            corpus, self.planner, listing, added=self.tally.added, guard=self.settings.max_delete
        )
        if withheld:
            self.tally.deletes_withheld = listing.documents
            self.reporter.warning(kept_because(listing.documents, withheld))
            kept += listing.rows_unseen
        else:
            self._remove_unseen(listing)
        if self.mode == "sync" and self.tally.stopped is None and listing.rows_seen != self.tally.rows:
            self.expected = self.tally.rows + kept

    def _remove_unseen(self, listing: Listing) -> None:
        for documents in listing.unseen():
            self.remove(documents)
            if self.ending():
                return

    def remove(self, documents: Mapping[str, Sequence[int]]) -> None:
        """Removes documents: key -> the ordinals that there are."""
        remove(self.store, self.target.name, self.target.spec, documents)
        self.tally.deleted += len(documents)
        self.tally.row_delta -= sum(map(len, documents.values()))

    def finish(self) -> Summary:
        """Makes it durable, counts, and notes a success in the collection."""
        self.store.flush(self.target.name)
        for complaint in self.store.describe().get("warnings", ()):
            self.reporter.warning(f"The database complains: {complaint} Rows may be lost. {REPAIR}")
        count = self.store.count(self.target.name)
        expected = self.rows_before + self.tally.row_delta
        count_ok = count == expected
        if not count_ok:
            self.reporter.warning(f"The collection has {count:,} rows, {expected:,} were expected. {REPAIR}")
        elif self.expected is not None:
            of_source = self.store.count(self.target.name, rows_of(self.planner))
            count_ok = of_source == self.expected
            if not count_ok:
                self.reporter.warning(
                    f"The collection has {of_source:,} rows of source {self.settings.source!r}, the corpus "
                    f"comes to {self.expected:,}. {REPAIR}"
                )
        summary = self._summary(count, count_ok=count_ok)
        if summary.exit in (Exit.OK, Exit.QUARANTINED):
            self.store.set_properties(self.target.name, self._success())
        return summary

    def _success(self) -> dict[str, str]:
        properties = {"last_success": now(), "settings": settings_json(self.passages)}
        if self.tally.tokens >= RATE_TOKENS:
            properties["rate"] = f"{self.tally.tokens / self.tally.encoding_seconds:.1f}"
        return properties

    def _summary(self, count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
        return self.tally.summary(
            self.mode,
            self.target.alias,
            self.encoder_name,
            self.target.generation,
            count,
            count_ok=count_ok,
            exit_code=exit_code,
        )
