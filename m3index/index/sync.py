"""A run over a corpus: encodes and writes what changed and, for `sync`, removes what has left the corpus.

documents -> changed ones -> passages -> batches -> (thread) encode -> write -> commit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b

import m3index
from m3index.corpus.digest import CorpusDigest
from m3index.corpus.listing import Listing
from m3index.corpus.notes import tell
from m3index.encoder.base import Encoder
from m3index.errors import SUCCESS, Exit, M3IndexError
from m3index.index.batches import Batcher, Encoded
from m3index.index.calibrate import calibrate_if_due
from m3index.index.collection import Collection, now, settings_json
from m3index.index.first_run import opened
from m3index.index.left_unread import remembered
from m3index.index.lock import WriteLock, hold
from m3index.index.options import IngestOptions, Never, Stop
from m3index.index.plan import Corpus, DocumentChange, Planner, Window, windows_of
from m3index.index.prefetch import prefetch
from m3index.index.prune import UnseenRows
from m3index.index.row_versions import StoredRows
from m3index.index.summary import Summary, Tally
from m3index.index.tenant import tenant_of
from m3index.index.unchanged import UnchangedCorpus, forget, recorded, with_record
from m3index.index.write import AnyWrite, mark, remove, write
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.types import Document, Rejected, document_key
from m3index.wording import many

RATE_TOKENS = 4_096
"""The minimum number of tokens from which a run measures the rate of the encoder."""

REPAIR = "Check and repair the collection with `m3index verify --repair`."


def sync(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: IngestOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Brings the collection up to date with the corpus. `settings.mode`: `ingest` deletes nothing, `prune`
    only deletes.

    Raises LockedError, MismatchError, MissingHeadError, UsageError and StoreError; the `summary` of an error
    during the run says what was done before it.
    """
    with hold(store, alias, settings.lock_seconds, f"m3index {settings.command}") as lock:
        reporter = reporter or Silent()
        with opened(store, alias, encoder, settings, lock, reporter, rewrites=[]) as target:
            run = Run(store, encoder, target, settings, reporter, stop or Never(), lock)
            return run.over(corpus)


def pipeline(
    windows: Iterable[Window], batcher: Batcher, stop: Callable[[], bool]
) -> Generator[Window | Encoded, None, None]:
    """Reads, compares and splits ahead in one thread and encodes in another; the caller writes."""
    batches = prefetch(batcher.pack(windows), depth=2)
    return prefetch(batcher.encode(batches, stop), depth=1)


