"""Counts the values of declared fields over documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter

from m3index.search.fusion import Ranking
from m3index.search.options import SearchOptions
from m3index.search.plan import SearchTarget, filter_of
from m3index.search.result import Facet, FacetValue
from m3index.store.filter import Scalar
from m3index.types import FieldValue, key_of_passage

MOST_VALUES = 10
"""The number of values of a facet that are named."""

MOST_ROWS = 100_000
"""The number of rows that are read to count the values over a filter."""

Values = Mapping[str, FieldValue]


def over_found(rankings: Iterable[Ranking], fields: Sequence[str]) -> dict[str, Facet]:
    """The facets over the documents that the legs found, each counted once."""
    found: dict[str, Values] = {}
    for ranking in rankings:
        found |= zip(map(key_of_passage, ranking.passages), ranking.values.values(), strict=True)
    return count(found.values(), fields)


def over_filter(
    targets: Sequence[SearchTarget], options: SearchOptions, most: int = MOST_ROWS
) -> dict[str, Facet]:
    """The facets over all documents that the filters match. Reads at most `most` rows in all; if there are
    more, the counts are lower bounds. Raises StoreError, FilterError."""
    fields = options.facets_filtered
    found: dict[str, Values] = {}
    left, is_whole = most, True
    for target in targets:
        scan = target.store.scan(target.collection, filter_of(target, options), fields)
        with closing(scan) as rows:  # type: ignore[type-var]  # stores return generators
            for row in islice(rows, left):
                left -= 1
                found.setdefault(key_of_passage(row["passage_id"]), row)
            is_whole = is_whole and next(iter(rows), None) is None
    return count(found.values(), fields, is_whole=is_whole)


def count(documents: Collection[Values], fields: Sequence[str], *, is_whole: bool = True) -> dict[str, Facet]:
    """The facets of these documents: a list counts for each of its elements, once."""
    facets: dict[str, Facet] = {}
    for field in fields:
        counted = _elements(Counter(_hashable(map(itemgetter(field), documents))))
        ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        facets[field] = Facet(
            values=tuple(FacetValue(value, number) for value, number in ordered[:MOST_VALUES]),
            others=max(0, len(ordered) - MOST_VALUES),
            documents=len(documents),
            is_lower_bound=not is_whole,
        )
    return facets


def _hashable(values: Iterable[FieldValue]) -> Iterator[Scalar | tuple[str, ...] | None]:
    return (tuple(value) if isinstance(value, list) else value for value in values)  # type: ignore[misc]


def _elements(counted: Counter[Scalar | tuple[str, ...] | None]) -> Counter[Scalar]:
    """The counts with those of lists given to their elements, and without what has no value."""
    elements: Counter[Scalar] = Counter()
    for value, number in counted.items():
        if isinstance(value, tuple):
            for element in set(value):
                elements[element] += number
        elif value is not None:
            elements[value] += number
    return elements
