"""A new generation beside the one in use: built, proved, gated, and the alias moved to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, TypeAlias

from m3index import schema
from m3index.corpus.mapping import declared
from m3index.corpus.windows import PassageSettings
from m3index.encoder.base import Encoder
from m3index.errors import DeletesWithheldError, DriftError, UsageError
from m3index.index.collection import (
    Target,
    Wanted,
    create_generation,
    find,
    generation_names,
    generation_number,
    load_target,
    make_spec,
    settings_json,
)
from m3index.index.generations import BUILDING, LIVE, drop_old
from m3index.index.lock import WriteLock, hold
from m3index.index.plan import Corpus, Planner
from m3index.index.prune import Listing, MaxDelete, kept_because, rows_of, why_withheld
from m3index.index.seen import SeenKeys
from m3index.index.settings import Never, Stop, SyncSettings
from m3index.index.summary import Summary, Tally
from m3index.index.sync import Run
from m3index.index.write import READ_ROWS, row_fields, row_of
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.store.filter import Compare
from m3index.types import Document, Place, Rejected, Row, key_of_passage

SWAP_WAIT = 600.0
"""Seconds to wait for the lock before the swap: a sync that is under way may end."""

Corpora: TypeAlias = Mapping[str, Callable[[], Corpus]]
"""For each source a way to begin a pass over its corpus; reindexing reads it twice."""

Gate: TypeAlias = Callable[[str, str], None]
"""Given the old and the new concrete collection; raises GateError where the new one shall not serve."""


def reindex(
    store: Store,
    encoder: Encoder,
    alias: str,
    settings: SyncSettings,
    *,
    corpora: Corpora | None = None,
    gate: Gate | None = None,
    keep: int = 1,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Builds a new generation with this encoder, these fields, and moves the alias to it.

    Where only fields, tenant field, analyzer, indexes, schema or a coarser storage change, the vectors are
    copied from the current generation and nothing is encoded (`force` encodes all the same). Otherwise
    `corpora` must name every source. Syncs may run meanwhile: at the end the lock is taken and what they
    did is caught up with, before the swap. A run that was interrupted is taken up where it stopped.

    gate: may raise GateError; the alias then stays, as it does at every other error. keep: how many
    older generations stay for `rollback`. Raises DeletesWithheldError where a corpus lacks more of the
    old documents than the guard allows, or more of them do not fit the new fields, DriftError where the
    counts are not right.
    """
    reporter, stop = reporter or Silent(), stop or Never()
    with hold(store, f"{alias}-reindex", settings.retry_lock, "m3index reindex"):
        old = find(store, alias)
        wanted = _wanted(old, encoder, settings)
        copying = _can_copy(old, encoder, wanted) and not settings.force
        if not copying:
            _check_sources(store, old, corpora)
        elif corpora:
            reporter.note("The vectors can be kept, so the corpus is not read; --force encodes it again.")
        new = _open_building(store, alias, encoder, wanted)
        build: Build
        if copying:
            build = Copy(store, encoder, old, new, reporter, stop, settings.max_delete)
        else:
            build = Encode(store, encoder, old, new, reporter, stop, settings, corpora or {})
        reporter.stage(f"building generation {new.generation}")
        build.catch_up(None)
        if build.stopped():
            return build.summary(None)
        if gate is not None:
            reporter.stage("the quality gate")
            gate(old.name, new.name)
        with hold(store, alias, max(settings.retry_lock, SWAP_WAIT), "m3index reindex") as lock:
            lock.lease(lambda: find(store, alias))
            if store.resolve(alias) != old.name:
                raise UsageError(f"{alias!r} was moved to another generation meanwhile; run reindex again.")
            reporter.stage("catching up, then the swap")
            build.catch_up(lock)
            if build.stopped():
                return build.summary(None)
            count = build.prove()
            kept = {k: v for k, v in store.properties(old.name).items() if k in ("last_success", "rate")}
            store.set_properties(new.name, kept | {"state": LIVE})
            store.point(alias, new.name)
        drop_old(store, alias, keep)
        return build.summary(count)


