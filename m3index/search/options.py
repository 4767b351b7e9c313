"""How to search: every choice with its default, in one place, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from m3index.errors import UsageError
from m3index.search.fusion import METHODS, RRF_K, Method
from m3index.search.rerank import Reranker
from m3index.store.filter import Filter
from m3index.store.queries import MAX_LIMIT

Mode: TypeAlias = Literal["hybrid", "dense", "sparse"]
MODES: tuple[Mode, ...] = get_args(Mode)
Fusion: TypeAlias = Method | Literal["server"]
FUSIONS: tuple[Fusion, ...] = (*METHODS, "server")


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The choices of one search. Raises UsageError where they cannot be.

    k: hits to return. weights: one for each leg ("dense", "sparse"; "NAME:dense" ... where several
    collections are searched), equal unless given; 0 leaves a leg out. fusion: `server` is reciprocal
    rank fusion by Milvus itself where that gives the same answer; a note says which it was. depth:
    documents that each leg yields before fusion, `max(100, 10 k)` unless given. passages: passages as
    hits, not documents by their best passage. group_by: the best hit for each value of this field.
    rerank: what reorders the first `rerank_depth` hits (`max(50, k)` unless given). explain:
    explanations beside the hits. texts: fetch title, text and metadata of the hits; a run file needs
    only their ids.
    """

    k: int = 10
    mode: Mode = "hybrid"
    weights: Mapping[str, float] | None = None
    rrf_k: float = RRF_K
    fusion: Fusion = "rrf"
    depth: int | None = None
    where: Filter | None = None
    passages: bool = False
    group_by: str | None = None
    rerank: Reranker | None = None
    rerank_depth: int | None = None
    explain: bool = False
    texts: bool = True

    def __post_init__(self) -> None:
        _check_count("k", self.k)
        if self.mode not in MODES:
            raise UsageError(f"There is no search mode {self.mode!r}; there are {', '.join(MODES)}.")
        if self.fusion not in FUSIONS:
            raise UsageError(f"There is no fusion {self.fusion!r}; there are {', '.join(FUSIONS)}.")
        if not (math.isfinite(self.rrf_k) and self.rrf_k >= 0):
            raise UsageError(f"The k of reciprocal rank fusion is {self.rrf_k}; it is a number from 0 up.")
        for name, count in (("depth", self.depth), ("rerank depth", self.rerank_depth)):
            if count is not None:
                _check_count(name, count)
                if count < self.k:
                    raise UsageError(
                        f"The {name} is {count}, but {self.k} hits are asked for; raise it to {self.k}."
                    )
        if self.passages and self.group_by is not None:
            raise UsageError("Hits are either passages or groups of a field; leave one of the two out.")

    @property
    def method(self) -> Method:
        """How this side fuses."""
        return "rrf" if self.fusion == "server" else self.fusion

    @property
    def leg_depth(self) -> int:
        return self.depth if self.depth is not None else min(MAX_LIMIT, max(100, 10 * self.k))

    @property
    def rerank_count(self) -> int:
        return self.rerank_depth if self.rerank_depth is not None else max(50, self.k)


def _check_count(name: str, count: int) -> None:
    if not 1 <= count <= MAX_LIMIT:
        raise UsageError(
            f"{name} is {count}; it can be 1 to {MAX_LIMIT:,}, which is what Milvus gives in one answer."
        )
