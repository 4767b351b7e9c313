"""LlamaIndex: an m3index collection as a retriever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from m3index.integrations.answers import AnyIndex, metadata, search


class M3Retriever(BaseRetriever):
    """Both legs of a collection, fused by weighted reciprocal rank.

    index: an `Index`, or a `RemoteIndex` behind `m3index serve`. top_k: how many nodes. mode, weights,
    where: as of the command line.
    """

    def __init__(
        self,
        index: AnyIndex,
        top_k: int = 10,
        mode: str = "hybrid",
        weights: Mapping[str, float] | None = None,
        where: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._index = index
        self._top_k = top_k
        self._mode = mode
        self._weights = weights
        self._where = where

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        result = search(
            self._index,
            query_bundle.query_str,
            k=self._top_k,
            mode=self._mode,
            weights=self._weights,
            where=self._where,
        )
        return [
            NodeWithScore(
                node=TextNode(id_=hit.passage_id, text=hit.text, metadata=metadata(hit)), score=hit.score
            )
            for hit in result.hits
        ]
