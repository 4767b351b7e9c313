"""The public face: one collection, the encoder it was made with, and what can be done with them.

with Index.open("docs", uri="m3index.db", encoder="offline") as index:
    index.ingest(["corpus.jsonl"])
    for hit in index.search("why does the sea rise and fall").hits:
        print(hit.rank, hit.doc_id, hit.score)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias

from m3index.corpus.mapping import FieldMapping
from m3index.corpus.memory import Documents
from m3index.corpus.quarantine import Quarantine
from m3index.corpus.readers import read
from m3index.encoder.base import Encoder
from m3index.errors import CollectionNotFoundError, GateError, MismatchError, NotFoundError
from m3index.evaluate.gate import Gate
from m3index.evaluate.measures import score_run
from m3index.evaluate.runs import as_run
from m3index.index import collection as collections
from m3index.index.changes import apply_changes, plan_changes, read_changes
from m3index.index.delete import delete, stored_ordinals
from m3index.index.forecast import Plan, plan
from m3index.index.generations import Generation, generations, plan_rollback, rollback
from m3index.index.lock import Holder, plan_unlock, unlock
from m3index.index.plan import Corpus
from m3index.index.reindex import ReindexPlan, plan_reindex, reindex
from m3index.index.settings import Mode, Stop, SyncSettings
from m3index.index.status import Status, status
from m3index.index.summary import Summary
from m3index.index.sync import sync
from m3index.index.tenant import Tenant, tenant_of
from m3index.index.verify import Difference, Verification, verify
from m3index.progress import Reporter, Silent
from m3index.schema import with_tenant
from m3index.search.options import SearchOptions
from m3index.search.rerank import Reranker, load_reranker
from m3index.search.searcher import Searcher, SearchResult, Target
from m3index.store.base import Store
from m3index.store.filter import Compare, Expression, Filter, combine, parse_where
from m3index.store.open import open_store
from m3index.types import (
    DEFAULT_COLLECTION,
    DEFAULT_SOURCE,
    Document,
    FieldType,
    Query,
    Rejected,
    document_key,
)

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Iterable[Document]

DEFAULT_URI = "m3index.db"
DEFAULT_ENCODER = "teacher"


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """Which model to load, and how. `name` None: the collection's own; for a new one `teacher`.
    cache: a folder (a path, `s3://`) of vectors by content; what it holds is not encoded again."""

    name: str | None = None
    device: str = "auto"
    precision: str = "auto"
    dim: int | None = None
    batch_tokens: str = "auto"
    trust_remote_code: bool = False
    cache: str | None = None

    def load(self) -> Encoder:
        from m3index.encoder.load import load

        encoder = load(
            self.name or DEFAULT_ENCODER,
            device=self.device,
            precision=self.precision,
            dim=self.dim,
            batch_tokens=self.batch_tokens,
            trust_remote_code=self.trust_remote_code,
        )
        if self.cache is None:
            return encoder
        from m3index.encoder.cached import CachedEncoder
        from m3index.files import Folder

        return CachedEncoder(encoder, Folder(self.cache))


@dataclass(frozen=True, slots=True)
class QualityGate:
    """What a new generation must reach on judged queries before it serves."""

    gate: Gate
    queries: Sequence[Query]
    qrels: Mapping[str, Mapping[str, int]]


class Index:
    """A collection of a store. Safe to search from several threads; one writer at a time."""

    def __init__(self, store: Store, collection: str, encoder: EncoderChoice | Encoder) -> None:
        self.store = store
        self.collection = collection
        self._choice = encoder if isinstance(encoder, EncoderChoice) else None
        self._encoder = None if isinstance(encoder, EncoderChoice) else encoder
        self._target: collections.Target | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        collection: str = DEFAULT_COLLECTION,
        *,
        uri: str = DEFAULT_URI,
        token: str | None = None,
        db: str | None = None,
        timeout: float = 60.0,
        encoder: str | Encoder | EncoderChoice | None = None,
        create: bool = True,
    ) -> Self:
        """Connects. Nothing is made in the store and no model is loaded until it is needed.

        uri: a local file ending in `.db` (Milvus Lite) or the URI of a server; `memory:` for tests.
        timeout: seconds for which a store that does not answer is tried again.
        encoder: preset, hub id, directory, or an encoder already loaded.
        create: whether a local database is made where there is none; else CollectionNotFoundError.
        """
        if encoder is None or isinstance(encoder, str):
            encoder = EncoderChoice(encoder)
        return cls(open_store(uri, token=token, db=db, timeout=timeout, create=create), collection, encoder)

    def close(self) -> None:
        """Releases the store (a local file's lock too) and the encoder."""
        if self._encoder is not None:
            self._encoder.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what it is made of

    def encoder(self) -> Encoder:
        """The encoder, loaded at the first call: the one asked for, else the collection's own."""
        with self._lock:
            if self._encoder is None:
                assert self._choice is not None
                choice = self._choice
                if choice.name is None:
                    with suppress(CollectionNotFoundError):
                        target = self.target()
                        choice = replace(
                            choice, name=target.properties.get("encoder"), dim=choice.dim or target.spec.dim
                        )
                self._encoder = choice.load()
            return self._encoder

    def target(self) -> collections.Target:
        """The generation behind the alias now: it is asked each time, so that a swap is seen at once.
        Raises CollectionNotFoundError."""
        name = self.store.resolve(self.collection)
        target = self._target
        if target is None or target.name != name:
            self._target = target = collections.find(self.store, self.collection)
        return target

    def fields(self) -> Mapping[str, FieldType]:
        """The declared fields of the collection."""
        return self.target().spec.fields

    def status(self) -> Status:
        """What the collection holds and how it fares. Raises CollectionNotFoundError."""
        return status(self.store, self.collection)

    # -- write

    def ingest(self, paths: Paths, settings: SyncSettings | None = None, **options: Any) -> Summary:
        """Encodes what is new or changed in these files and writes it; removes nothing. See `update`."""
        return self.update("ingest", paths, settings, **options)

    def sync(self, paths: Paths, settings: SyncSettings | None = None, **options: Any) -> Summary:
        """Ingests, and removes what has left the corpus, within the guard. See `update`."""
        return self.update("sync", paths, settings, **options)

    def prune(self, paths: Paths, settings: SyncSettings | None = None, **options: Any) -> Summary:
        """Only removes what has left the corpus, within the guard. See `update`."""
        return self.update("prune", paths, settings, **options)

    def update(
        self,
        mode: Mode,
        paths: Paths,
        settings: SyncSettings | None = None,
        *,
        mapping: FieldMapping | None = None,
        input_format: str | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
        **changes: Any,
    ) -> Summary:
        """One run over a corpus.

        paths: files, directories, globs, `-`; or an iterable of Documents. quarantine: where bad rows
        go. changes: fields of SyncSettings by name. The summary's `exit` says how it went; what ends
        the run early is raised, with the summary so far in the error's `summary`.
        """
        settings = replace(settings or SyncSettings(), **changes)
        with quarantining(reporter, quarantine) as told:
            corpus = self._corpus(paths, mapping, input_format, settings)  # before a model is loaded
            return sync(
                self.store,
                self.encoder(),
                self.collection,
                corpus,
                settings,
                mode=mode,
                reporter=told,
                stop=stop,
            )

    def apply(
        self,
        changes: str | os.PathLike[str],
        settings: SyncSettings | None = None,
        *,
        mapping: FieldMapping | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
        **options: Any,
    ) -> Summary:
        """Applies a feed of upserts and deletes (`{"op": "delete", "id": ...}`), in its order. See also
        `plan_changes`."""
        settings = replace(settings or SyncSettings(), **options)
        with quarantining(reporter, quarantine) as told:
            feed = read_changes(changes, mapping)
            return apply_changes(
                self.store, self.encoder(), self.collection, feed, settings, reporter=told, stop=stop
            )

    def plan_changes(
        self,
        changes: str | os.PathLike[str],
        settings: SyncSettings | None = None,
        *,
        mapping: FieldMapping | None = None,
        reporter: Reporter | None = None,
    ) -> Plan:
        """What `apply` would do with this feed, with nothing written and nothing encoded."""
        feed = read_changes(changes, mapping)
        return plan_changes(
            self.store, self.encoder(), self.collection, feed, settings or SyncSettings(), reporter=reporter
        )

    def delete(
        self,
        ids: Iterable[str] | None = None,
        where: Filter | None = None,
        source: str = DEFAULT_SOURCE,
        **options: Any,
    ) -> Summary:
        """Removes whole documents by id or by filter. options: tenant, dry_run,
        retry_lock, reporter, stop."""
        return delete(self.store, self.collection, ids=ids, where=where, source=source, **options)

    def verify(
        self,
        paths: Paths,
        settings: SyncSettings | None = None,
        *,
        subset: tuple[int, int] = (1, 1),
        repair: bool = False,
        mapping: FieldMapping | None = None,
        input_format: str | None = None,
        found: Callable[[Difference], None] | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
        **options: Any,
    ) -> Verification:
        """Compares slice i of n of the index with the corpus, re-encoding it; `repair` mends what differs."""
        settings = replace(settings or SyncSettings(), **options)
        corpus = self._corpus(paths, mapping, input_format, settings)
        return verify(
            self.store,
            self.encoder(),
            self.collection,
            corpus,
            settings,
            subset=subset,
            repair=repair,
            found=found,
            reporter=reporter,
            stop=stop,
        )

    def reindex(
        self,
        corpora: Mapping[str, Paths] | None = None,
        settings: SyncSettings | None = None,
        *,
        gate: QualityGate | None = None,
        keep: int = 1,
        mapping: FieldMapping | None = None,
        input_format: str | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
        **options: Any,
    ) -> Summary:
        """Builds a new generation with this index's encoder and these settings, and moves the alias to it.

        corpora: the paths of each source; not needed where the vectors can be kept. gate: what the new
        generation must reach before it serves, else GateError. keep: older generations that stay.
        """
        settings = replace(settings or SyncSettings(), **options)
        passes = self._passes(corpora, mapping, input_format, settings)
        with quarantining(reporter, quarantine) as told:
            return reindex(
                self.store,
                self.encoder(),
                self.collection,
                settings,
                corpora=passes,
                gate=partial(self._gate, gate, told) if gate else None,
                keep=keep,
                reporter=told,
                stop=stop,
            )

    def plan_reindex(
        self, corpora: Mapping[str, Paths] | None = None, settings: SyncSettings | None = None, **options: Any
    ) -> ReindexPlan:
        """What `reindex` would do, with nothing written and nothing encoded."""
        settings = replace(settings or SyncSettings(), **options)
        passes = self._passes(corpora, None, None, settings)
        return plan_reindex(self.store, self.encoder(), self.collection, settings, passes)

    def _passes(
        self,
        corpora: Mapping[str, Paths] | None,
        mapping: FieldMapping | None,
        input_format: str | None,
        settings: SyncSettings,
    ) -> dict[str, Callable[[], Corpus]]:
        """For each source a way to begin a pass over its corpus."""
        return {
            source: partial(self._corpus, paths, mapping, input_format, replace(settings, source=source))
            for source, paths in (corpora or {}).items()
        }

    def _gate(self, gate: QualityGate, reporter: Reporter, old: str, new: str) -> None:
        """Raises GateError where the new generation is worse than the gate allows."""
        values = {name: self._value(name, gate) for name in ((old, new) if gate.gate.relative else (new,))}
        passed, said = gate.gate.check(values[new], values.get(old))
        if not passed:
            raise GateError(f"The new generation does not pass: {said} The old one goes on serving.")
        reporter.note(said)

    def _value(self, name: str, gate: QualityGate) -> float:
        """The mean of the gate's measure over the judged queries, by hybrid search in one generation."""
        target = collections.load_target(self.store, self.collection, name)
        own = self.encoder()
        if target.properties.get("space_id") == own.info.space_id:
            encoder = own
        else:
            encoder = EncoderChoice(target.properties.get("encoder")).load()
        searcher = Searcher(Target(self.store, name, target.spec.sparse, lambda: encoder))
        queries = [query for query in gate.queries if query.query_id in gate.qrels]
        results = searcher.run(queries, SearchOptions(k=100, texts=False))
        run = as_run({result.query.query_id: result.hits for result in results})
        return float(score_run(run, gate.qrels, [gate.gate.measure]).values[gate.gate.measure].mean())

    def generations(self) -> list[Generation]:
        return generations(self.store, self.collection)

    def rollback(self, to: int | None = None, *, retry_lock: float = 0.0) -> Generation:
        """Moves the alias to generation `to`, or to the one before the current."""
        return rollback(self.store, self.collection, to, retry_lock=retry_lock)

    def plan_rollback(self, to: int | None = None) -> Generation:
        """The generation that `rollback` would choose, with nothing written."""
        return plan_rollback(self.store, self.collection, to)

    def unlock(self) -> Holder | None:
        """Frees the lease of a dead holder before it expires; returns who had it."""
        return unlock(self.store, self.collection)

    def plan_unlock(self) -> Holder | None:
        """Whose lease `unlock` would free, with nothing written."""
        return plan_unlock(self.store, self.collection)

    def plan(
        self,
        paths: Paths,
        settings: SyncSettings | None = None,
        *,
        mode: Mode = "sync",
        mapping: FieldMapping | None = None,
        input_format: str | None = None,
        reporter: Reporter | None = None,
        **changes: Any,
    ) -> Plan:
        """What `update` would do with this corpus, with nothing written and nothing encoded."""
        settings = replace(settings or SyncSettings(), **changes)
        corpus = self._corpus(paths, mapping, input_format, settings)
        return plan(
            self.store, self.encoder(), self.collection, corpus, settings, mode=mode, reporter=reporter
        )

    def _corpus(
        self,
        paths: Paths,
        mapping: FieldMapping | None,
        input_format: str | None,
        settings: SyncSettings,
    ) -> Corpus:
        if not isinstance(paths, str | os.PathLike) and not isinstance(paths, Sequence):
            return Documents(paths)
        if isinstance(paths, Sequence) and paths and all(isinstance(p, Document) for p in paths):
            return Documents(paths)  # type: ignore[arg-type]  # just looked
        fields = settings.fields
        if fields is None:
            with suppress(CollectionNotFoundError):
                fields = self.fields()
        fields, _ = with_tenant(fields or {}, settings.tenant_field)
        named = [paths] if isinstance(paths, str | os.PathLike) else paths
        return read(named, mapping or FieldMapping(), format=input_format, fields=fields)

    # -- search

    def search(self, text: str, options: SearchOptions | None = None, **changes: Any) -> SearchResult:
        """The best hits for a text.

        changes: fields of SearchOptions by name (`k=5, mode="dense"`). Raises QueryError for a text
        that cannot be asked, MismatchError where the encoder is of another space than the collection.
        """
        return self._searcher().search(text, replace(options or SearchOptions(), **changes))

    def like(
        self,
        doc_id: str,
        source: str = DEFAULT_SOURCE,
        options: SearchOptions | None = None,
        *,
        tenant: str | None = None,
        **changes: Any,
    ) -> SearchResult:
        """The documents nearest to one of the collection, by its stored vectors.

        tenant: whose document it must be (the hits are those of `where`), else NotFoundError.
        """
        if owner := self.owner(tenant):
            key = document_key(source, doc_id)
            if not stored_ordinals(self.store, self.target().name, [key], owner):
                raise NotFoundError(
                    f"There is no document {doc_id!r} of source {source!r} in this collection."
                )
        return self._searcher().like(doc_id, source, replace(options or SearchOptions(), **changes))

    def run(
        self, queries: Iterable[Query], options: SearchOptions | None = None, **changes: Any
    ) -> Iterator[SearchResult]:
        """The answers to many queries, many of them in each call of encoder and store."""
        return self._searcher().run(queries, replace(options or SearchOptions(), **changes))

    def where(
        self,
        conditions: Sequence[str] = (),
        expression: str | None = None,
        source: str | None = None,
        tenant: str | None = None,
    ) -> Filter | None:
        """One filter of `field=value` conditions, a Milvus expression, a source and a tenant, all of which
        must hold. Raises FilterError, UsageError where there are no tenants."""
        fields = self.fields() if conditions else {}
        parts: list[Filter] = [parse_where(condition, fields) for condition in conditions]
        if owner := self.owner(tenant):
            parts.append(owner.where)
        if source is not None:
            parts.append(Compare("source", "==", source))
        if expression:
            parts.append(Expression(expression))
        return combine(*parts)

    def owner(self, tenant: str | None) -> Tenant | None:
        """Whose documents `tenant` are; None: everybody's. Raises UsageError where there are no tenants."""
        return tenant_of(self.target().spec, self.collection, tenant) if tenant is not None else None

    def reranker(self, name: str, weights: Mapping[str, float] | None = None) -> Reranker:
        """`colbert` or `m3` by the encoder's own heads, else a cross-encoder by preset, id or directory."""
        return load_reranker(name, self.encoder, weights)

    def _searcher(self) -> Searcher:
        target = self.target()
        return Searcher(
            Target(
                self.store,
                target.name,
                target.spec.sparse,
                self._checked(target),
                fields=tuple(target.spec.fields),
            )
        )

    def _checked(self, target: collections.Target) -> Callable[[], Encoder]:
        """The encoder, once it is sure that its vectors may be compared with the collection's."""

        def encoder() -> Encoder:
            loaded = self.encoder()
            if loaded.info.space_id != target.properties.get("space_id"):
                raise MismatchError(
                    f"Collection {self.collection!r} holds vectors of "
                    f"{target.properties.get('encoder') or 'another encoder'} ({target.spec.dim}-d); "
                    f"those of {loaded.info.name} ({loaded.info.dim}-d) cannot be compared with them. "
                    f"Search it without --encoder and --dim, or reindex it."
                )
            return loaded

        return encoder


@contextmanager
def quarantining(reporter: Reporter | None, quarantine: str | os.PathLike[str] | None) -> Iterator[Reporter]:
    """The reporter, with bad rows going into the quarantine file too."""
    reporter = reporter or Silent()
    if quarantine is None:
        yield reporter
        return
    with Quarantine(quarantine) as file:
        yield _Quarantining(reporter, file)


class _Quarantining:
    """A reporter that also writes bad rows into the quarantine file."""

    def __init__(self, reporter: Reporter, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._reporter = reporter
        self.stage, self.progress = reporter.stage, reporter.progress
        self.note, self.warning, self.error = reporter.note, reporter.warning, reporter.error
        self.result, self.close = reporter.result, reporter.close

    def rejected(self, rejected: Rejected) -> None:
        self._quarantine.add(rejected)
        self._reporter.rejected(rejected)
