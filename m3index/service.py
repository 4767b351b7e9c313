"""The operations on a collection, with its store and its encoder.

The command line, `Index` and the server all use `IndexService`. Its methods take groups of options; those of
`api.Index` take the same options as keywords.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from m3index.corpus.memory import Documents, Item
from m3index.corpus.notes import embedding_notes
from m3index.corpus.options import Input
from m3index.corpus.quarantine import quarantining
from m3index.corpus.readers import open_corpus
from m3index.encoder.base import Encoder
from m3index.encoder.options import Model
from m3index.errors import (
    CollectionNotFoundError,
    GateError,
    MismatchError,
    NotFoundError,
    UsageError,
)
from m3index.evaluate.coverage import find_relevant
from m3index.evaluate.gate import QualityGate
from m3index.evaluate.measures import score_run
from m3index.evaluate.options import RecallOptions
from m3index.evaluate.runs import as_run
from m3index.index import collection as collections
from m3index.index.calibrate import Calibration, recalibrate
from m3index.index.changes import apply_changes, plan_changes, read_changes
from m3index.index.delete import delete
from m3index.index.forecast import plan
from m3index.index.generations import Generation, generations, plan_rollback, rollback
from m3index.index.lock import Holder, plan_unlock, unlock
from m3index.index.options import (
    CollectionLayout,
    DeleteOptions,
    IngestOptions,
    ReindexOptions,
    Stop,
    VerifyOptions,
)
from m3index.index.plan import Corpus
from m3index.index.reindex import ReindexPlan, plan_reindex, reindex
from m3index.index.state import Status
from m3index.index.status import status
from m3index.index.summary import Summary
from m3index.index.sync import sync
from m3index.index.tenant import Tenant, tenant_of
from m3index.index.verify import Difference, Verification, verify
from m3index.progress import Reporter, Silent
from m3index.schema import with_tenant
from m3index.search.options import SearchOptions, Sought
from m3index.search.plan import EncoderSource
from m3index.search.rerank import Reranker, load_reranker
from m3index.search.result import SearchResult
from m3index.search.searcher import Rerankers, Searcher, SearchTarget
from m3index.search.stages import Why
from m3index.search.synonyms import NONE, Synonyms
from m3index.search.why import why
from m3index.store.base import Store
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import (
    FieldType,
    Query,
    StoredDocument,
    StoredPassage,
    document_key,
    passage_key,
)

if TYPE_CHECKING:
    from m3index.evaluate.recall import RecallReport

Path: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = Path | Iterable[Path | Item]
"""Files, directories, globs or `-`, or an iterable of documents."""


PROPERTIES_SECONDS = 60.0
"""For how long the properties of a collection are remembered, so that a server notices a calibration."""


class IndexService:
    """A collection in a store. Several threads can search at the same time; only one can write. synonyms:
    those of the queries."""

    def __init__(self, store: Store, collection: str, model: Model, synonyms: Synonyms = NONE) -> None:
        self.store = store
        self.collection = collection
        self.synonyms = synonyms
        self._model = model
        self._encoder = model.loaded
        self._current: collections.Collection | None = None
        self._current_until = 0.0
        self._rerankers: dict[tuple[str, tuple[tuple[str, float], ...]], Reranker] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, connection: Connection, model: Model, *, create: bool = True, synonyms: Synonyms = NONE
    ) -> Self:
        """Connects to the store. Creates nothing on a server and loads no model.

        create: create a missing local database; otherwise raise CollectionNotFoundError. Raises
        UnreachableError, NotAuthorisedError, LockedError, UsageError.
        """
        return cls(open_store(connection, create=create), connection.collection, model, synonyms)

    def close(self) -> None:
        """Releases the store, including the lock of a local database, and the encoder."""
        if self._encoder is not None:
            self._encoder.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- parts

    def encoder(self) -> Encoder:
        """The encoder that was named, else that of the collection; loaded on the first call.

        Raises ModelNotFoundError, UsageError.
        """
        with self._lock:
            if self._encoder is None:
                model = self._model
                if model.name is None:
                    with suppress(CollectionNotFoundError):
                        current = self.current()
                        model = replace(
                            model,
                            encoder=current.properties.get("encoder"),
                            dim=model.dim or current.spec.dim,
                        )
                self._encoder = model.load()
            return self._encoder

    def current(self) -> collections.Collection:
        """The generation behind the alias, looked up on each call, so that a swap takes effect immediately.
        Its properties can be `PROPERTIES_SECONDS` old.

        Raises CollectionNotFoundError.
        """
        name = self.store.resolve(self.collection)
        current = self._current
        if current is None or current.name != name or time.monotonic() > self._current_until:
            self._current = current = collections.find(self.store, self.collection)
            self._current_until = time.monotonic() + PROPERTIES_SECONDS
        return current

    @contextmanager
    def _properties_change(self) -> Iterator[None]:
        """After it, the properties of the collection are read again."""
        try:
            yield
        finally:
            self._current_until = 0.0

    def fields(self) -> Mapping[str, FieldType]:
        """The declared fields of the collection. Raises CollectionNotFoundError."""
        return self.current().spec.fields

    def status(self) -> Status:
        """The state of the collection. Raises CollectionNotFoundError."""
        return status(self.store, self.collection)

    def tenant(self, name: str | None) -> Tenant | None:
        """The tenant with this name; None means all tenants. Raises UsageError if the collection has no
        tenant field."""
        return tenant_of(self.current().spec, self.collection, name) if name is not None else None

    # -- write

    def update(
        self,
        paths: Paths,
        options: IngestOptions,
        *,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
    ) -> Summary:
        """Runs over a corpus in the mode of the options; with `dry_run`, nothing is written.

        The outcome is in `exit` of the summary. Raises LockedError, MismatchError, MissingHeadError,
        ModelNotFoundError, UsageError and StoreError; the `summary` of an error during the run says what was
        done before it.
        """
        corpus = self._corpus(paths, options, options)  # checks the paths before the model is loaded
        if options.dry_run:
            return plan(self.store, self.encoder(), self.collection, corpus, options, reporter=reporter)
        with quarantining(reporter, options) as with_quarantine, self._properties_change():
            return sync(
                self.store,
                self.encoder(),
                self.collection,
                corpus,
                options,
                reporter=with_quarantine,
                stop=stop,
            )

    def apply(
        self,
        changes: Path,
        options: IngestOptions,
        *,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
    ) -> Summary:
        """Applies a feed of documents and deletions (`{"op": "delete", "id": ...}`) in order; with `dry_run`,
        nothing is written. Raises the same errors as `update`."""
        embeddings = Counter[str]()
        feed = read_changes(changes, options.mapping, embeddings=embeddings)
        if options.dry_run:
            encoder = self.encoder()
            summary = plan_changes(self.store, encoder, self.collection, feed, options, reporter=reporter)
        else:
            with quarantining(reporter, options) as with_quarantine, self._properties_change():
                summary = apply_changes(
                    self.store,
                    self.encoder(),
                    self.collection,
                    feed,
                    options,
                    reporter=with_quarantine,
                    stop=stop,
                )
        for note in embedding_notes(embeddings):
            (reporter or Silent()).note(note)
        return summary

    def delete(
        self, options: DeleteOptions, *, reporter: Reporter | None = None, stop: Stop | None = None
    ) -> Summary:
        """Removes whole documents by id or by filter; with `dry_run`, only counts them.

        Raises CollectionNotFoundError, LockedError, FilterError, UsageError, StoreError.
        """
        return delete(self.store, self.collection, options, reporter=reporter, stop=stop)

    def verify(
        self,
        paths: Paths,
        options: VerifyOptions,
        *,
        on_difference: Callable[[Difference], None] | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
    ) -> Verification:
        """Encodes a slice of the corpus again and compares it with the index; `repair` repairs the
        differences.

        Raises CollectionNotFoundError, LockedError, MismatchError, ModelNotFoundError, UsageError,
        StoreError.
        """
        self.current()  # raises for a wrong name before the model is loaded
        corpus = self._corpus(paths, options, None)
        return verify(
            self.store,
            self.encoder(),
            self.collection,
            corpus,
            options,
            on_difference=on_difference,
            reporter=reporter,
            stop=stop,
        )

    def recall(
        self, passages: int, options: RecallOptions, *, reporter: Reporter | None = None
    ) -> RecallReport:
        """Measures what the index finds of what an exact scan finds, with `passages` sampled stored passages
        and the queries of a file. Raises CollectionNotFoundError, FilterError, UsageError, StoreError, and
        for the queries of a file the errors of `search`."""
        from m3index.evaluate.recall import measure  # scipy, which a search does without

        return measure(self._target(), passages, options, reporter)

    def reindex(
        self,
        corpora: Mapping[str, Paths] | None,
        options: ReindexOptions,
        *,
        gate: QualityGate | None = None,
        reporter: Reporter | None = None,
        stop: Stop | None = None,
    ) -> Summary:
        """Builds a new generation with the encoder of this index and moves the alias to it.

        corpora: the paths of each source; not needed if the vectors can be reused. gate: the condition for
        serving the new generation. Raises GateError, DeletesWithheldError, DriftError,
        CollectionNotFoundError, LockedError, MissingHeadError, ModelNotFoundError, UsageError, StoreError.
        """
        passes = self._passes(corpora, options)
        with quarantining(reporter, options) as with_quarantine, self._properties_change():
            if gate is not None:
                self._check_gate(gate, with_quarantine)
            return reindex(
                self.store,
                self.encoder(),
                self.collection,
                options,
                corpora=passes,
                gate=partial(self._gate, gate, with_quarantine) if gate else None,
                reporter=with_quarantine,
                stop=stop,
            )

    def calibrate(self) -> Calibration:
        """Measures the dense leg without labels, and keeps the result in the properties of the collection.

        Raises CollectionNotFoundError, LockedError, MismatchError, ModelNotFoundError, UsageError and
        StoreError.
        """
        encoder = self._matching_encoder(self.current())()
        with self._properties_change():
            return recalibrate(self.store, encoder, self.collection)

    def plan_reindex(self, corpora: Mapping[str, Paths] | None, options: ReindexOptions) -> ReindexPlan:
        """Predicts what `reindex` would do; encodes and writes nothing. Raises CollectionNotFoundError,
        MissingHeadError, ModelNotFoundError, UsageError."""
        passes = self._passes(corpora, options)
        return plan_reindex(self.store, self.encoder(), self.collection, options, passes)

    def _passes(
        self, corpora: Mapping[str, Paths] | None, options: ReindexOptions
    ) -> dict[str, Callable[[], Corpus]]:
        """For each source, a function that opens its corpus for a new pass. Checks collection and paths
        before a model is loaded. Raises UsageError, CollectionNotFoundError."""
        self.current()
        passes: dict[str, Callable[[], Corpus]] = {}
        for source, paths in (corpora or {}).items():
            self._corpus(paths, options, options)
            passes[source] = partial(self._corpus, paths, options, options)
        return passes

    def _check_gate(self, gate: QualityGate, reporter: Reporter) -> None:
        """Says before the new generation is built what the gate leaves out. Raises UsageError if it compares
        with a generation that has none of the judged documents."""
        for warning in gate.coverage.warnings:
            reporter.warning(warning)
        if gate.gate.relative:
            find_relevant(self.store, self.current().name, gate.qrels, gate.coverage.queries)

    def _gate(self, gate: QualityGate, reporter: Reporter, old: str, new: str) -> None:
        """Evaluates both generations with the same queries. Raises GateError if the new one does not pass."""
        unmoved = f"The alias {self.collection!r} was not moved."
        for name in (old, new) if gate.gate.relative else (new,):
            try:
                relevant = find_relevant(self.store, name, gate.qrels, gate.coverage.queries)
            except UsageError as error:
                raise GateError(f"{name}: {error} {unmoved}") from None
            for warning in relevant.warnings:
                reporter.warning(f"{name}: {warning}")
        before = self._evaluate(old, gate) if gate.gate.relative else None
        passed, sentence = gate.gate.check(self._evaluate(new, gate), before)
        if not passed:
            raise GateError(f"{sentence} {unmoved}")
        reporter.note(sentence)

    def _evaluate(self, name: str, gate: QualityGate) -> float:
        """The mean of the measure over the queries of the gate, with the encoder of the generation."""
        target = collections.load_target(self.store, self.collection, name)
        encoder, other = self.encoder(), None
        if not target.has_space_of(encoder.info):
            encoder = other = self._other_model(target).load()
        try:
            searcher = Searcher(self._target_of(target, lambda: encoder))
            results = searcher.run(gate.queries, SearchOptions(k=gate.hits, texts=False))
        finally:
            if other is not None:
                other.close()
        run = as_run({result.query.query_id: result.hits for result in results})
        return score_run(run, gate.qrels, [gate.gate.measure], gate.coverage.queries).mean(gate.gate.measure)

    def _other_model(self, target: collections.Collection) -> Model:
        """The model of another generation, on the same device. What the user said of one model, such as to
        trust its code, is not said of the other."""
        return replace(
            self._model,
            encoder=target.properties.get("encoder"),
            dim=target.spec.dim,
            revision=None,
            query_prompt=None,
            document_prompt=None,
            trust_remote_code=False,
        )

    def _corpus(self, paths: Paths, options: Input, layout: CollectionLayout | None) -> Corpus:
        """Opens a corpus. layout: declares the fields, for CSV files; None for those of the collection."""
        items = [paths] if isinstance(paths, str | os.PathLike) else paths
        if not isinstance(items, Iterable) or isinstance(items, bytes | Mapping):
            raise UsageError(
                f"A corpus is a path, a list of paths or an iterable of documents, not {paths!r}."
            )
        if not isinstance(items, Sequence) or not all(isinstance(p, str | os.PathLike) for p in items):
            return Documents(items, options.mapping)  # type: ignore[arg-type]  # checks each item
        fields = None if layout is None else layout.declared
        if fields is None:
            with suppress(CollectionNotFoundError):
                fields = dict(self.fields())
        fields, _ = with_tenant(fields or {}, None if layout is None else layout.tenant_field)
        corpus = open_corpus(items, options, fields=fields)
        corpus.apart = lambda: self.encoder().workers > 0
        return corpus

    # -- generations

    def generations(self) -> list[Generation]:
        """The generations of the collection, oldest first. Raises CollectionNotFoundError."""
        return generations(self.store, self.collection)

    def rollback(self, to: int | None = None, *, wait: float = 0.0) -> Generation:
        """Moves the alias to generation `to`, by default the previous one. wait: the seconds to wait for the
        lock. Raises NotFoundError, UsageError, LockedError."""
        return rollback(self.store, self.collection, to, retry_lock=wait)

    def plan_rollback(self, to: int | None = None) -> Generation:
        """The generation `rollback` would choose; writes nothing. Raises NotFoundError, UsageError."""
        return plan_rollback(self.store, self.collection, to)

    def unlock(self) -> Holder | None:
        """Frees the lease of a dead run before it expires and returns its holder. Raises LockedError."""
        return unlock(self.store, self.collection)

    def plan_unlock(self) -> Holder | None:
        """The holder whose lease `unlock` would free; writes nothing."""
        return plan_unlock(self.store, self.collection)

    # -- search

    def search(
        self, query: str, options: SearchOptions, *, rerankers: Rerankers | None = None
    ) -> SearchResult:
        """The best hits for a text. rerankers: returns the reranker that the options name.

        Raises QueryError for an invalid text, FilterError for an invalid filter, MismatchError if the encoder
        has a different space than the collection, and CollectionNotFoundError, UsageError, StoreError.
        """
        return self._searcher(rerankers).search(query, options)

    def similar(
        self, doc_id: str, options: SearchOptions, *, rerankers: Rerankers | None = None
    ) -> SearchResult:
        """The documents nearest to a stored document, by its vectors. Raises NotFoundError and the errors of
        `search`."""
        return self._searcher(rerankers).similar(doc_id, options)

    def run(self, queries: Iterable[Query], options: SearchOptions) -> Iterator[SearchResult]:
        """The results of many queries, with many queries per call of encoder and store. Raises the errors of
        `search`, except QueryError."""
        return self._searcher(None).run(queries, options)

    def why(
        self,
        query: str,
        options: Sought,
        *,
        rerankers: Rerankers | None = None,
        quarantines: Sequence[FilePath] = (),
        confined: bool = False,
    ) -> Why:
        """Why a document is not among the first hits of a query. quarantines: the files in which to look for
        its row. confined: say nothing of other tenants and generations. Raises the errors of `search`."""
        return why(
            self._target(),
            query,
            options,
            rerankers=rerankers or self.reranker,
            quarantines=quarantines,
            confined=confined,
        )

    def get(
        self,
        doc_id: str,
        source: str,
        *,
        start: int = 0,
        count: int | None = None,
        tenant: str | None = None,
    ) -> StoredDocument:
        """A document with its passages `start` to `start + count`, by default to the last. tenant: the tenant
        it must belong to.

        Raises NotFoundError, UsageError.
        """
        if start < 0 or (count is not None and count < 1):
            raise UsageError(
                f"start takes a number from 0 up and count a number from 1 up, not {start} and {count}."
            )
        name, key, owner = self.current().name, document_key(source, doc_id), self.tenant(tenant)
        fields = ["title", "metadata", "passages", *([owner.field] if owner else [])]
        row = self.store.get(name, [passage_key(key, 0)], fields).get(passage_key(key, 0))
        if row is None or (owner and not owner.has(row)):
            raise NotFoundError(f"There is no document {doc_id!r} of source {source!r} in this collection.")
        end = row["passages"] if count is None else min(start + count, row["passages"])
        keys = [passage_key(key, ordinal) for ordinal in range(start, end)]
        rows = self.store.get(name, keys, ["ordinal", "text"])
        return StoredDocument(
            doc_id,
            source,
            row["title"],
            dict(row["metadata"]),
            row["passages"],
            tuple(StoredPassage(rows[key]["ordinal"], key, rows[key]["text"]) for key in keys if key in rows),
        )

    def reranker(self, name: str, weights: Mapping[str, float] | None = None) -> Reranker:
        """The reranker `colbert` or `m3` of the encoder, else a cross-encoder by preset, id or directory.
        Each is loaded once. Raises ModelNotFoundError, MissingHeadError, UsageError."""
        key = (name, tuple(sorted((weights or {}).items())))
        with suppress(KeyError):
            return self._rerankers[key]
        return self._rerankers.setdefault(key, load_reranker(self.encoder, name, weights))

    def _searcher(self, rerankers: Rerankers | None) -> Searcher:
        return Searcher(self._target(), rerankers=rerankers or self.reranker)

    def _target(self) -> SearchTarget:
        current = self.current()
        return self._target_of(current, self._matching_encoder(current))

    def _target_of(self, current: collections.Collection, encoder: EncoderSource) -> SearchTarget:
        measured = Calibration.of(current.properties)
        trust = 1.0 if measured is None else measured.dense_trust
        return SearchTarget(
            self.store,
            current.name,
            current.spec,
            encoder,
            name=self.collection,
            dense_trust=trust,
            synonyms=self.synonyms,
        )

    def _matching_encoder(self, current: collections.Collection) -> Callable[[], Encoder]:
        """A function that returns the encoder, and raises MismatchError if its space differs."""

        def encoder() -> Encoder:
            loaded = self.encoder()
            if not current.has_space_of(loaded.info):
                raise MismatchError(
                    f"Collection {self.collection!r} holds vectors of "
                    f"{current.properties.get('encoder') or 'another encoder'} ({current.spec.dim} "
                    f"dimensions), which cannot be compared with those of {loaded.info.name} "
                    f"({loaded.info.dim} dimensions). Search without --encoder and --dim, or reindex."
                )
            return loaded

        return encoder