@dataclass(frozen=True, slots=True)
class ReindexPlan:
    """What a reindex would do. encodes: whether the documents are encoded again, or their vectors kept;
    rows: of the generation in use."""

    collection: str
    encoder: str
    generation: int
    encodes: bool
    rows: int
    exit: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", "command": "reindex", **asdict(self)}


def plan_reindex(
    store: Store, encoder: Encoder, alias: str, settings: SyncSettings, corpora: Corpora | None = None
) -> ReindexPlan:
    """Says what `reindex` would do; takes no lock, writes nothing. Raises what it would refuse with."""
    old = find(store, alias)
    copying = _can_copy(old, encoder, _wanted(old, encoder, settings)) and not settings.force
    if not copying:
        _check_sources(store, old, corpora)
    last = generation_number(alias, generation_names(store, alias)[-1]) or 0
    return ReindexPlan(alias, encoder.info.name, last + 1, not copying, store.count(old.name))


def _wanted(old: Target, encoder: Encoder, settings: SyncSettings) -> Wanted:
    """What the new generation shall be: as asked, else as the old one where the encoder allows it."""
    same_space = old.properties.get("space_id") == encoder.info.space_id
    sparse = settings.sparse
    if sparse is None and (same_space or old.spec.sparse != "lexical"):
        sparse = old.spec.sparse if same_space else None
    resulting = sparse or ("lexical" if encoder.info.lexical else "bm25")
    analyzer = settings.analyzer or (old.spec.analyzer if resulting == "bm25" else None)
    passages = settings.passages
    if passages is None and old.passages.tokens <= encoder.tokenizer.limit:
        passages = PassageSettings(old.passages.tokens, old.passages.overlap)
    fields = dict(old.spec.fields if settings.fields is None else settings.fields)
    tenant = settings.tenant_field
    if tenant is None and old.spec.tenant is not None:
        tenant = old.spec.tenant
        fields.setdefault(tenant, old.spec.fields[tenant])
    storage = settings.storage or old.spec.storage
    return Wanted(sparse, fields, analyzer, passages, tenant, storage, settings.index or old.spec.index)


def _can_copy(old: Target, encoder: Encoder, wanted: Wanted) -> bool:
    """Whether the vectors of the old generation are those that the new one needs."""
    spec = make_spec(encoder.info, wanted)
    return (
        old.properties.get("space_id") == encoder.info.space_id
        and old.spec.dim == spec.dim
        and old.spec.storage in ("fp32", spec.storage)
        and (spec.sparse != "lexical" or old.spec.sparse == "lexical")
        and wanted.passages is not None
        and wanted.passages.resolve(encoder.tokenizer) == old.passages
    )


def _check_sources(store: Store, old: Target, corpora: Corpora | None) -> None:
    if not corpora:
        raise UsageError(
            f"The vectors of {old.alias!r} cannot be kept, so that its documents are encoded again: "
            "name the corpus."
        )
    named = sum(store.count(old.name, Compare("source", "==", source)) for source in corpora)
    others = store.count(old.name) - named
    if others > 0:
        raise UsageError(
            f"{others:,} rows of {old.alias!r} are of other sources than {', '.join(sorted(corpora))}. "
            "Name the corpus of each source, or they would be lost."
        )


def _open_building(store: Store, alias: str, encoder: Encoder, wanted: Wanted) -> Target:
    """The generation that an interrupted reindex began, if it was to be the same; else a new one."""
    spec = make_spec(encoder.info, wanted)
    names = generation_names(store, alias)
    passages = settings_json((wanted.passages or PassageSettings()).resolve(encoder.tokenizer))
    for name in names:
        target = load_target(store, alias, name)
        if target.properties.get("state") != BUILDING:
            continue
        same = (
            target.properties.get("space_id") == encoder.info.space_id
            and target.properties.get("settings") == passages
            and target.properties.get("schema_version") == str(schema.version())
            and replace(target.spec, fields={}, analyzer=None) == replace(spec, fields={}, analyzer=None)
            and dict(target.spec.fields) == dict(spec.fields)
            and (spec.analyzer is None or target.spec.analyzer == spec.analyzer)
        )
        if same:
            return target
        store.drop(name)
    last = generation_number(alias, names[-1]) or 0
    return create_generation(store, alias, last + 1, encoder, wanted, point=False)


