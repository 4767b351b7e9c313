"""Predicts what a run would do: reads and compares like a run, but encodes and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from m3index.corpus.cut import windows
from m3index.corpus.notes import tell
from m3index.corpus.windows import PassageSettings, PassageSize
from m3index.encoder.base import Encoder
from m3index.index.collection import check_fits, generation_number, load_target, make_spec
from m3index.index.kept import KeptVectors, StoredVectors
from m3index.index.options import IngestOptions
from m3index.index.plan import Change, Corpus, DocumentChange, Planner, windows_of
from m3index.index.prune import UnseenRows
from m3index.index.summary import Summary, Tally
from m3index.index.tenant import tenant_of
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store

SAMPLE_DOCUMENTS = 256


class _Estimate:
    """Estimates tokens and passages from the first documents, scaled by characters. stored: what the run may
    keep; None if it encodes all."""

    def __init__(self, encoder: Encoder, size: PassageSize, stored: StoredVectors | None) -> None:
        self._encoder, self._size, self._stored = encoder, size, stored
        self._sampled = self._characters = self._sample_characters = 0
        self._tokens = self._passages = self._kept = 0

    def add(self, planned: Sequence[DocumentChange]) -> None:
        content = [p for p in planned if p.change is not Change.METADATA]
        self._characters += sum(len(p.document.text) for p in content)
        sample = content[: SAMPLE_DOCUMENTS - self._sampled]
        self._sampled += len(sample)
        vectors = KeptVectors() if self._stored is None else self._stored.of(sample)
        documents = [p.document for p in sample]
        for document, passages in windows(documents, self._encoder.tokenizer, self._size, lambda _: None):
            kept = vectors.of(document.title, passages)
            self._sample_characters += len(document.text)
            self._tokens += sum(passage.tokens for passage in passages if passage.ordinal not in kept)
            self._passages += len(passages)
            self._kept += len(kept)

    def _scaled(self, sampled: int) -> int:
        return round(sampled * self._characters / self._sample_characters) if self._sample_characters else 0

    @property
    def tokens(self) -> int:
        return self._scaled(self._tokens)

    @property
    def passages(self) -> int:
        return self._scaled(self._passages)

    @property
    def passages_kept(self) -> int:
        return self._scaled(self._kept)


def plan(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: IngestOptions,
    *,
    removes: bool = True,
    others: int = 0,
    reporter: Reporter | None = None,
) -> Summary:
    """Predicts what a run over the corpus would do. Takes no lock and writes nothing.

    removes: if False, documents missing from the corpus are not counted as deleted in any mode. others: the
    number of good rows that are no documents, for the share of bad rows. Raises
    MismatchError, MissingHeadError, UsageError and StoreError.
    """
    reporter = reporter or Silent()
    name = store.resolve(alias)
    rate, stored = 0.0, None
    if name is None:
        spec = make_spec(encoder.info, settings)
        size = (settings.splitting or PassageSettings()).resolve(encoder.tokenizer)
    else:
        target = load_target(store, alias, name)
        check_fits(target, encoder.info, settings)
        spec = target.spec
        size = target.passages
        if settings.splitting is not None:
            size = settings.splitting.resolve(encoder.tokenizer, size)
        rate = float(target.properties.get("rate", "0"))
        if not settings.force:
            stored = StoredVectors(store, name, spec, settings.source, rate)
    planner = Planner(
        store,
        name,
        spec.fields,
        settings.source,
        size,
        tenant_field=spec.tenant,
        tenant=tenant_of(spec, alias, settings.tenant_name),
        force=settings.force,
    )
    estimate, tally = _Estimate(encoder, size, stored), Tally()
    total = corpus.total_bytes
    for items in windows_of(corpus):
        window = planner.window(items, only_keys=settings.mode == "prune")
        estimate.add(window.planned)
        tally.note(window)
        for planned in window.planned:
            tally.count(planned.change)
        for rejected in window.rejected:
            tally.quarantined += 1
            reporter.rejected(rejected)
        reporter.progress(Progress(tally.scanned, 0, 0, corpus.bytes_read, total))
    tell(corpus, reporter)
    if warning := planner.spellings.warning:
        reporter.warning(warning)
    for error in corpus.read_errors:
        tally.quarantined += 1
        reporter.rejected(error)
    rows = tally.scanned + len(corpus.read_errors) + others
    tally.fail(settings.most_errors.refusal(tally.quarantined, rows), reporter)
    if tally.stopped is None and name is not None and removes and settings.mode != "ingest":
        unseen = UnseenRows(store, name, planner)
        if message := unseen.withheld_message(corpus, settings.guard):
            tally.deletes_withheld = unseen.documents
            reporter.warning(message)
        else:
            tally.deleted = unseen.documents
    return Summary(
        command=settings.mode,
        collection=alias,
        encoder=encoder.info.name,
        scanned=tally.scanned,
        added=tally.added,
        updated=tally.updated,
        metadata_only=tally.metadata_only,
        unchanged=tally.unchanged,
        deleted=tally.deleted,
        quarantined=tally.quarantined,
        deletes_withheld=tally.deletes_withheld,
        skipped=dict(corpus.skip_counts),
        passages=estimate.passages,
        passages_kept=estimate.passages_kept,
        tokens=estimate.tokens,
        seconds=round(estimate.tokens / rate, 1) if rate else None,
        generation=None if name is None else generation_number(alias, name),
        store_count=None,
        count_ok=None,
        dry_run=True,
        exit=int(tally.exit(count_ok=True)),
    )
