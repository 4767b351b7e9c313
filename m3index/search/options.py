"""The options of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from m3index.corpus.quarantine import default_paths
from m3index.errors import UsageError
from m3index.index.options import Filtering, TenantLimit
from m3index.options import (
    Custom,
    FileName,
    Flag,
    Group,
    NameOr,
    Number,
    OneOf,
    Text,
    Texts,
    Whole,
    group,
    option,
    options_of,
)
from m3index.schema import column_of
from m3index.search.boosts import TAKES as BOOSTS
from m3index.search.boosts import Boost, check_boosts, read_boost
from m3index.search.fusion import METHODS, RRF_K, Method
from m3index.search.sorting import TAKES as SORTS
from m3index.search.sorting import SortOrder, check_sort
from m3index.search.weights import M3_WEIGHTS, read_weights
from m3index.search.words import SYNTAXES, Syntax
from m3index.store.base import MAX_LIMIT
from m3index.types import DEFAULT_SOURCE

if TYPE_CHECKING:
    from m3index.search.rerank import Reranker
    from m3index.search.synonyms import Synonyms

Mode: TypeAlias = Literal["hybrid", "dense", "sparse"]
MODES: tuple[Mode, ...] = get_args(Mode)
Fusion: TypeAlias = Method | Literal["server"]
FUSIONS: tuple[Fusion, ...] = (*METHODS, "server")
Weights: TypeAlias = Mapping[str, float]
FacetsOver: TypeAlias = Literal["found", "filter"]

DEFAULT_DEPTH = 100
"""The number of documents that each leg retrieves, unless `depth` is given or more hits are wanted. It does
not grow with k, so that a search, its further pages, an evaluation and a tuning fuse the same documents."""

DEFAULT_RERANKED = 50
"""The number of hits to rerank, unless `rerank_depth` is given or more hits are wanted."""

DIVERSE_HITS = 100
"""The number of first hits that `diversity` reorders: the same for all pages, which are parts of one list."""

RUN_HITS = 100
"""The number of hits of a query in a run file, an evaluation and a quality gate."""

GROUP_BY, BOOST_BY, SORT_BY, COUNT = "group by", "boost by", "sort by", "count"
"""What a search uses a field for."""

_WEIGHTS_SCHEMA = {
    "anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "string"}]
}


def _weights(example: str) -> Custom:
    return Custom(read_weights, f"weights such as {example}", "NAME=W,...", _WEIGHTS_SCHEMA)


@group
class SynonymFile(Group):
    """The synonyms of an index. Clients of a server cannot name a file: they have those of the server."""

    panel = "Search"

    synonyms: str | None = option(
        FileName(),
        "File of synonyms for queries, in the format of Solr (docs/search.md); the sparse leg searches for "
        "them too.",
        default=None,
        shown="none",
    )

    def read_synonyms(self) -> Synonyms:
        """The synonyms of the file. Raises UsageError if it cannot be read."""
        from m3index.search.synonyms import NONE, read_synonyms

        return NONE if self.synonyms is None else read_synonyms(self.synonyms)


class Field(Text):
    """The name of a declared field."""

    def check(self, value: object) -> str:
        return column_of(super().check(value))


class Fields(Texts):
    """Names of declared fields."""

    def check(self, value: object) -> tuple[str, ...]:
        return tuple(map(column_of, super().check(value)))


@group
class Narrowing(TenantLimit, Filtering):
    """The documents a search covers."""

    panel = "Filter"

    source: str | None = option(
        Text("NAME"), "Corpus to which the search is limited.", default=None, shown="all", file=False
    )


@group
class Reranking(Group):
    """A reranker, which reads query and text together and reorders the first hits."""

    panel = "Rerank"

    rerank: str | Reranker | None = option(
        NameOr("score", "the name of a reranker", "MODEL"),
        "Reranker for the first hits: colbert or m3 (heads of the encoder), or the name of a cross-encoder.",
        default=None,
        shown="none",
    )
    rerank_depth: int | None = option(
        Whole(1, MAX_LIMIT),
        "Number of hits to rerank.",
        default=None,
        shown=f"{DEFAULT_RERANKED}, doubled until it covers offset + k",
        harmless=True,
    )
    rerank_weights: Weights | str | None = option(
        _weights("dense=0.4,colbert=0.6"),
        "Weights of the reranker m3.",
        default=None,
        shown=",".join(f"{name}={weight:g}" for name, weight in M3_WEIGHTS.items()),
        harmless=True,
    )

    @property
    def m3_weights(self) -> Weights | None:
        """`rerank_weights` as a mapping; None if it is not given."""
        return None if self.rerank_weights is None else read_weights(self.rerank_weights)


@group
class RankingOptions(Reranking, Narrowing):
    """How a search ranks documents. Raises UsageError for an invalid value or combination."""

    panel = "Search"

    k: int = option(Whole(1, MAX_LIMIT), "Maximum number of hits.", default=10, flags=("-k",), harmless=True)
    offset: int = option(
        Whole(0, MAX_LIMIT - 1), "Number of hits to skip, as for a second page.", default=0, file=False
    )
    page: int | None = option(
        Whole(1, MAX_LIMIT),
        "Page of hits to return, in place of offset: page N skips (N - 1) * k hits.",
        default=None,
        shown="1",
        file=False,
    )
    mode: Mode = option(
        OneOf(MODES, "MODE"),
        "Search mode: hybrid (both legs), dense or sparse.",
        default="hybrid",
        harmless=True,
    )
    weights: Weights | str | None = option(
        _weights("dense=0.7,sparse=0.3"),
        "Weights of the legs, such as dense=0.7,sparse=0.3; 0 omits a leg.",
        default=None,
        shown="equal",
        harmless=True,
    )
    rrf_k: float | None = option(
        Number(0.0),
        "Constant k of reciprocal rank fusion, w / (k + rank).",
        default=None,
        shown=f"{RRF_K:g}",
        harmless=True,
    )
    fusion: Fusion | None = option(
        OneOf(FUSIONS, "METHOD"),
        "Fusion method: rrf, evidence, minmax, dbsf, arctan, or server for Milvus where it gives the same "
        "result (docs/search.md).",
        default=None,
        shown="evidence, or rrf where weights or rrf_k are given",
        harmless=True,
    )
    depth: int | None = option(
        Whole(1, MAX_LIMIT),
        "Number of documents that each leg retrieves before fusion.",
        default=None,
        shown=f"{DEFAULT_DEPTH}, doubled until it covers offset + k",
        harmless=True,
    )
    group_by: str | None = option(
        Field("FIELD"),
        "Declared field for which only the best hit of each value is returned.",
        default=None,
        shown="none",
        harmless=True,
    )
    syntax: Syntax | None = option(
        OneOf(SYNTAXES, "SYNTAX"),
        'What a query is: words, where "honey bees" is a phrase and -wasps an exclusion, or plain text.',
        default=None,
        shown="words; plain for many queries at once",
        harmless=True,
    )

    boost: Sequence[str] | None = option(
        Custom(check_boosts, BOOSTS, "BOOST", Texts.schema, is_repeatable=True),
        "Factor for the scores of documents that meet a condition, such as 'lang=en: 1.2', or one that falls "
        "with a distance, such as 'year: gauss(2026, scale=3)'; repeatable, and the factors multiply.",
        default=None,
        shown="none",
        harmless=True,
    )
    sort: str | None = option(
        Custom(check_sort, SORTS, "FIELD"),
        "Declared field to sort all documents found by, instead of their scores; FIELD:desc for the greatest "
        "value first.",
        default=None,
        shown="by score",
        harmless=True,
    )
    diversity: float = option(
        Number(0.0, 1.0),
        f"Weight of the difference of a hit from those before it, as far as rank {DIVERSE_HITS}: 0 for "
        "relevance alone, 1 for difference alone.",
        default=0.0,
        harmless=True,
    )

    def check(self) -> None:
        if self.sort is not None and self.rerank is not None:
            raise UsageError(
                "sort and rerank cannot be combined: sorting undoes the reranker's order. Use one of them."
            )
        if self.sort is not None and self.diversity:
            raise UsageError(
                "sort and diversity cannot be combined: each decides the order. Use one of them."
            )
        if self.page is not None and self.offset:
            raise UsageError("page and offset cannot be combined. Use one of them.")
        for name, count in (("depth", self.depth), ("rerank_depth", self.rerank_depth)):
            if count is not None and count < self.last_rank:
                sum_of = f"{self.skipped} + " if self.skipped else ""
                raise UsageError(
                    f"{name} is {count}, which is less than {'offset + k' if sum_of else 'k'} "
                    f"({sum_of}{self.k}). Raise {name} to at least {self.last_rank}."
                )
        if self.last_rank > MAX_LIMIT:
            raise UsageError(
                f"offset + k is {self.last_rank:,}, but at most {MAX_LIMIT:,} hits can be reached."
            )
        super().check()

    @property
    def leg_weights(self) -> Weights | None:
        """`weights` as a mapping; None if it is not given."""
        return None if self.weights is None else read_weights(self.weights)

    @property
    def method(self) -> Method:
        """The fusion method of m3index, used where Milvus does not fuse.

        Weights without a method are those of ranks: who has chosen them, as by `tune`, has chosen them so.
        """
        if self.fusion is None:
            return "evidence" if self.weights is None and self.rrf_k is None else "rrf"
        return "rrf" if self.fusion == "server" else self.fusion

    @property
    def rank_constant(self) -> float:
        """k of reciprocal rank fusion."""
        return RRF_K if self.rrf_k is None else self.rrf_k

    @property
    def skipped(self) -> int:
        """The number of hits before the first one wanted."""
        return self.offset if self.page is None else (self.page - 1) * self.k

    @property
    def query_syntax(self) -> Syntax:
        """The syntax of a single query."""
        return self.syntax or "words"

    @property
    def last_rank(self) -> int:
        """The rank of the last hit wanted."""
        return self.skipped + self.k

    @property
    def leg_depth(self) -> int:
        """The number of documents that each leg retrieves."""
        return self.depth if self.depth is not None else _covering(self.last_rank, DEFAULT_DEPTH)

    @cached_property
    def boosts(self) -> tuple[Boost, ...]:
        """`boost`, read."""
        return tuple(read_boost(text) for text in self.boost or ())

    @cached_property
    def sort_order(self) -> SortOrder | None:
        """`sort`, read."""
        return None if self.sort is None else SortOrder.read(self.sort)

    @property
    def field_uses(self) -> Sequence[tuple[str, str]]:
        """The fields whose values the search uses, each with what it is for."""
        return [
            *((boost.field, BOOST_BY) for boost in self.boosts),
            *([(self.sort_order.field, SORT_BY)] if self.sort_order is not None else []),
            *([(self.group_by, GROUP_BY)] if self.group_by is not None else []),
        ]

    @property
    def found_fields(self) -> Sequence[str]:
        """The fields whose values are read of everything that the legs find."""
        return tuple(dict.fromkeys(field for field, _ in self.field_uses))

    @property
    def rearranges(self) -> bool:
        """Whether something but fusion and reranker decides the order of the hits."""
        return bool(self.boosts or self.sort is not None or self.diversity)

    @property
    def fused_count(self) -> int | None:
        """The number of first hits of the fusion that later steps can bring onto the page; None for all."""
        if self.rerank is not None:
            return self.rerank_count
        if self.boosts or self.sort_order is not None:
            return None
        return max(self.last_rank, DIVERSE_HITS) if self.diversity else self.last_rank

    @property
    def rerank_count(self) -> int:
        """The number of hits to rerank."""
        if self.rerank_depth is not None:
            return self.rerank_depth
        return _covering(self.last_rank, DEFAULT_RERANKED)

    @property
    def deeper_than_first_page(self) -> dict[str, int]:
        """The depths that are greater than those of the first page, because they are left to their defaults.
        Empty if this page and the first one are parts of one list."""
        least: dict[str, int] = {}
        if self.depth is None:
            least["depth"] = DEFAULT_DEPTH
        if self.rerank is not None and self.rerank_depth is None:
            least["rerank_depth"] = DEFAULT_RERANKED
        here = {name: _covering(self.last_rank, count) for name, count in least.items()}
        return {name: depth for name, depth in here.items() if depth > _covering(self.k, least[name])}

    @property
    def document_source(self) -> str:
        """The source of the document for which similar ones are searched."""
        return self.source or DEFAULT_SOURCE


def _covering(wanted: int, least: int) -> int:
    """`least`, doubled until it covers what is wanted. It grows in steps, so that the pages within a step are
    parts of one list."""
    while least < wanted:
        least *= 2
    return min(least, MAX_LIMIT)


@group
class SearchOptions(RankingOptions):
    """The options of a search. Raises UsageError for an invalid value or combination."""

    panel = "Search"

    passages: bool = option(
        Flag(),
        "Return passages as hits, instead of documents with their best passage.",
        default=False,
        harmless=True,
    )
    facets: Sequence[str] | None = option(
        Fields("FIELD"),
        "Declared field whose values are counted; repeatable.",
        default=None,
        shown="none",
        file=False,
    )
    facets_over: FacetsOver = option(
        OneOf(("found", "filter"), "WHAT"),
        "Documents whose values are counted: found (by the legs), or filter (all that the filters match).",
        default="found",
        harmless=True,
    )
    explain: bool = option(
        Flag(),
        "Show the rank, score and contribution of each leg, what matched, and the effect of other weights.",
        default=False,
        file=False,
    )
    texts: bool = option(
        Flag(),
        "Read title, text and metadata of the hits; a run file needs only the ids.",
        default=True,
        flag=False,
        file=False,
    )

    def check(self) -> None:
        if self.passages and self.group_by is not None:
            raise UsageError("passages and group_by cannot be combined. Use one of them.")
        if self.facets_found and self.group_by is not None:
            raise UsageError(
                "facets of what is found cannot be combined with group_by, which finds one document of each "
                "value. Use facets_over filter, or leave one of them out."
            )
        super().check()

    @property
    def for_many(self) -> SearchOptions:
        """The options for many queries at once, which are plain text unless a syntax is named."""
        return self if self.syntax is not None else replace(self, syntax="plain")

    @property
    def facets_found(self) -> Sequence[str]:
        """The fields whose values are counted over what the legs find."""
        return tuple(dict.fromkeys(self.facets or ())) if self.facets_over == "found" else ()

    @property
    def facets_filtered(self) -> Sequence[str]:
        """The fields whose values are counted over all that the filters match."""
        return tuple(dict.fromkeys(self.facets or ())) if self.facets_over == "filter" else ()

    @property
    def field_uses(self) -> Sequence[tuple[str, str]]:
        return [*super().field_uses, *((field, COUNT) for field in self.facets or ())]

    @property
    def found_fields(self) -> Sequence[str]:
        return tuple(dict.fromkeys([*(field for field, _ in super().field_uses), *self.facets_found]))


@group
class Sought(RankingOptions):
    """A search, and the document that should be among its hits."""

    panel = "Query"

    doc_id: str = option(
        Text("DOC_ID"), "Id of the document to look for.", flag=False, file=False, kw_only=False
    )

    @property
    def search(self) -> SearchOptions:
        """The options of the search alone."""
        values = {declared.name: getattr(self, declared.name) for declared in options_of(RankingOptions)}
        return SearchOptions(**values)


@group
class WhyOptions(Sought):
    """The same on this machine, where the rows that could not be indexed are kept."""

    panel = "Query"

    quarantine: str | None = option(
        FileName(),
        "Quarantine file in which to look for the row of the document; none for no file.",
        default=None,
        shown="those of the collection in the user's state directory",
    )

    def quarantines(self, place: str, collection: str) -> list[Path]:
        """The files in which to look for the row. place: the database."""
        if self.quarantine is None:
            return default_paths(place, collection)
        return [] if self.quarantine == "none" else [Path(self.quarantine)]
