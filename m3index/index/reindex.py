"""Builds and checks a new generation beside the current one, then moves the alias to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, TypeAlias

from m3index import schema
from m3index.corpus.mapping import declared
from m3index.corpus.windows import PassageSettings
from m3index.encoder.base import Encoder
from m3index.errors import DeletesWithheldError, DriftError, UsageError
from m3index.index.calibrate import Calibration, calibrate_if_due
from m3index.index.collection import (
    Collection,
    create_generation,
    find,
    generation_names,
    generation_number,
    load_target,
    make_spec,
    settings_json,
)
from m3index.index.generations import BUILDING, LIVE, drop_old, switch
from m3index.index.left_unread import PROPERTY
from m3index.index.lock import WriteLock, hold
from m3index.index.options import CollectionLayout, MaxDelete, Never, ReindexOptions, Stop, SyncOptions
from m3index.index.plan import Corpus, Planner
from m3index.index.prune import UnseenRows
from m3index.index.seen import SeenKeys
from m3index.index.summary import Summary, Tally
from m3index.index.sync import Run
from m3index.index.write import READ_ROWS
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.store.filter import Compare
from m3index.store.rows import row_fields, row_of
from m3index.types import Place, Rejected, Row, key_of_passage
from m3index.wording import many

SWAP_WAIT = 600.0
"""The minimum number of seconds to wait for the lock before the swap, so that a running sync can finish."""

Corpora: TypeAlias = Mapping[str, Callable[[], Corpus]]
"""For each source, a function that opens its corpus for a new pass; reindexing reads it twice."""

Gate: TypeAlias = Callable[[str, str], None]
"""Takes the names of the old and the new concrete collection; raises GateError to reject the new one."""


def reindex(
    store: Store,
    encoder: Encoder,
    alias: str,
    settings: ReindexOptions,
    *,
    corpora: Corpora | None = None,
    gate: Gate | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Builds a new generation with this encoder and these options, and moves the alias to it.

    If only fields, tenant field, analyzer, indexes, schema or a coarser storage change, the vectors are
    copied from the current generation and nothing is encoded (unless `force` is set). Otherwise `corpora`
    must name every source. Syncs may run in the meantime: before the swap, the run takes the lock and applies
    their changes. An interrupted run resumes where it stopped.

    gate: may raise GateError. After any error the alias is unchanged. Raises DeletesWithheldError if more of
    the old documents than `max_delete` allows are missing from the corpus or rejected, DriftError if the
    counts are wrong, and CollectionNotFoundError, LockedError, MissingHeadError, UsageError and StoreError.
    """
    reporter, stop = reporter or Silent(), stop or Never()
    with hold(store, f"{alias}-reindex", settings.lock_seconds, "m3index reindex"):
        old = find(store, alias)
        layout = _layout(old, encoder, settings)
        copying = _can_copy(old, encoder, layout) and not settings.force
        if not copying:
            _check_sources(store, old, corpora)
        elif corpora:
            reporter.note(
                "The vectors are reused, so the corpus is not read. Pass --force to encode it again."
            )
        new = _open_building(store, alias, encoder, layout)
        build: Build
        if copying:
            build = CopyBuild(store, encoder, old, new, reporter, stop, settings)
        else:
            build = EncodeBuild(store, encoder, old, new, reporter, stop, settings, corpora or {})
        reporter.stage(f"building generation {new.generation}")
        build.catch_up(None)
        if build.stopped():
            return build.summary(None)
        known = Calibration.of(old.properties)
        if copying and known is not None:
            store.set_properties(new.name, known.to_property())
        elif not settings.no_calibrate:
            calibrate_if_due(store, new, encoder, store.count(new.name), reporter)
        if gate is not None:
            reporter.stage("checking the quality gate")
            gate(old.name, new.name)
        with hold(store, alias, max(settings.lock_seconds, SWAP_WAIT), "m3index reindex") as lock:
            lock.lease(lambda: find(store, alias), rewrites=[])
            if store.resolve(alias) != old.name:
                raise UsageError(
                    f"The alias {alias!r} moved to another generation in the meantime. Run reindex again."
                )
            reporter.stage("applying recent changes and swapping generations")
            build.catch_up(lock)
            if build.stopped():
                return build.summary(None)
            count = build.verified_count()
            carried = {
                k: v for k, v in store.properties(old.name).items() if k in ("last_success", "rate", PROPERTY)
            }
            store.set_properties(new.name, carried | {"state": LIVE})
            switch(store, alias, new.name)
        drop_old(store, alias, settings.keep)
        return build.summary(count)


