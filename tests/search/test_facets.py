from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import Doc, collection

from m3index.errors import UsageError
from m3index.search.facets import MOST_VALUES, count, over_filter
from m3index.search.options import SearchOptions
from m3index.search.result import Facet, FacetValue
from m3index.search.searcher import Searcher

FIELDS: Any = {"lang": "str", "year": "int", "size": "float", "free": "bool", "tags": "str[]"}
DOCS = [
    Doc("a", ["red apple", "red red"], fields={"lang": "en", "year": 2008, "free": True, "tags": ["x", "y"]}),
    Doc("b", ["red pear"], fields={"lang": "en", "year": 2009, "size": 1.5, "free": False, "tags": ["y"]}),
    Doc("c", ["red stone"], fields={"lang": "de", "year": 2008, "size": 1.5, "tags": []}),
    Doc("d", ["red sea -x"], fields={"lang": None}),
]


def options(**changes: Any) -> SearchOptions:
    return SearchOptions(**changes)


def values(facet: Facet) -> list[tuple[Any, int]]:
    return [(found.value, found.count) for found in facet.values]


def test_values_of_every_type_are_counted_by_document() -> None:
    searcher = Searcher(collection(DOCS, fields=FIELDS))
    for over in ("found", "filter"):
        facets = searcher.search("red", options(facets=[*FIELDS], facets_over=over)).facets
        assert list(facets) == list(FIELDS)
        assert values(facets["lang"]) == [("en", 2), ("de", 1)]
        assert values(facets["year"]) == [(2008, 2), (2009, 1)]
        assert values(facets["size"]) == [(1.5, 2)]
        assert values(facets["free"]) == [(False, 1), (True, 1)]
        assert values(facets["tags"]) == [("y", 2), ("x", 1)]
        assert {facet.documents for facet in facets.values()} == {4}
        assert not any(facet.is_lower_bound or facet.others for facet in facets.values())


def test_facets_are_counted_over_what_is_found_and_not_over_the_page() -> None:
    searcher = Searcher(collection(DOCS, fields=FIELDS))
    found = searcher.search("red -stone", options(facets="lang", k=1, offset=1)).facets["lang"]
    assert (values(found), found.documents) == ([("en", 2)], 3)
    sparse = searcher.search("stone", options(facets="lang", mode="sparse")).facets["lang"]
    assert values(sparse) == [("de", 1)]
    passages = searcher.search("red", options(facets="lang", passages=True)).facets["lang"]
    assert (values(passages), passages.documents) == ([("en", 2), ("de", 1)], 4)
    similar = searcher.similar("a", options(facets="lang")).facets["lang"]
    assert (values(similar), similar.documents) == ([("de", 1), ("en", 1)], 3)


def test_facets_over_the_filter_heed_nothing_else() -> None:
    searcher = Searcher(collection(DOCS, fields=FIELDS))
    said = options(facets=["lang"], facets_over="filter", where="year=2008", mode="sparse")
    facet = searcher.search("stone -apple", said).facets["lang"]
    assert (values(facet), facet.documents) == ([("de", 1), ("en", 1)], 2)
    grouped = searcher.search("red", options(facets=["lang"], facets_over="filter", group_by="lang"))
    assert values(grouped.facets["lang"]) == [("en", 2), ("de", 1)]


def test_a_scan_that_ends_early_is_a_lower_bound() -> None:
    target = collection(DOCS, fields=FIELDS)
    said = options(facets=["lang"], facets_over="filter")
    cut = over_filter([target], said, most=3)["lang"]
    assert (cut.documents, cut.is_lower_bound) == (2, True)  # a has two passages
    exactly = over_filter([target], said, most=5)["lang"]
    assert (exactly.documents, exactly.is_lower_bound) == (4, False)
    two = [replace(target, name="a"), replace(target, name="b")]
    both = over_filter(two, said, most=5)["lang"]
    assert (both.documents, both.is_lower_bound) == (4, True)


def test_facets_are_refused_before_anything_is_searched() -> None:
    searcher = Searcher(collection(DOCS, fields=FIELDS))
    with pytest.raises(UsageError, match=r"no field 'colour' to count\. Its fields are: free, lang, size"):
        searcher.search("red", options(facets=["colour"]))
    with pytest.raises(UsageError, match="Use facets_over filter, or leave one of them out"):
        options(facets=["lang"], group_by="lang")


def test_the_first_values_are_named_and_the_others_counted() -> None:
    documents = [{"n": n} for n in range(15) for _ in range(2 if n == 14 else 1)]
    facet = count(documents, ["n"])["n"]
    assert facet.values[:3] == (FacetValue(14, 2), FacetValue(0, 1), FacetValue(1, 1))
    assert (len(facet.values), facet.others) == (MOST_VALUES, 5)


_DOCS = st.lists(
    st.tuples(
        st.sampled_from(["en", "de", None]),
        st.lists(st.sampled_from("xyz"), max_size=3),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(_DOCS)
def test_counts_are_those_by_hand(described: list[tuple[str | None, list[str], int]]) -> None:
    docs = [
        Doc(str(n), ["red"] * passages, fields={"lang": lang, "tags": tags})
        for n, (lang, tags, passages) in enumerate(described)
    ]
    searcher = Searcher(collection(docs, fields={"lang": "str", "tags": "str[]"}))
    langs = Counter(lang for lang, _, _ in described if lang is not None)
    tags = Counter(tag for _, tags, _ in described for tag in set(tags))
    for over in ("found", "filter"):
        facets = searcher.search("red", options(facets=["lang", "tags"], facets_over=over)).facets
        assert dict(values(facets["lang"])) == langs
        assert dict(values(facets["tags"])) == tags
        assert facets["lang"].documents == len(docs)
