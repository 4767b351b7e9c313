"""An index with its encoder loaded, for many threads: what a server asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import m3index
from m3index.api import Index
from m3index.errors import MismatchError, UnreachableError, UsageError
from m3index.search.fusion import METHODS
from m3index.search.options import MODES
from m3index.search.rerank import Reranker
from m3index.search.searcher import SearchResult
from m3index.serve.batching import BatchingEncoder
from m3index.serve.documents import document_json
from m3index.serve.words import Body, search_options
from m3index.types import DEFAULT_SOURCE


class LoadingError(UnreachableError):
    """The encoder is not loaded yet."""


class WarmIndex:
    """Loads in a thread of its own; asked before that is done, it says so.

    cross_encoder: the name of the one that clients may rerank with, beside the encoder's own heads;
    a client cannot make the server load any other model. on_batch: see BatchingEncoder. tenant: whose
    documents alone there are for clients; None: everybody's, and a client may name a tenant.
    """

    def __init__(
        self,
        index: Index,
        cross_encoder: str = "",
        on_batch: Callable[[int], None] | None = None,
        tenant: str | None = None,
    ) -> None:
        index.owner(tenant)  # one that cannot be is an error now, not at the first search
        self._opened = index
        self._cross_name = cross_encoder
        self._on_batch = on_batch
        self._tenant = tenant
        self._index: Index | None = None
        self._cross: Reranker | None = None
        self._failure: Exception | None = None

    def start(self, on_failure: Callable[[], None]) -> None:
        """Loads in the background. on_failure is called where that fails; `failure` then says why."""

        def load() -> None:
            try:
                self.load()
            except Exception as error:
                self._failure = error
                on_failure()

        threading.Thread(target=load, name="m3index-load", daemon=True).start()

    def load(self) -> None:
        encoder = self._opened.encoder()
        if self._cross_name:
            self._cross = self._opened.reranker(self._cross_name)
        batching = BatchingEncoder(encoder, self._on_batch)
        batching.encode_queries(["warm up"], lexical=encoder.info.lexical)
        self._index = Index(self._opened.store, self._opened.collection, batching)

    @property
    def failure(self) -> Exception | None:
        return self._failure

    @property
    def loaded(self) -> bool:
        return self._index is not None

    @property
    def index(self) -> Index:
        """Raises LoadingError."""
        if self._index is None:
            raise LoadingError("The encoder is still being loaded; ask again in a moment.")
        return self._index

    def close(self) -> None:
        (self._index or self._opened).close()

    def check(self) -> None:
        """Raises where a search could not be answered now: still loading, the store silent, or the
        collection made anew with another encoder."""
        target = self.index.target()
        if target.properties.get("space_id") != self.index.encoder().info.space_id:
            raise MismatchError(
                "The collection now holds vectors of another encoder; start the server again to load it."
            )

    def search(self, words: Body) -> SearchResult:
        if self._tenant is not None:
            words = self._confined(words)
        options = search_options(self.index, words, self._reranker)
        if words.like:
            source, tenant = words.source or DEFAULT_SOURCE, words.tenant
            return self.index.like(words.like, source, options, tenant=tenant)
        return self.index.search(words.query, options)

    def document(self, doc_id: str, source: str, start: int, count: int) -> dict[str, Any]:
        """See `documents.document_json`."""
        return document_json(self.index, doc_id, source, start, count, self._tenant)

    def info(self) -> dict[str, Any]:
        """What a client can choose from."""
        index, target = self.index, self.index.target()
        encoder = index.encoder().info
        return {
            "version": m3index.__version__,
            "collection": index.collection,
            "generation": target.generation,
            "encoder": encoder.name,
            "dim": encoder.dim,
            "sparse": target.spec.sparse,
            "legs": ["dense"] if target.spec.sparse == "none" else ["dense", "sparse"],
            "fields": dict(target.spec.fields),
            "modes": list(MODES),
            "fusions": list(METHODS),
            "rerankers": self._rerankers(),
            "tenant": self._tenant,
            "passages": index.store.count(target.name, index.where(tenant=self._tenant)),
        }

    def _confined(self, words: Body) -> Body:
        """Words of a client who sees one tenant. A Milvus expression is refused: what is not made here is
        no part of the wall between tenants."""
        if words.tenant not in (None, self._tenant):
            raise UsageError("This server is for another tenant; leave `tenant` out.")
        if words.filter:
            raise UsageError("This server is for one tenant and takes no `filter`; use `where`.")
        return words.model_copy(update={"tenant": self._tenant})

    def _rerankers(self) -> list[str]:
        info = self.index.encoder().info
        names = (["colbert"] if info.multi_vector else []) + (
            ["m3"] if info.multi_vector and info.lexical else []
        )
        return [*names, *([self._cross_name] if self._cross_name else [])]

    def _reranker(self, name: str, weights: Mapping[str, float] | None) -> Reranker:
        if self._cross is not None and name == self._cross_name and weights is None:
            return self._cross
        if name not in self._rerankers():
            offered = ", ".join(self._rerankers()) or "none"
            raise UsageError(f"This server does not rerank by {name!r}; it offers: {offered}.")
        return self.index.reranker(name, weights)
