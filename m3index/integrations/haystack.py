"""Haystack: an m3index collection as a retriever component."""

from __future__ import annotations

from typing import Any

from haystack import Document, component

from m3index.api import DEFAULT_URI, Index
from m3index.integrations.answers import metadata, search
from m3index.types import DEFAULT_COLLECTION


@component
class M3Retriever:
    """Both legs of a collection, fused by weighted reciprocal rank.

    Built of plain values, so that a pipeline with it can be written down; the collection is opened
    by `warm_up` or the first run. Arguments as of the command line.
    """

    def __init__(
        self,
        collection: str = DEFAULT_COLLECTION,
        uri: str = DEFAULT_URI,
        encoder: str | None = None,
        top_k: int = 10,
        mode: str = "hybrid",
        weights: dict[str, float] | None = None,
        where: list[str] | None = None,
    ) -> None:
        self.collection = collection
        self.uri = uri
        self.encoder = encoder
        self.top_k = top_k
        self.mode = mode
        self.weights = weights
        self.where = where
        self._index: Index | None = None

    def warm_up(self) -> None:
        """Opens the collection and loads its encoder."""
        self._opened().encoder()

    def close(self) -> None:
        """Releases both."""
        if self._index is not None:
            self._index.close()
            self._index = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None, where: list[str] | None = None) -> dict[str, Any]:
        result = search(
            self._opened(),
            query,
            k=self.top_k if top_k is None else top_k,
            mode=self.mode,
            weights=self.weights,
            where=(self.where if where is None else where) or (),
        )
        return {
            "documents": [
                Document(id=hit.passage_id, content=hit.text, meta=metadata(hit), score=hit.score)
                for hit in result.hits
            ]
        }

    def _opened(self) -> Index:
        if self._index is None:
            self._index = Index.open(self.collection, uri=self.uri, encoder=self.encoder)
        return self._index
