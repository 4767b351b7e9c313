"""The index behind a server, with a loaded encoder, for many threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import m3index
from m3index.encoder.options import Model
from m3index.errors import Exit, M3IndexError, UnreachableError, UsageError
from m3index.index.collection import Collection
from m3index.index.state import Status
from m3index.index.tenant import Tenant
from m3index.progress import one_line
from m3index.search.fusion import METHODS
from m3index.search.options import MODES, RankingOptions
from m3index.search.rerank import Reranker
from m3index.search.result import SearchResult
from m3index.search.stages import Why
from m3index.serve import http_errors
from m3index.serve.batching import BatchingEncoder
from m3index.serve.front import Front, front
from m3index.serve.request import DocumentRequest, SearchRequest, WhyRequest
from m3index.service import IndexService
from m3index.types import StoredDocument

CHECK_SECONDS = 5.0
"""How often the server checks that searches are possible, and how long it waits for the store then."""

FRONT_SECONDS = 60.0
"""How long the first screen of the page may show what was counted before."""

R = TypeVar("R", bound=RankingOptions)

log = logging.getLogger("m3index.serve")


class LoadingError(UnreachableError):
    """The encoder is not loaded yet."""


class Readiness(NamedTuple):
    """Whether searches are possible. It says nothing of where the store is, since everybody may read it."""

    exit: Exit
    reason: str = ""


_READY = Readiness(Exit.OK)
_LOADING = Readiness(Exit.UNREACHABLE, "The encoder is still loading. Try again in a moment.")


class ServedIndex:
    """An index that loads in a thread of its own; until then, its methods raise LoadingError.

    cross_encoder: the one that clients can rerank with, besides the heads of the encoder; they cannot make
    the server load other models. on_batch: see BatchingEncoder. tenant: the only tenant whose documents
    clients see; None: clients see all documents and can name a tenant. timeout: seconds in which a request is
    answered. Raises UsageError for a tenant if the collection has no tenant field.
    """

    def __init__(
        self,
        index: IndexService,
        cross_encoder: str = "",
        on_batch: Callable[[int], None] | None = None,
        tenant: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        index.tenant(tenant)  # raises now, not at the first search
        self._base = index
        self._cross_name = cross_encoder
        self._on_batch = on_batch
        self._tenant = tenant
        self._index: IndexService | None = None
        self._cross: Reranker | None = None
        self._failure: Exception | None = None
        self._timeout = timeout
        self._readiness = _LOADING
        self._closed = threading.Event()
        self._shown: tuple[tuple[str, str | None], float, Front] | None = None

    @property
    def readiness(self) -> Readiness:
        """Whether searches were possible at the last check, a few seconds ago. Asks nothing."""
        return self._readiness

    def start(self, on_failure: Callable[[], None]) -> None:
        """Loads in the background. Calls on_failure if that fails; `failure` is then the error."""

        def load() -> None:
            try:
                self.load()
            except Exception as error:
                self._failure = error
                on_failure()

        threading.Thread(target=load, name="m3index-load", daemon=True).start()

    def load(self) -> None:
        """Loads encoder and reranker. Raises the errors of loading them."""
        encoder = self._base.encoder()
        if self._cross_name:
            self._cross = self._base.reranker(self._cross_name)
        batching = BatchingEncoder(encoder, self._on_batch)
        batching.encode_queries(["warm up"], lexical=encoder.info.lexical)
        index = IndexService(self._base.store, self._base.collection, Model(encoder=batching))
        self._readiness = self._checked(index)
        self._index = index
        threading.Thread(target=self._watch, args=(index,), name="m3index-check", daemon=True).start()

    @property
    def failure(self) -> Exception | None:
        return self._failure

    @property
    def loaded(self) -> bool:
        return self._index is not None

    @property
    def index(self) -> IndexService:
        """Raises LoadingError."""
        if self._index is None:
            raise LoadingError(_LOADING.reason)
        return self._index

    def close(self) -> None:
        self._closed.set()
        (self._index or self._base).close()

    def limit(self) -> AbstractContextManager[None]:
        """Within it, the calls of the store end in time for an answer."""
        return self._base.store.limit(self._timeout)

    def public(self, error: M3IndexError) -> str:
        """What a client is told of an error. Of faults of the server and its store, only their kind: the
        details are in the log."""
        if isinstance(error, LoadingError):
            return str(error)
        if (said := http_errors.of_the_server(error)) is not None:
            log.warning("%s", one_line(str(error)))
            return said
        return str(error).replace(self._base.store.uri, "the store")

    def _watch(self, index: IndexService) -> None:
        while not self._closed.wait(CHECK_SECONDS):
            self._readiness = self._checked(index)

    def _checked(self, index: IndexService) -> Readiness:
        try:
            with index.store.limit(CHECK_SECONDS):
                is_fitting = index.current().has_space_of(index.encoder().info)
        except M3IndexError as error:
            return Readiness(error.exit_code, self.public(error))
        except Exception as error:
            log.error("unexpected error", exc_info=error)
            return Readiness(Exit.UNEXPECTED, http_errors.UNEXPECTED)
        if not is_fitting:
            reason = "The collection was rebuilt with another encoder. Restart the server to load it."
            return Readiness(Exit.MISMATCH, reason)
        return _READY

    def search(self, request: SearchRequest) -> SearchResult:
        """Answers a search. Raises LoadingError, and the errors of `Searcher`."""
        if self._tenant is not None:
            request = self._confined(request)
        if request.similar is not None:
            return self.index.similar(request.similar, request, rerankers=self._reranker)
        return self.index.search(request.query or "", request, rerankers=self._reranker)

    def why(self, request: WhyRequest) -> Why:
        """Says why a document is not among the hits. On a server of one tenant, the documents of others count
        as absent. Raises LoadingError, and the errors of `Searcher`."""
        if self._tenant is not None:
            request = self._confined(request)
        is_confined = self._tenant is not None
        return self.index.why(request.query, request, rerankers=self._reranker, confined=is_confined)

    def document(self, request: DocumentRequest) -> StoredDocument:
        """Reads passages of a document. Raises LoadingError, NotFoundError, UsageError."""
        return self.index.get(
            request.doc_id,
            request.source,
            start=request.start,
            count=request.count,
            tenant=self._owner(request.tenant_name),
        )

    def status(self) -> Status:
        """The state of the collection, also while the encoder is loading.

        Raises UsageError on a server of one tenant, which says nothing of the others, and the errors of
        `IndexService.status`.
        """
        if self._tenant is not None:
            raise UsageError("This server is limited to a tenant, and the status covers all. Ask the store.")
        return self._base.status()

    def info(self) -> dict[str, Any]:
        """The collection and the values of the search options. Raises LoadingError."""
        index, current = self.index, self.index.current()
        encoder, owner = index.encoder().info, index.tenant(self._tenant)
        shown = self._front(current, owner)
        return {
            "version": m3index.__version__,
            "collection": index.collection,
            "generation": current.generation,
            "encoder": encoder.name,
            "dim": encoder.dim,
            "sparse": current.spec.sparse,
            "legs": ["dense"] if current.spec.sparse == "none" else ["dense", "sparse"],
            "fields": dict(current.spec.fields),
            "modes": list(MODES),
            "fusions": list(METHODS),
            "rerankers": self._rerankers(),
            "tenant": self._tenant,
            "documents": shown.documents,
            "passages": shown.passages,
            "last_success": current.properties.get("last_success") if owner is None else None,
            "samples": {"queries": list(shown.queries), "where": shown.condition},
        }

    def _front(self, current: Collection, owner: Tenant | None) -> Front:
        """The first screen of the page, at most a minute old: to count rows takes engines a while."""
        key = current.name, current.properties.get("last_success")
        if self._shown is None or self._shown[0] != key or time.monotonic() > self._shown[1]:
            made = front(self.index.store, current.name, current.spec, owner)
            self._shown = key, time.monotonic() + FRONT_SECONDS, made
        return self._shown[2]

    def _confined(self, request: R) -> R:
        """The request, confined to the tenant of the server. Milvus expressions are rejected: only filters
        that m3index builds are safe to separate tenants."""
        owner = self._owner(request.tenant_name)
        if request.filter is not None:
            raise UsageError("This server serves one tenant and does not accept `filter`. Use `where`.")
        return replace(request, tenant=owner)

    def _owner(self, requested: str | None) -> str | None:
        """The tenant whose documents a client sees that requests this tenant."""
        if self._tenant is not None and requested not in (None, self._tenant):
            raise UsageError("This server serves another tenant. Leave out `tenant`.")
        return self._tenant or requested

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
            raise UsageError(f"This server has no reranker {name!r}. It offers: {offered}.")
        return self.index.reranker(name, weights)