class CountingCorpus:
    """Counts the items read from a corpus, and knows how many bytes the first of them took.

    Reading runs some windows ahead of writing, and by whole blocks ahead of what it yields. Therefore the
    count is compared with the bytes of the blocks that are used up.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._done = (0, 0)  # items, and the bytes of their blocks
        self._ended = False

    def __iter__(self) -> Iterator[Document | Rejected]:
        block = count = 0
        for count, item in enumerate(self._corpus, 1):
            if (read := self._corpus.bytes_read) != block:
                self._done, block = (count - 1, block), read
            yield item
        self._done, self._ended = (count, self._corpus.bytes_read), True

    def bytes_of(self, items: int) -> int:
        """About how many bytes the first items took: exactly all of them for all items, once read."""
        count, size = self._done
        if self._ended and items >= count:
            return size
        return min(self._corpus.bytes_read, size * items // count) if count else 0


class Run:
    """One run into one concrete collection."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        target: Collection,
        settings: IngestOptions,
        reporter: Reporter,
        stop: Stop,
        lock: WriteLock | None,
    ) -> None:
        passages = target.passages
        if settings.splitting is not None:
            passages = settings.splitting.resolve(encoder.tokenizer, passages)
        self.store, self.target, self.settings, self.mode = store, target, settings, settings.mode
        self.encoder = encoder
        self.reporter, self.stop, self.lock = reporter, stop, lock
        self.passages = passages
        self.tenant = tenant_of(target.spec, target.alias, settings.tenant_name)
        self.planner = self.new_planner()
        self.batcher = Batcher(store, target, encoder, settings.source, passages, keeps=not settings.force)
        self.tally = Tally()
        self.rows_before = 0
        self.expected: int | None = None  # rows of the source, if the listing differed from the tally
        self.digest: CorpusDigest | None = None
        self.skipped_unread: Mapping[str, int] = {}  # by reason, as far as no file has to be read for it
        self.record: UnchangedCorpus | None = None  # for the next run

    def new_planner(self, *, stored: Mapping[str, StoredRows] | None = None) -> Planner:
        """stored: the documents to write whatever their hashes say."""
        target, settings = self.target, self.settings
        return Planner(
            self.store,
            target.name,
            target.spec.fields,
            settings.source,
            self.passages,
            tenant_field=target.spec.tenant,
            tenant=self.tenant,
            force=settings.force or stored is not None,
            stored=stored,
        )

    def over(self, corpus: Corpus) -> Summary:
        """Performs the whole run: writes what changed, removes what has left the corpus, and counts."""
        with self.accounted():
            if record := self._unchanged(corpus):
                return self._end_early(record, corpus)
            forget(self.store, self.target.name, [self.planner.scope])
            total, items = corpus.total_bytes, CountingCorpus(corpus)
            for _ in self.write_changes(items):
                self.progress(items.bytes_of(self.tally.finished), total)
            self.tally.skipped = dict(corpus.skip_counts)
            tell(corpus, self.reporter)
            if warning := self.planner.spellings.warning:
                self.reporter.warning(warning)
            for error in corpus.read_errors:
                self._quarantine(error)
            self.check_rejected(len(corpus.read_errors))
            self._remove_absent(corpus)
            self._record(corpus)
            return self.finish(corpus.listing)

    def _record(self, corpus: Corpus) -> None:
        """Remembers what the collection now has, if the next run may rely on it."""
        tally = self.tally
        clean = not (tally.quarantined or tally.deletes_withheld or tally.drifted) and self.expected is None
        clean &= tally.skipped == self.skipped_unread  # what has to be read to be skipped is told every night
        if clean and self.digest is not None and corpus.is_as_before(self.digest):
            total = self.rows_before + tally.row_delta
            self.record = UnchangedCorpus(self._determined_by(self.digest), tally.scanned, tally.rows, total)

    def _unchanged(self, corpus: Corpus) -> UnchangedCorpus | None:
        """What the last run recorded, if this one would find the same."""
        if self.mode != "sync":
            return None
        self.reporter.stage("comparing the files with those of the last run")
        self.digest = corpus.digest()
        self.skipped_unread = dict(corpus.skip_counts)
        if self.digest is None:
            return None
        record = recorded(self.store.properties(self.target.name), self.planner.scope)
        if record is None or record.digest != self._determined_by(self.digest):
            return None
        if record.is_due or not self.settings.may_end_early:
            return None
        if self.rows_before == record.total:  # to count the rows of one source takes engines far longer
            return record
        return record if self.store.count(self.target.name, self.planner.rows) == record.rows else None

    def _determined_by(self, digest: CorpusDigest) -> str:
        """A digest of all that determines the rows of this source: the corpus, its passages, the layout of
        the collection, the program."""
        spec = self.target.spec
        fields = sorted(spec.fields.items())
        what = m3index.__version__, digest.text, settings_json(self.passages), fields, spec.tenant
        return blake2b(repr(what).encode(), digest_size=16).hexdigest()

    def _end_early(self, record: UnchangedCorpus, corpus: Corpus) -> Summary:
        self.reporter.note(
            "The files are byte for byte those of the last run, so their documents were not compared; "
            "--thorough compares them."
        )
        self.tally.scanned = self.tally.unchanged = record.documents
        self.tally.skipped = dict(corpus.skip_counts)
        tell(corpus, self.reporter)
        self.record = record.once_more(self.rows_before)
        return self.finish()

    @contextmanager
    def accounted(self) -> Iterator[None]:
        """Counts the rows before the run, and adds the summary so far to an error."""
        try:
            self.rows_before = self.store.count(self.target.name)
            yield
        except M3IndexError as error:
            error.summary = self._summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise

    def write_changes(self, items: Iterable[Document | Rejected]) -> Iterator[None]:
        """Runs the pipeline; yields after each window read and each batch written."""
        only_keys = self.mode == "prune"
        windows = (self.planner.window(part, only_keys=only_keys) for part in windows_of(items))
        with closing(pipeline(windows, self.batcher, self.ending)) as encoded:
            for item in encoded:
                if isinstance(item, Window):
                    self._note(item)
                else:
                    self._commit(item)
                yield
                if self.ending():
                    return

    def _note(self, window: Window) -> None:
        self.tally.note(window)
        for rejected in window.rejected:
            self._quarantine(rejected)

    def _commit(self, batch: Encoded) -> None:
        """Writes a batch and counts its documents."""
        tally = self.tally
        documents: list[tuple[DocumentChange, AnyWrite]] = [*batch.documents, *batch.updated]
        writes = [document_write for _, document_write in documents]
        refused = {refusal.key: refusal for refusal in write(self.store, self.target.name, writes)}
        for planned, document_write in documents:
            if refusal := refused.get(planned.key):
                self._quarantine(Rejected.of(planned.document, refusal.reason))
                rows = 0 if refusal.removed else planned.rows
            else:
                rows = len(document_write.rows)
                tally.count(planned.change)
                tally.passages += rows
                tally.passages_kept += batch.kept[planned.key]
            tally.rows += rows
            tally.row_delta += rows - planned.rows
        tally.pending -= len(documents)
        tally.tokens += batch.tokens
        tally.encoding_seconds += batch.seconds

    def _quarantine(self, rejected: Rejected) -> None:
        self.tally.quarantined += 1
        self.reporter.rejected(rejected)
        self.tally.fail(self.settings.most_errors.refusal_so_far(self.tally.quarantined), self.reporter)

    def check_rejected(self, unreadable: int = 0) -> None:
        """Ends the run as failed if too much of what it read is bad. unreadable: the number of files."""
        tally, most = self.tally, self.settings.most_errors
        tally.fail(most.refusal(tally.quarantined, tally.scanned + unreadable), self.reporter)

    def progress(self, bytes_read: int, total_bytes: int | None) -> None:
        tally = self.tally
        self.reporter.progress(
            Progress(tally.finished, tally.passages, tally.tokens, bytes_read, total_bytes)
        )

    def ending(self) -> bool:
        """Whether the run must stop now. Raises LockedError if the lease is lost."""
        if self.lock is not None:
            self.lock.check()
        if self.tally.stopped is None and self.stop():
            self.tally.stopped = self.stop.exit
        return self.tally.stopped is not None

    def _remove_absent(self, corpus: Corpus) -> None:
        """Removes the documents that have left the corpus, unless deletions are withheld."""
        if self.mode == "ingest" or self.ending():
            return
        self.reporter.stage("looking for documents that have left the corpus")
        unseen = UnseenRows(self.store, self.target.name, self.planner)
        kept_rows = unseen.rows_protected
        if message := unseen.withheld_message(corpus, self.settings.guard, added=self.tally.added):
            self.tally.deletes_withheld = unseen.documents
            self.reporter.warning(message)
            kept_rows += unseen.rows
        else:
            for documents in unseen.batches():
                self.remove(documents)
                if self.ending():
                    break
        if self.mode != "sync" or self.tally.stopped is not None:
            return
        if unseen.disagreeing:
            self._write_again(unseen.disagreeing, corpus)
        if unseen.disagreeing or unseen.rows_seen != self.tally.rows:
            self.expected = self.tally.rows + kept_rows

    def _write_again(self, documents: Mapping[str, StoredRows], corpus: Corpus) -> None:
        """Writes the documents whose rows disagree, in a second pass over the corpus.

        Those that it cannot write are marked as unfinished, for the next run. These and lost rows are drift.
        """
        lost = sum(stored.is_lost for stored in documents.values())
        self.tally.drifted = lost
        if lost:
            self.reporter.warning(
                f"Rows of {many(lost, 'document')} were lost. They are written again. {REPAIR}"
            )
        if mixed := len(documents) - lost:
            self.reporter.warning(
                f"{many(mixed, 'document')} had rows of different versions, which two runs leave that "
                "write at the same time. They are written again."
            )
        remaining = dict(documents)
        for batch in self._encoded_again(documents, corpus) if corpus.repeatable else ():
            for planned, _ in batch.documents:
                self.tally.rows -= remaining.pop(planned.key).passages
            self._commit(batch)
            if self.ending():
                return
        if remaining:
            ordinals = {key: stored.ordinals for key, stored in remaining.items()}
            mark(self.store, self.target.name, self.target.spec, ordinals)
            self.tally.drifted = len(remaining)
            self.reporter.warning(
                f"{many(len(remaining), 'document')} of these could not be written from this corpus. Run "
                "sync again."
            )

    def _encoded_again(self, documents: Mapping[str, StoredRows], corpus: Corpus) -> Iterator[Encoded]:
        planner, missing = self.new_planner(stored=documents), set(documents)

        def again() -> Iterator[Document]:
            for item in corpus:
                if isinstance(item, Document):
                    key = document_key(self.settings.source, item.doc_id)
                    if key in missing:
                        missing.remove(key)
                        yield item

        windows = (planner.window(part) for part in windows_of(again()))
        batcher = Batcher(
            self.store, self.target, self.encoder, self.settings.source, self.passages, keeps=False
        )
        with closing(pipeline(windows, batcher, self.ending)) as encoded:
            yield from (item for item in encoded if isinstance(item, Encoded))

    def remove(self, documents: Mapping[str, Sequence[int]]) -> None:
        """Removes documents, given as a mapping of keys to stored ordinals."""
        remove(self.store, self.target.name, self.target.spec, documents)
        self.tally.deleted += len(documents)
        self.tally.row_delta -= sum(map(len, documents.values()))

    def finish(self, listing: Listing | None = None) -> Summary:
        """Flushes, counts the rows, and records a success in the collection. listing: of the corpus."""
        self.store.flush(self.target.name)
        for warning in self.store.describe().get("warnings", ()):
            self.reporter.warning(f"The database reports: {warning} Rows may be lost. {REPAIR}")
        count = self.store.count(self.target.name)
        expected = self.rows_before + self.tally.row_delta
        count_ok = count == expected
        if not count_ok:
            self.reporter.warning(
                f"The collection has {many(count, 'row')}, but {expected:,} were expected. {REPAIR}"
            )
        elif self.expected is not None:
            source_rows = self.store.count(self.target.name, self.planner.rows)
            count_ok = source_rows == self.expected
            if not count_ok:
                self.reporter.warning(
                    f"The collection has {many(source_rows, 'row')} of source {self.settings.source!r}, "
                    f"but the corpus yields {self.expected:,}. {REPAIR}"
                )
        summary = self._summary(count, count_ok=count_ok)
        if summary.exit in SUCCESS:
            self.store.set_properties(self.target.name, self._success(listing))
            if not self.settings.no_calibrate and self.mode != "prune":
                calibrate_if_due(self.store, self.target, self.encoder, count, self.reporter)
        return summary

    def _success(self, listing: Listing | None) -> dict[str, str]:
        properties = {"last_success": now(), "settings": settings_json(self.passages)}
        if listing is not None:
            all_of_it = self.mode != "ingest"
            name, planner = self.target.name, self.planner
            properties |= remembered(self.store, name, planner, listing, is_complete=all_of_it)
        if self.record is not None:
            stored = self.store.properties(self.target.name)
            properties |= with_record(stored, self.planner.scope, self.record)
        if self.tally.tokens >= RATE_TOKENS:
            properties["rate"] = f"{self.tally.tokens / self.tally.encoding_seconds:.1f}"
        return properties

    def _summary(self, count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
        return self.tally.summary(
            self.mode,
            self.target.alias,
            self.encoder.info.name,
            self.target.generation,
            count,
            count_ok=count_ok,
            exit_code=exit_code,
        )
