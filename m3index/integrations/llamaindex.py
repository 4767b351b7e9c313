"""LlamaIndex: an m3index collection as a retriever."""

from __future__ import annotations

import asyncio

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from m3index.integrations.answers import metadata
from m3index.options import keywords
from m3index.search.options import SearchOptions
from m3index.searchable import Searchable


class M3Retriever(BaseRetriever):
    """Searches both legs of a collection, fused by weighted reciprocal rank: `M3Retriever(index, k=5)`.

    index: an `Index`, or the result of `connect`. The options are those of `Index.search`. Raises UsageError
    for an invalid one.
    """

    @keywords(SearchOptions)
    def __init__(self, index: Searchable, options: SearchOptions) -> None:
        super().__init__()
        self._index = index
        self._options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(id_=hit.passage_id, text=hit.text, metadata=metadata(hit)), score=hit.score
            )
            for hit in self._index.search_with(query_bundle.query_str, self._options)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The same in a thread, so that the event loop is not blocked."""
        return await asyncio.to_thread(self._retrieve, query_bundle)
