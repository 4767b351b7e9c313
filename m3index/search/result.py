"""What a search returns, with explanations: records only. The client of a server needs them without numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from m3index.search.fusion import Ranking
from m3index.types import Hit, Query


@dataclass(frozen=True, slots=True)
class Match:
    """A token of both query and passage. The weights are those of the lexical vectors, and their product
    is the token's share of the lexical score. With BM25 they are None: only the server knows them."""

    token: str
    query_weight: float | None = None
    passage_weight: float | None = None

    @property
    def score(self) -> float | None:
        if self.query_weight is None or self.passage_weight is None:
            return None
        return self.query_weight * self.passage_weight


@dataclass(frozen=True, slots=True)
class Crossing:
    """The share of the second leg's weight, in (0, 1), at which two hits swap places.

    Above `share`, the hit is before `other` if `overtakes`, else behind it. other: a rank, from 1.
    """

    other: int
    share: float
    overtakes: bool


@dataclass(frozen=True, slots=True)
class RankRange:
    """The fused rank of a hit for shares of the second leg's weight between start and end."""

    start: float
    end: float
    rank: int


@dataclass(frozen=True, slots=True)
class BoostFactor:
    """A boost as it was given, and its factor for a hit."""

    boost: str
    factor: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """matches: strongest first. crossings: with the other hits, nearest to the current share first.
    ranks: over all shares from 0 to 1. Unless exactly two legs were fused, crossings and ranks are
    empty; otherwise `leg` is the second leg and `share` its current share. boosts: in the order of the
    option."""

    matches: tuple[Match, ...] = ()
    leg: str | None = None
    share: float | None = None
    crossings: tuple[Crossing, ...] = ()
    ranks: tuple[RankRange, ...] = ()
    boosts: tuple[BoostFactor, ...] = ()


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a field, and the number of documents that have it."""

    value: str | int | float | bool
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of a field with their counts, most frequent first.

    others: how many other values there are. documents: how many were counted, those without a value too.
    is_lower_bound: whether there are more documents, so that the counts are at least these.
    """

    values: tuple[FacetValue, ...]
    others: int = 0
    documents: int = 0
    is_lower_bound: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of one query: a sequence of its hits, best first.

    searched: the text that was searched for: the query without its exclusions and the marks of its phrases,
    with the synonyms of the sparse leg. legs: the ranking of each leg, so that other weights can be tried
    without a new search. weights: of
    the legs. timings: seconds by step, including `total`; for queries answered together, of all of them.
    notes: remarks for the user. explanations: one per hit, with the option explain. facets: by field.
    """

    query: Query
    hits: tuple[Hit, ...] = ()
    legs: Mapping[str, Ranking] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    searched: str = ""
    facets: Mapping[str, Facet] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: int) -> Hit:
        return self.hits[position]

    @property
    def is_refused(self) -> bool:
        """Whether the query could not be searched, as an empty text; the notes say why."""
        return not self.weights and not self.legs
