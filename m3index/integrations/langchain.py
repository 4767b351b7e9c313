"""LangChain: the encoder as `Embeddings`, an m3index collection as a retriever."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, InstanceOf

from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.integrations.answers import metadata, of_hits
from m3index.options import keywords, overridden
from m3index.search.options import SearchOptions
from m3index.searchable import Searchable


class M3Embeddings(Embeddings):
    """Dense vectors of unit norm. model: a preset, hub id, directory, or a loaded model (which can be
    shared with M3SparseEmbedding). Raises ModelNotFoundError."""

    def __init__(self, model: str | ModelEncoder = "teacher") -> None:
        self.model = load(model) if isinstance(model, str) else model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.model.encode_documents(texts, lexical=False).dense.tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self.model.encode_queries([text], lexical=False).dense[0].tolist()
        return vector


class M3Retriever(BaseRetriever):
    """Searches both legs of a collection, fused by weighted reciprocal rank: `M3Retriever(index, k=5)`.

    index: an `Index`, or the result of `connect`. The options are those of `Index.search`; `invoke` takes
    them too, for one query: `retriever.invoke("bees", where={"lang": "en"})`; None leaves an option as it is.
    Raises UsageError for an invalid or unknown option.

    The metadata of a document are those of the corpus, with `title` and, under names that begin with
    `m3index_`, `doc_id`, `source`, `ordinal`, `title` and `score`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: Searchable
    options: InstanceOf[SearchOptions]  # checks itself

    @keywords(SearchOptions)
    def __init__(self, index: Searchable, options: SearchOptions) -> None:
        super().__init__(index=index, options=of_hits(options))

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  (LangChain's signature)
        **changes: Any,
    ) -> list[Document]:
        """changes: options for this query. Raises UsageError for an unknown one."""
        changes.pop("verbose", None)  # LangChain's own argument of `invoke`, which it passes on
        result = self.index.search_with(query, of_hits(overridden(self.options, changes)))
        return [Document(id=hit.passage_id, page_content=hit.text, metadata=metadata(hit)) for hit in result]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        """The same in a thread, so that the event loop is not blocked."""
        sync = run_manager.get_sync()
        return await asyncio.to_thread(self._get_relevant_documents, query, run_manager=sync, **changes)
