"""LangChain: the encoder as `Embeddings`, an m3index collection as a retriever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.integrations.answers import AnyIndex, metadata, search


class M3Embeddings(Embeddings):
    """Dense vectors of unit norm. model: preset, hub id, directory, or a model already loaded (share
    one with M3SparseEmbedding)."""

    def __init__(self, model: str | ModelEncoder = "teacher") -> None:
        self.model = load(model) if isinstance(model, str) else model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.model.encode_documents(texts, lexical=False).dense.tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self.model.encode_queries([text], lexical=False).dense[0].tolist()
        return vector


class M3Retriever(BaseRetriever):
    """Both legs of a collection, fused by weighted reciprocal rank.

    index: an `Index`, or a `RemoteIndex` behind `m3index serve`. k: how many documents. mode, weights,
    where: as of the command line; k and where can be given to `invoke` too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: AnyIndex
    k: int = 10
    mode: str = "hybrid"
    weights: Mapping[str, float] | None = None
    where: Sequence[str] = ()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  (LangChain's signature)
        k: int | None = None,
        where: Sequence[str] | None = None,
        **_: Any,
    ) -> list[Document]:
        result = search(
            self.index,
            query,
            k=self.k if k is None else k,
            mode=self.mode,
            weights=self.weights,
            where=self.where if where is None else where,
        )
        return [
            Document(id=hit.passage_id, page_content=hit.text, metadata=metadata(hit)) for hit in result.hits
        ]
