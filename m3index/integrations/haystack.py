"""Haystack: an m3index collection as a retriever component."""

from __future__ import annotations

from typing import Any

from haystack import Document, component

from m3index.api import Index
from m3index.evaluate.runs import order_score
from m3index.integrations.answers import metadata, of_hits
from m3index.options import overridden
from m3index.search.options import SearchOptions
from m3index.store.options import DEFAULT_URI
from m3index.types import DEFAULT_COLLECTION


@component
class M3Retriever:
    """Searches both legs of a collection, fused by weighted reciprocal rank.

    The arguments are plain values, so that pipelines can be saved; `warm_up` or the first run opens the
    collection. search: options of `Index.search`, such as `{"k": 5, "where": {"lang": "en"}}`. Raises
    UsageError for an invalid or unknown option.

    The `meta` of a document are those of the corpus, with `title` and, under names that begin with
    `m3index_`, `doc_id`, `source`, `ordinal`, `title` and `score`.
    """

    def __init__(
        self,
        collection: str = DEFAULT_COLLECTION,
        uri: str = DEFAULT_URI,
        encoder: str | None = None,
        search: dict[str, Any] | None = None,
    ) -> None:
        self.collection = collection
        self.uri = uri
        self.encoder = encoder
        self.search = search
        self._options = of_hits(overridden(SearchOptions(), search or {}))
        self._index: Index | None = None

    def warm_up(self) -> None:
        """Opens the collection and loads its encoder. Raises the errors of `Index`."""
        self._opened().prepare()

    def close(self) -> None:
        """Closes the collection and its encoder."""
        if self._index is not None:
            self._index.close()
            self._index = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, search: dict[str, Any] | None = None) -> dict[str, Any]:
        """Searches for a query. search: options that override those of the component. Raises the errors of
        `Index.search`."""
        options = of_hits(overridden(self._options, search or {}))
        result = self._opened().search_with(query, options)
        return {
            "documents": [
                Document(id=hit.passage_id, content=hit.text, meta=metadata(hit), score=order_score(hit))
                for hit in result
            ]
        }

    def _opened(self) -> Index:
        if self._index is None:
            self._index = Index(self.collection, uri=self.uri, encoder=self.encoder)
        return self._index