class Build:
    """Fills the new generation, and catches up with what has changed as often as it is asked to."""

    def __init__(
        self, store: Store, encoder: Encoder, old: Target, new: Target, reporter: Reporter, stop: Stop
    ) -> None:
        self.store, self.encoder, self.old, self.new = store, encoder, old, new
        self.reporter, self.stop = reporter, stop
        self.tally = Tally()

    def catch_up(self, lock: WriteLock | None) -> None:
        """Brings the new generation level. lock: held, where nothing may change meanwhile."""
        raise NotImplementedError

    def prove(self) -> int:
        """The rows of the new generation. Raises DriftError where they are not what they should be."""
        raise NotImplementedError

    def stopped(self) -> bool:
        return self.tally.stopped is not None

    def check_misfits(self, misfits: int, of: int, guard: MaxDelete | None) -> None:
        """Documents that the old generation serves and the new one rejected would be gone with the swap.
        A declaration that fits none of them is a slip, however few they are."""
        if guard is None and misfits == of:
            guard = MaxDelete(count=0)
        if misfits and (reason := (guard or MaxDelete()).refuses(misfits, of)):
            self.refuse(misfits, f"{misfits:,} documents that are served now were rejected: {reason}")

    def refuse(self, documents: int, reason: str) -> NoReturn:
        self.tally.deletes_withheld = documents
        error = DeletesWithheldError(f"{reason} The alias {self.old.alias!r} was not moved.")
        error.summary = self.summary(None).to_json()
        raise error

    def summary(self, count: int | None) -> Summary:
        return self.tally.summary(
            "reindex",
            self.new.alias,
            self.encoder.info.name,
            self.new.generation,
            count,
            count_ok=None if count is None else True,
        )


