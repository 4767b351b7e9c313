"""The public Python API, available from `import m3index`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.evaluate.options import GateOptions, RecallOptions
from m3index.index.generations import Generation
from m3index.index.options import DeleteOptions, IngestOptions, SyncOptions, VerifyOptions
from m3index.index.reindex import ReindexPlan
from m3index.index.state import Status
from m3index.index.summary import Summary
from m3index.index.verify import Verification
from m3index.options import Flag, Whole, check, group, keywords, only_keywords, option
from m3index.progress import Logged
from m3index.search.options import SearchOptions, SynonymFile, WhyOptions
from m3index.search.result import SearchResult
from m3index.search.stages import Why
from m3index.searchable import ReadOptions, Searchable
from m3index.service import IndexService, Path, Paths
from m3index.store.options import Connection
from m3index.types import Query, StoredDocument

if TYPE_CHECKING:
    from m3index.evaluate.recall import RecallReport


@group
class OpenOptions(SynonymFile, Model, Connection):
    """A collection and its encoder."""

    create: bool = option(
        Flag(),
        "Create a missing local database; otherwise raise CollectionNotFoundError.",
        default=True,
    )


class Index(Searchable):
    """A collection in a store, with its encoder.

        with Index("docs", uri="m3index.db", encoder="offline") as index:
            index.sync("corpus.jsonl", fields={"lang": str, "year": int}, max_delete="5%")
            index.ingest([{"id": "d1", "text": "Tides", "lang": "en"}, Document("d2", "Moon")])
            for hit in index.search("why does the sea rise", k=5, where=["lang=en", "year>=2008"]):
                print(hit.rank, hit.doc_id, hit.score)

    Opening connects; it creates no collection and loads no model. Any number of threads can search at the
    same time, but only one can write. Warnings go to the logger `m3index`.
    """

    @only_keywords(OpenOptions)
    def __init__(self, options: OpenOptions) -> None:
        """Connects to the store. Raises UnreachableError, NotAuthorisedError, LockedError,
        CollectionNotFoundError, UsageError."""
        synonyms = options.read_synonyms()
        self._service = IndexService.open(options, options, create=options.create, synonyms=synonyms)
        self._uri = options.uri

    def close(self) -> None:
        """Releases the store, including the lock of a local database, and the encoder."""
        self._service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({self._service.collection!r}, uri={self._service.store.uri!r})"

    # -- write

    @keywords(IngestOptions)
    def ingest(self, documents: Paths, options: IngestOptions) -> Summary:
        """Encodes and writes new and changed documents; removes nothing.

        documents: one or more paths, or an iterable of `Document`s and mappings with `id` and `text`. Bad
        rows do not end the run: they are counted as `quarantined` and written to the quarantine file, if one
        is named. Raises LockedError, MismatchError, MissingHeadError, ModelNotFoundError, UsageError,
        StoreError.
        """
        return self._service.update(documents, options, reporter=Logged())

    @keywords(SyncOptions)
    def sync(self, documents: Paths, options: SyncOptions) -> Summary:
        """Ingests, and removes documents that have left the corpus, within the limit `max_delete`.

        Raises the same errors as `ingest`.
        """
        return self._service.update(documents, options, reporter=Logged())

    @keywords(IngestOptions)
    def apply_changes(self, changes: Path, options: IngestOptions) -> Summary:
        """Applies a feed of documents and deletions (`{"op": "delete", "id": ...}`) in order.

        Raises the same errors as `ingest`.
        """
        if not isinstance(changes, str | os.PathLike):
            raise UsageError(f"apply_changes takes the path of a feed, not {changes!r}.")
        return self._service.apply(changes, options, reporter=Logged())

    @only_keywords(DeleteOptions)
    def delete(self, options: DeleteOptions) -> Summary:
        """Removes whole documents by id or by filter: `delete(["d1"])`, `delete(where={"lang": "xx"})`.

        Raises CollectionNotFoundError, LockedError, FilterError, UsageError, StoreError.
        """
        return self._service.delete(options, reporter=Logged())

    @keywords(VerifyOptions)
    def verify(self, documents: Paths, options: VerifyOptions) -> Verification:
        """Encodes the corpus again and compares it with the index.

            index.verify("corpus.jsonl", subset="3/64").raise_for_differences()

        Raises CollectionNotFoundError, LockedError, MismatchError, ModelNotFoundError, UsageError,
        StoreError.
        """
        return self._service.verify(documents, options, reporter=Logged())

    @keywords(RecallOptions)
    def recall(self, passages: int, options: RecallOptions) -> RecallReport:
        """Measures what the index finds of what an exact scan of all rows finds, with `passages` sampled
        stored passages as queries.

            index.recall(500, min_recall=0.95).raise_for_recall()

        Raises CollectionNotFoundError, FilterError, UsageError, StoreError; with `queries`, also the errors
        of `search`.
        """
        count = check("passages", Whole(1), passages)
        return self._service.recall(count, options, reporter=Logged())

    @keywords(GateOptions)
    def reindex(
        self, corpora: Mapping[str, Paths] | Paths | None, options: GateOptions
    ) -> Summary | ReindexPlan:
        """Builds a new generation with the encoder of this index and moves the collection to it.

        corpora: the corpus, or a mapping of source names to corpora; None if the vectors can be reused. With
        `dry_run`, returns what would be done. Raises GateError, DeletesWithheldError, DriftError,
        CollectionNotFoundError, LockedError, MissingHeadError, ModelNotFoundError, UsageError, StoreError.
        """
        by_source = corpora if corpora is None or isinstance(corpora, Mapping) else {options.source: corpora}
        gate = options.quality_gate
        if options.dry_run:
            return self._service.plan_reindex(by_source, options)
        return self._service.reindex(by_source, options, gate=gate, reporter=Logged())

    # -- inspect

    def prepare(self) -> None:
        """Loads the model now instead of with the first text. Raises ModelNotFoundError, UsageError."""
        self._service.encoder().prepare()

    def status(self) -> Status:
        """The state of the collection. Raises CollectionNotFoundError."""
        return self._service.status()

    def generations(self) -> Sequence[Generation]:
        """The generations of the collection, oldest first. Raises CollectionNotFoundError."""
        return self._service.generations()

    def rollback(self, to: int | None = None) -> Generation:
        """Moves the collection to generation `to`, by default the previous one. Raises NotFoundError,
        UsageError, LockedError."""
        return self._service.rollback(None if to is None else check("to", Whole(1), to))

    # -- methods of Searchable

    def _search(self, query: str, options: SearchOptions) -> SearchResult:
        return self._service.search(query, options)

    def _similar(self, doc_id: str, options: SearchOptions) -> SearchResult:
        return self._service.similar(doc_id, options)

    def _why(self, query: str, options: WhyOptions) -> Why:
        files = options.quarantines(self._uri, self._service.collection)
        return self._service.why(query, options, quarantines=files)

    def _search_many(self, queries: Iterable[Query], options: SearchOptions) -> Iterator[SearchResult]:
        return self._service.run(queries, options)

    def _get(self, doc_id: str, options: ReadOptions) -> StoredDocument:
        return self._service.get(
            doc_id, options.source, start=options.start, count=options.count, tenant=options.tenant_name
        )
