"""What a run would do: the same walk, with nothing written and nothing encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m3index.corpus.windows import PassageSettings, PassageSize, windows
from m3index.encoder.base import Encoder
from m3index.index.collection import check, load_target, make_spec
from m3index.index.plan import Change, Corpus, Planned, Planner, windows_of
from m3index.index.prune import Listing, kept_because, why_withheld
from m3index.index.settings import Mode, SyncSettings
from m3index.index.summary import Tally
from m3index.index.tenant import tenant_of
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store

SAMPLE_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; counts of documents. `tokens` and `passages` to encode are estimated from
    the first changed documents, `seconds` from the rate of the last run (None where there was none)."""

    collection: str
    encoder: str
    scanned: int
    added: int
    updated: int
    metadata_only: int
    unchanged: int
    deleted: int
    deletes_withheld: int
    quarantined: int
    tokens: int
    passages: int
    seconds: float | None
    exit: int

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", "command": "plan", **asdict(self)}


class _Estimate:
    """Tokens and passages of many documents from those of the first ones, by their characters."""

    def __init__(self, encoder: Encoder, size: PassageSize) -> None:
        self._encoder, self._size = encoder, size
        self._sampled = self._characters = self._sample_characters = self._tokens = self._passages = 0

    def add(self, planned: Sequence[Planned]) -> None:
        documents = [p.document for p in planned if p.change is not Change.METADATA]
        self._characters += sum(len(d.text) for d in documents)
        sample = documents[: SAMPLE_DOCUMENTS - self._sampled]
        self._sampled += len(sample)
        size = self._size
        for document, passages in windows(
            sample, self._encoder.tokenizer, size.tokens, size.overlap, lambda _: None
        ):
            self._sample_characters += len(document.text)
            self._tokens += sum(passage.tokens for passage in passages)
            self._passages += len(passages)

    def of_all(self, sampled: int) -> int:
        return round(sampled * self._characters / self._sample_characters) if self._sample_characters else 0

    @property
    def tokens(self) -> int:
        return self.of_all(self._tokens)

    @property
    def passages(self) -> int:
        return self.of_all(self._passages)


def plan(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: SyncSettings,
    *,
    mode: Mode = "sync",
    reporter: Reporter | None = None,
) -> Plan:
    """Walks the corpus and says what `mode` would do with it. Takes no lock; writes nothing.

    Raises MismatchError where the run would be refused.
    """
    reporter = reporter or Silent()
    name = store.resolve(alias)
    wanted = settings.wanted
    rate = 0.0
    if name is None:
        spec = make_spec(encoder.info, wanted)
        size = (settings.passages or PassageSettings()).resolve(encoder.tokenizer)
    else:
        target = load_target(store, alias, name)
        check(target, encoder.info, wanted)
        spec = target.spec
        size = settings.passages.resolve(encoder.tokenizer) if settings.passages else target.passages
        rate = float(target.properties.get("rate", "0"))
    planner = Planner(
        store,
        name,
        spec.fields,
        settings.source,
        size,
        tenant_field=spec.tenant,
        tenant=tenant_of(spec, alias, settings.tenant),
        force=settings.force,
    )
    estimate, tally = _Estimate(encoder, size), Tally()
    total = corpus.total_bytes
    for items in windows_of(corpus):
        window = planner.window(items, only_keys=mode == "prune")
        estimate.add(window.planned)
        tally.note(window)
        for planned in window.planned:
            tally.count(planned.change)
        for rejected in window.rejected:
            tally.quarantined += 1
            reporter.rejected(rejected)
        reporter.progress(Progress(tally.scanned, 0, 0, corpus.bytes_read, total))
    tally.quarantined += len(corpus.read_errors)
    if name is not None and mode != "ingest":
        listing = Listing(store, name, planner)
        withheld = why_withheld(corpus, planner, listing, added=0, guard=settings.max_delete)
        if withheld:
            tally.deletes_withheld = listing.documents
            reporter.warning(kept_because(listing.documents, withheld))
        else:
            tally.deleted = listing.documents
    return Plan(
        collection=alias,
        encoder=encoder.info.name,
        scanned=tally.scanned,
        added=tally.added,
        updated=tally.updated,
        metadata_only=tally.metadata_only,
        unchanged=tally.unchanged,
        deleted=tally.deleted,
        deletes_withheld=tally.deletes_withheld,
        quarantined=tally.quarantined,
        tokens=estimate.tokens,
        passages=estimate.passages,
        seconds=round(estimate.tokens / rate, 1) if rate else None,
        exit=int(tally.exit(count_ok=True)),
    )
