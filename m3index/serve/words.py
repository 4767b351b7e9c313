"""What a client asks for: the options of a search by the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from m3index.api import Index
from m3index.errors import UsageError
from m3index.search.fusion import METHODS, RRF_K
from m3index.search.options import MODES, SearchOptions
from m3index.search.rerank import Reranker
from m3index.search.weights import parse_weights

POOL_LIMIT = 500

Rerankers = Callable[[str, Mapping[str, float] | None], Reranker]
"""Gives a reranker by its name. Raises UsageError for one that this server does not offer."""


class Words(BaseModel):
    """Exactly one of `query` and `like`. What is left out has the default of the command line."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(description="What to look for.")] = ""
    like: Annotated[str, Field(description="Instead of a query: the nearest to this document.")] = ""
    k: Annotated[int, Field(description="How many hits.")] = 10
    mode: Annotated[str, Field(description=", ".join(MODES))] = "hybrid"
    rrf_k: Annotated[float, Field(description="The k of reciprocal rank fusion, w / (k + rank).")] = RRF_K
    fusion: Annotated[str, Field(description=", ".join(METHODS))] = "rrf"
    depth: Annotated[int | None, Field(description="Documents of each leg; max(100, 10 k).")] = None
    where: Annotated[list[str], Field(description="Conditions, all of which must hold: lang=en.")] = []
    filter: Annotated[str, Field(description="A Milvus expression.")] = ""
    source: Annotated[str, Field(description="Only documents of this corpus.")] = ""
    tenant: Annotated[str | None, Field(description="Only documents of this tenant.")] = None
    passages: Annotated[bool, Field(description="Passages as hits, not documents.")] = False
    group_by: Annotated[str, Field(description="The best hit for each value of this field.")] = ""
    rerank: Annotated[str, Field(description="One of the rerankers that /info names.")] = ""
    rerank_depth: Annotated[int | None, Field(description="How many hits are reranked.")] = None
    explain: Annotated[bool, Field(description="An explanation with each hit.")] = False
    texts: Annotated[bool, Field(description="Title, text and metadata with each hit.")] = True
    legs: Annotated[bool, Field(description="The legs' rankings with the answer.")] = True
    snippets: Annotated[bool, Field(description="For each hit the part of its text that matches.")] = False
    pool: Annotated[
        int,
        Field(
            ge=0,
            le=POOL_LIMIT,
            description="Title and snippet of the first so many ids of each leg, so that a client "
            "can fuse the legs again by other weights without asking again.",
        ),
    ] = 0


class Body(Words):
    """POST /search."""

    weights: Annotated[
        dict[str, float] | None, Field(description='Of the legs: {"dense": 0.7, "sparse": 0.3}.')
    ] = None
    rerank_weights: Annotated[dict[str, float] | None, Field(description="Of the reranker `m3`.")] = None


class Parameters(Words):
    """GET /search?query=..."""

    weights: Annotated[str, Field(description="Of the legs: dense=0.7,sparse=0.3.")] = ""
    rerank_weights: Annotated[str, Field(description="Of the reranker m3: dense=0.4,colbert=0.6.")] = ""

    def body(self) -> Body:
        weights = {
            "weights": parse_weights(self.weights),
            "rerank_weights": parse_weights(self.rerank_weights),
        }
        return Body(**{**self.model_dump(), **weights})


def search_options(index: Index, words: Body, rerankers: Rerankers) -> SearchOptions:
    """Raises UsageError, FilterError where the words cannot be."""
    if bool(words.query.strip()) == bool(words.like):
        raise UsageError("Give either a query or a document that the hits should be like.")
    return SearchOptions(
        k=words.k,
        mode=words.mode,  # type: ignore[arg-type]  # checked there
        weights=words.weights,
        rrf_k=words.rrf_k,
        fusion=words.fusion,  # type: ignore[arg-type]
        depth=words.depth,
        where=index.where(words.where, words.filter or None, words.source or None, words.tenant),
        passages=words.passages,
        group_by=words.group_by or None,
        rerank=rerankers(words.rerank, words.rerank_weights) if words.rerank else None,
        rerank_depth=words.rerank_depth,
        explain=words.explain,
        texts=words.texts,
    )
