"""LlamaIndex: an m3index collection as a retriever."""

from __future__ import annotations

import asyncio

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from m3index.evaluate.runs import order_score
from m3index.integrations.answers import added, metadata, of_hits
from m3index.options import keywords
from m3index.search.options import SearchOptions
from m3index.searchable import Searchable
from m3index.types import Hit


class M3Retriever(BaseRetriever):
    """Searches both legs of a collection, fused by weighted reciprocal rank: `M3Retriever(index, k=5)`.

    index: an `Index`, or the result of `connect`. The options are those of `Index.search`. Raises UsageError
    for an invalid one, TypeError for an unknown one.

    The metadata of a node are those of the corpus, with `title` and, under names that begin with `m3index_`,
    `doc_id`, `source`, `ordinal`, `title` and `score`; a prompt does not contain the latter.
    """

    @keywords(SearchOptions)
    def __init__(self, index: Searchable, options: SearchOptions) -> None:
        super().__init__()
        self._index = index
        self._options = of_hits(options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._index.search_with(query_bundle.query_str, self._options)
        return [NodeWithScore(node=_node(hit), score=order_score(hit)) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The same in a thread, so that the event loop is not blocked."""
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> TextNode:
    """A node whose text for models and embeddings holds the document's metadata only."""
    names = list(added(hit))
    return TextNode(
        id_=hit.passage_id,
        text=hit.text,
        metadata=metadata(hit),
        excluded_llm_metadata_keys=names,
        excluded_embed_metadata_keys=names,
    )
