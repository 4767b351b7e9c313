"""The search methods of an index, in this process (`Index`) or behind a server (`connect`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

from m3index.errors import QueryError, UsageError
from m3index.index.options import DocumentScope
from m3index.options import Whole, group, keywords, option
from m3index.search.options import SearchOptions, WhyOptions
from m3index.search.result import SearchResult
from m3index.search.stages import Why
from m3index.types import Query, StoredDocument

P = ParamSpec("P")
R = TypeVar("R")


@group
class ReadOptions(DocumentScope):
    """A document and a range of its passages."""

    panel = "Document"

    start: int = option(Whole(0), "First passage to read, counted from 0.", default=0)
    count: int | None = option(Whole(1), "Number of passages to read.", default=None, shown="all")


class Searchable(ABC):
    """An index that can be searched and read. The methods that start with `a` are coroutines."""

    @keywords(SearchOptions)
    def search(self, query: str, options: SearchOptions) -> SearchResult:
        """The best hits for a text.

            for hit in index.search("why does the sea rise", k=5, where=["lang=en", "year>=2008"]):
                print(hit.rank, hit.doc_id, hit.score)

        In the text, `"honey bees"` is a phrase that the hits must have, and `-wasps` leaves out what has that
        word; `syntax="plain"` takes all of it as text.

        Raises QueryError for an invalid text, FilterError for an invalid filter, MismatchError if the encoder
        has a different space than the collection, and CollectionNotFoundError, UsageError, StoreError.
        """
        return self._search(_text(query), options)

    @keywords(SearchOptions)
    def similar(self, doc_id: str, options: SearchOptions) -> SearchResult:
        """The documents nearest to a stored document, by its vectors, without the document itself.

        Raises NotFoundError if this source and tenant have no such document, and the errors of `search`.
        """
        return self._similar(_identifier(doc_id), options)

    @keywords(WhyOptions)
    def why(self, query: str, options: WhyOptions) -> Why:
        """The stage that keeps a document from the first hits of a query, and a search that shows it.

            print(index.why("why does the sea rise", "tides-3", k=5).reason)

        Raises the errors of `search`.
        """
        return self._why(_text(query), options)

    @keywords(SearchOptions)
    def search_many(self, queries: Iterable[str | Query], options: SearchOptions) -> Iterator[SearchResult]:
        """The results of many queries, in their order, with many queries per call of encoder and store.

        An invalid query yields no hits and a note with the reason. The query id of a text is its position,
        from 0. Raises QueryError for an item that is not text, and the errors of `search`.
        """
        return self._search_many(_queries(queries), options)

    @keywords(ReadOptions)
    def get(self, doc_id: str, options: ReadOptions) -> StoredDocument:
        """A stored document with title, metadata and passages. Raises NotFoundError, UsageError,
        StoreError."""
        return self._get(_identifier(doc_id), options)

    @keywords(SearchOptions)
    async def asearch(self, query: str, options: SearchOptions) -> SearchResult:
        """`search` in a thread, so that the event loop is not blocked. Raises the same errors."""
        return await _in_thread(self._search, _text(query), options)

    @keywords(SearchOptions)
    async def asimilar(self, doc_id: str, options: SearchOptions) -> SearchResult:
        """`similar` in a thread. Raises the same errors."""
        return await _in_thread(self._similar, _identifier(doc_id), options)

    @keywords(WhyOptions)
    async def awhy(self, query: str, options: WhyOptions) -> Why:
        """`why` in a thread. Raises the same errors."""
        return await _in_thread(self._why, _text(query), options)

    @keywords(ReadOptions)
    async def aget(self, doc_id: str, options: ReadOptions) -> StoredDocument:
        """`get` in a thread. Raises the same errors."""
        return await _in_thread(self._get, _identifier(doc_id), options)

    def search_with(self, query: str, options: SearchOptions) -> SearchResult:
        """`search` with the options as a group, for adapters. Raises the same errors."""
        return self._search(_text(query), options)

    def similar_with(self, doc_id: str, options: SearchOptions) -> SearchResult:
        """`similar` with the options as a group. Raises the same errors."""
        return self._similar(_identifier(doc_id), options)

    def why_with(self, query: str, options: WhyOptions) -> Why:
        """`why` with the options as a group. Raises the same errors."""
        return self._why(_text(query), options)

    def search_many_with(
        self, queries: Iterable[str | Query], options: SearchOptions
    ) -> Iterator[SearchResult]:
        """`search_many` with the options as a group. Raises the same errors."""
        return self._search_many(_queries(queries), options)

    @abstractmethod
    def _search(self, query: str, options: SearchOptions) -> SearchResult: ...

    @abstractmethod
    def _similar(self, doc_id: str, options: SearchOptions) -> SearchResult: ...

    @abstractmethod
    def _why(self, query: str, options: WhyOptions) -> Why: ...

    @abstractmethod
    def _search_many(self, queries: Iterable[Query], options: SearchOptions) -> Iterator[SearchResult]: ...

    @abstractmethod
    def _get(self, doc_id: str, options: ReadOptions) -> StoredDocument: ...


async def _in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    import asyncio  # as much as all the rest of this module; a command needs none of it

    return await asyncio.to_thread(function, *args, **kwargs)


def _text(query: object) -> str:
    if not isinstance(query, str):
        raise QueryError(f"A query must be a string, not {query!r}.")
    return query


def _identifier(doc_id: object) -> str:
    if not isinstance(doc_id, str) or not doc_id:
        raise UsageError(f"The id of a document must be a non-empty string, not {doc_id!r}.")
    return doc_id


def _queries(queries: object) -> Iterator[Query]:
    if isinstance(queries, str | bytes) or not isinstance(queries, Iterable):
        raise QueryError(f"search_many takes a list of texts, not {queries!r}. Use search for one text.")
    return (
        query if isinstance(query, Query) else Query(str(number), _text(query))
        for number, query in enumerate(queries)
    )