class Encode(Build):
    """From the corpora: a sync of each into the new generation."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        old: Target,
        new: Target,
        reporter: Reporter,
        stop: Stop,
        settings: SyncSettings,
        corpora: Corpora,
    ) -> None:
        super().__init__(store, encoder, old, new, reporter, stop)
        self.settings, self.corpora = settings, corpora

    def catch_up(self, lock: WriteLock | None) -> None:
        tally = self.tally
        tally.scanned = tally.unchanged = tally.quarantined = 0
        for source, open_corpus in self.corpora.items():
            corpus = open_corpus()
            settings = replace(
                self.settings, source=source, passages=None, force=False, max_delete=MaxDelete(percent=100)
            )
            run = Run(self.store, self.encoder, self.new, settings, "sync", self.reporter, self.stop, lock)
            summary = run.over(corpus)
            tally.scanned += summary.scanned
            tally.unchanged += summary.unchanged
            tally.quarantined += summary.quarantined
            tally.added += summary.added
            tally.updated += summary.updated
            tally.metadata_only += summary.metadata_only
            tally.passages += summary.passages
            tally.tokens += summary.tokens
            tally.stopped = run.tally.stopped
            if tally.stopped is not None:
                return
            if not summary.count_ok:
                raise DriftError(
                    f"The counts of generation {self.new.generation} are not right; it does not serve."
                )
            self._check_losses(corpus, run)

    def _check_losses(self, corpus: Corpus, run: Run) -> None:
        """What the old generation has and the corpus has not would be gone with the swap."""
        listing = Listing(self.store, self.old.name, run.planner)
        guard = self.settings.max_delete
        withheld = why_withheld(corpus, run.planner, listing, added=0, guard=guard)
        if withheld:
            self.refuse(listing.documents, kept_because(listing.documents, withheld))
        if run.tally.quarantined:
            self.check_misfits(*self._misfits(run.planner), guard)

    def _misfits(self, planner: Planner) -> tuple[int, int]:
        """How many documents of the old generation the corpus has and the new one has not; of how many."""
        there = SeenKeys()
        for row in self.store.scan(self.new.name, rows_of(planner), ["ordinal"]):
            there.add(bytes.fromhex(key_of_passage(row["passage_id"])))
        misfits = documents = 0
        for row in self.store.scan(self.old.name, rows_of(planner), ["ordinal"]):
            key = key_of_passage(row["passage_id"])
            documents += row["ordinal"] == 0
            misfits += row["ordinal"] == 0 and key in planner and bytes.fromhex(key) not in there
        return misfits, documents

    def prove(self) -> int:
        return self.store.count(self.new.name)


class Copy(Build):
    """From the old generation: rows and vectors, with the declared fields out of the metadata."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        old: Target,
        new: Target,
        reporter: Reporter,
        stop: Stop,
        guard: MaxDelete | None,
    ) -> None:
        super().__init__(store, encoder, old, new, reporter, stop)
        self.guard, self.expected = guard, 0
        self._told: set[str] = set()

    def catch_up(self, lock: WriteLock | None) -> None:
        self.tally.scanned = self.tally.quarantined = self.expected = 0
        part: list[str] = []
        for row in self.store.scan(self.old.name, None, ["ordinal"]):
            part.append(row["passage_id"])
            self.tally.scanned += row["ordinal"] == 0
            if len(part) == READ_ROWS:
                self._copy(part)
                part = []
                if self._stopping(lock):
                    return
        self._copy(part)
        self._drop_surplus()
        self.check_misfits(self.tally.quarantined, self.tally.scanned, self.guard)

    def _stopping(self, lock: WriteLock | None) -> bool:
        if lock is not None:
            lock.check()
        if self.stop():
            self.tally.stopped = self.stop.exit
        return self.tally.stopped is not None

    def _copy(self, ids: Sequence[str]) -> None:
        """Those of these rows that the new generation has not, or has as they were."""
        told = ["doc_hash", "passages"]
        wanted = self.store.get(self.old.name, ids, told)
        there = self.store.get(self.new.name, ids, told)
        different = [
            i
            for i, row in wanted.items()
            if i not in there or not row["doc_hash"] or any(row[name] != there[i][name] for name in told)
        ]
        rows: list[Row] = []
        for passage_id, stored in self.store.get(self.old.name, different, row_fields(self.old.spec)).items():
            row = self._converted(row_of(passage_id, stored, self.old.spec))
            if row is not None:
                rows.append(row)
        if rows:
            self.store.upsert(self.new.name, rows)
        self.tally.passages += len(rows)
        self.tally.added += sum(row.ordinal == 0 for row in rows)
        self.expected += len(wanted) - (len(different) - len(rows))
        self.reporter.progress(Progress(self.tally.scanned, self.tally.passages))

    def _converted(self, row: Row) -> Row | None:
        """The row of the new generation; None (and the document rejected) where a field has a value of
        another type than declared."""
        try:
            document = Document(row.doc_id, row.text, row.title, row.metadata)
            fields = declared(document, self.new.spec.fields, self.new.spec.tenant)
        except ValueError as error:
            if row.ordinal == 0:
                self.tally.quarantined += 1
                if row.passage_id not in self._told:  # in the pass before
                    self._told.add(row.passage_id)
                    self.reporter.rejected(Rejected(Place(self.old.name), str(error), doc_id=row.doc_id))
            return None
        return replace(row, fields=fields, sparse=row.sparse if self.new.spec.sparse == "lexical" else None)

    def _drop_surplus(self) -> None:
        """Rows that the old generation has no more."""
        part: list[str] = []
        surplus: list[str] = []
        for row in self.store.scan(self.new.name, None, ["ordinal"]):
            part.append(row["passage_id"])
            if len(part) == READ_ROWS:
                surplus += self._gone(part)
                part = []
        surplus += self._gone(part)
        if surplus:
            self.store.delete(self.new.name, surplus)

    def _gone(self, ids: Sequence[str]) -> list[str]:
        there = self.store.get(self.old.name, ids, ["ordinal"])
        return [i for i in ids if i not in there]

    def prove(self) -> int:
        self.store.flush(self.new.name)
        count = self.store.count(self.new.name)
        if count != self.expected:
            raise DriftError(
                f"Generation {self.new.generation} has {count:,} rows, {self.expected:,} were expected; "
                "it does not serve. Run reindex again."
            )
        return count