@dataclass(frozen=True, slots=True)
class ReindexPlan:
    """What a reindex would do. encodes: whether documents are encoded again or vectors reused. rows: the rows
    of the current generation."""

    collection: str
    encoder: str
    generation: int
    encodes: bool
    rows: int
    exit: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", "command": "reindex", **asdict(self)}


def plan_reindex(
    store: Store, encoder: Encoder, alias: str, settings: ReindexOptions, corpora: Corpora | None = None
) -> ReindexPlan:
    """Predicts what `reindex` would do; takes no lock and writes nothing. Raises CollectionNotFoundError,
    MissingHeadError, UsageError."""
    old = find(store, alias)
    copying = _can_copy(old, encoder, _layout(old, encoder, settings)) and not settings.force
    if not copying:
        _check_sources(store, old, corpora)
    last = generation_number(alias, generation_names(store, alias)[-1]) or 0
    return ReindexPlan(alias, encoder.info.name, last + 1, not copying, store.count(old.name))


def _layout(old: Collection, encoder: Encoder, settings: ReindexOptions) -> CollectionLayout:
    """The layout of the new generation: from the settings, else from the old one if the encoder allows it."""
    same_space = old.has_space_of(encoder.info)
    sparse = settings.sparse
    if sparse is None and (same_space or old.spec.sparse != "lexical"):
        sparse = old.spec.sparse if same_space else None
    resulting = sparse or ("lexical" if encoder.info.lexical else "bm25")
    analyzer = settings.analyzer or (old.spec.analyzer if resulting == "bm25" else None)
    passages = settings.splitting
    if old.passages.tokens <= encoder.tokenizer.limit:
        size = (passages or PassageSettings()).resolve(encoder.tokenizer, old.passages)
        passages = PassageSettings(size.tokens, size.overlap, size.by)
    fields = dict(old.spec.fields if settings.declared is None else settings.declared)
    tenant = settings.tenant_field
    if tenant is None and old.spec.tenant is not None:
        tenant = old.spec.tenant
        fields.setdefault(tenant, old.spec.fields[tenant])
    storage = settings.storage or old.spec.storage
    index = settings.index_choice or old.spec.index
    return CollectionLayout(
        sparse=sparse,
        fields=fields,
        analyzer=analyzer,
        passage_tokens=None if passages is None else passages.tokens,
        overlap=None if passages is None else passages.overlap,
        passages_by=old.passages.by if passages is None else passages.by,
        tenant_field=tenant,
        storage=storage,
        index_class=index.size,
        index=index.changes,
    )


def _can_copy(old: Collection, encoder: Encoder, layout: CollectionLayout) -> bool:
    """Whether the new generation can reuse the vectors of the old one."""
    spec = make_spec(encoder.info, layout)
    return (
        old.has_space_of(encoder.info)
        and old.spec.dim == spec.dim
        and old.spec.storage in ("fp32", spec.storage)
        and (spec.sparse != "lexical" or old.spec.sparse == "lexical")
        and layout.splitting is not None
        and layout.splitting.resolve(encoder.tokenizer) == old.passages
    )


def _check_sources(store: Store, old: Collection, corpora: Corpora | None) -> None:
    if not corpora:
        raise UsageError(
            f"The vectors of {old.alias!r} cannot be reused, so its documents must be encoded again. "
            "Name the corpus."
        )
    named = sum(store.count(old.name, Compare("source", "==", source)) for source in corpora)
    others = store.count(old.name) - named
    if others > 0:
        raise UsageError(
            f"{old.alias!r} has {many(others, 'row')} of sources other than {', '.join(sorted(corpora))}, "
            "which would be lost. Name the corpus of each source."
        )


def _open_building(store: Store, alias: str, encoder: Encoder, layout: CollectionLayout) -> Collection:
    """The unfinished generation of an interrupted reindex, if it has the same layout; else a new one."""
    spec = make_spec(encoder.info, layout)
    names = generation_names(store, alias)
    passages = settings_json((layout.splitting or PassageSettings()).resolve(encoder.tokenizer))
    for name in names:
        target = load_target(store, alias, name)
        if target.properties.get("state") != BUILDING:
            continue
        same = (
            target.has_space_of(encoder.info)
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
    return create_generation(store, alias, last + 1, encoder, layout, point=False)


class Build:
    """Fills the new generation; each call of `catch_up` applies what has changed since."""

    def __init__(
        self, store: Store, encoder: Encoder, old: Collection, new: Collection, reporter: Reporter, stop: Stop
    ) -> None:
        self.store, self.encoder, self.old, self.new = store, encoder, old, new
        self.reporter, self.stop = reporter, stop
        self.tally = Tally()

    def catch_up(self, lock: WriteLock | None) -> None:
        """Brings the new generation up to date. lock: set if this run holds the lock, so nothing can change.

        Raises DeletesWithheldError, DriftError, LockedError.
        """
        raise NotImplementedError

    def verified_count(self) -> int:
        """The number of rows of the new generation. Raises DriftError if it is wrong."""
        raise NotImplementedError

    def stopped(self) -> bool:
        return self.tally.stopped is not None

    def check_rejected(self, rejected: int, total: int, guard: MaxDelete | None) -> None:
        """Raises DeletesWithheldError if the swap would lose too many documents that were rejected.

        Without a guard, rejecting all of them is a mistake in the declaration, however few they are.
        """
        if guard is None and rejected == total:
            guard = MaxDelete(count=0)
        if reason := (guard or MaxDelete()).refusal(rejected, total):
            documents = many(rejected, "document was", "documents were")
            self.refuse(rejected, f"{documents} rejected that the current generation has: {reason}")

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


class EncodeBuild(Build):
    """Fills the new generation from the corpora, with a sync of each source."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        old: Collection,
        new: Collection,
        reporter: Reporter,
        stop: Stop,
        settings: ReindexOptions,
        corpora: Corpora,
    ) -> None:
        super().__init__(store, encoder, old, new, reporter, stop)
        self.settings, self.corpora = settings, corpora

    def catch_up(self, lock: WriteLock | None) -> None:
        tally = self.tally
        written_before = tally.added + tally.updated + tally.metadata_only
        tally.scanned = tally.unchanged = tally.quarantined = 0
        for source, open_corpus in self.corpora.items():
            corpus = open_corpus()
            most = self.settings.max_errors  # without it, _check_losses decides, which knows what is lost
            settings = SyncOptions(
                source=source,
                max_delete="100%",
                max_errors="100%" if most is None else most,
                no_calibrate=True,  # below, once, for the whole generation
                thorough=True,
            )
            run = Run(self.store, self.encoder, self.new, settings, self.reporter, self.stop, lock)
            summary = run.over(corpus)
            tally.scanned += summary.scanned
            tally.unchanged += summary.unchanged
            tally.quarantined += summary.quarantined
            tally.added += summary.added
            tally.updated += summary.updated
            tally.metadata_only += summary.metadata_only
            tally.passages += summary.passages
            tally.passages_kept += summary.passages_kept
            tally.tokens += summary.tokens
            tally.stopped = run.tally.stopped
            if tally.stopped is not None:
                return
            if not summary.count_ok:
                raise DriftError(
                    f"The row counts of generation {self.new.generation} are wrong; the alias was not moved. "
                    "Run reindex again."
                )
            self._check_losses(corpus, run)
        tally.unchanged = max(0, tally.unchanged - written_before)

    def _check_losses(self, corpus: Corpus, run: Run) -> None:
        """Raises DeletesWithheldError if the swap would lose too many documents of the old generation."""
        unseen, guard = UnseenRows(self.store, self.old.name, run.planner), self.settings.guard
        if message := unseen.withheld_message(corpus, guard):
            self.refuse(unseen.documents, message)
        if run.tally.quarantined:
            self.check_rejected(*self._count_rejected(run.planner), guard)

    def _count_rejected(self, planner: Planner) -> tuple[int, int]:
        """Counts the old documents that are in the corpus but not in the new generation, and all old ones."""
        new_keys = SeenKeys()
        for row in self.store.scan(self.new.name, planner.rows, ["ordinal"]):
            new_keys.add(bytes.fromhex(key_of_passage(row["passage_id"])))
        rejected = documents = 0
        for row in self.store.scan(self.old.name, planner.rows, ["ordinal"]):
            key = key_of_passage(row["passage_id"])
            documents += row["ordinal"] == 0
            rejected += row["ordinal"] == 0 and key in planner and bytes.fromhex(key) not in new_keys
        return rejected, documents

    def verified_count(self) -> int:
        return self.store.count(self.new.name)


class CopyBuild(Build):
    """Copies rows and vectors from the old generation; takes the declared fields from the metadata."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        old: Collection,
        new: Collection,
        reporter: Reporter,
        stop: Stop,
        settings: ReindexOptions,
    ) -> None:
        super().__init__(store, encoder, old, new, reporter, stop)
        self.settings, self.expected = settings, 0
        self._reported: set[str] = set()

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
        if self._stopping(lock):
            return
        self._drop_surplus()
        self.tally.unchanged = max(0, self.tally.scanned - self.tally.quarantined - self.tally.added)
        self.check_rejected(self.tally.quarantined, self.tally.scanned, self.settings.guard)

    def _stopping(self, lock: WriteLock | None) -> bool:
        if lock is not None:
            lock.check()
        self.tally.fail(self.settings.most_errors.refusal_so_far(self.tally.quarantined), self.reporter)
        if self.tally.stopped is None and self.stop():
            self.tally.stopped = self.stop.exit
        return self.tally.stopped is not None

    def _copy(self, ids: Sequence[str]) -> None:
        """Copies those of these rows that the new generation lacks or holds in an outdated state."""
        compared = ["doc_hash", "passages"]
        old = self.store.get(self.old.name, ids, compared)
        new = self.store.get(self.new.name, ids, compared)
        different = [
            i
            for i, row in old.items()
            if i not in new or not row["doc_hash"] or any(row[name] != new[i][name] for name in compared)
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
        self.expected += len(old) - (len(different) - len(rows))
        self.reporter.progress(Progress(self.tally.scanned, self.tally.passages))

    def _converted(self, row: Row) -> Row | None:
        """The row for the new generation; None for a rejected document, whose field has the wrong type."""
        try:
            fields = declared(row, self.new.spec.fields, self.new.spec.tenant)
        except ValueError as error:
            if row.ordinal == 0:
                self.tally.quarantined += 1
                if row.passage_id not in self._reported:  # by an earlier pass
                    self._reported.add(row.passage_id)
                    self.reporter.rejected(Rejected(Place(self.old.name), str(error), doc_id=row.doc_id))
            return None
        return replace(row, fields=fields, sparse=row.sparse if self.new.spec.sparse == "lexical" else None)

    def _drop_surplus(self) -> None:
        """Deletes the rows that are no longer in the old generation."""
        part: list[str] = []
        surplus: list[str] = []
        for row in self.store.scan(self.new.name, None, ["ordinal"]):
            part.append(row["passage_id"])
            if len(part) == READ_ROWS:
                surplus += self._missing_from_old(part)
                part = []
        surplus += self._missing_from_old(part)
        if surplus:
            self.store.delete(self.new.name, surplus)

    def _missing_from_old(self, ids: Sequence[str]) -> list[str]:
        rows = self.store.get(self.old.name, ids, ["ordinal"])
        return [i for i in ids if i not in rows]

    def verified_count(self) -> int:
        self.store.flush(self.new.name)
        count = self.store.count(self.new.name)
        if count != self.expected:
            raise DriftError(
                f"Generation {self.new.generation} has {many(count, 'row')}, but {self.expected:,} were "
                "expected; the alias was not moved. Run reindex again."
            )
        return count
