"""Boosts, sorting and diversity in a search, and that its pages are parts of one list."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from search.corpus import Doc, collection

from m3index.errors import FilterError, UsageError
from m3index.search.boosts import boosted
from m3index.search.diversity import diversified
from m3index.search.fusion import METHODS
from m3index.search.options import DIVERSE_HITS, SearchOptions
from m3index.search.plan import SearchTarget
from m3index.search.result import SearchResult
from m3index.search.searcher import Searcher
from m3index.types import FieldType, Hit

FIELDS: dict[str, FieldType] = {"lang": "str", "year": "int", "price": "float", "tags": "str[]"}
WORDS = [f"w{i}" for i in range(30)]
QUERY = "w1 w2 w3"


def documents(count: int, seed: int = 5) -> list[Doc]:
    rng = random.Random(seed)
    return [
        Doc(
            f"d{i}",
            [" ".join(rng.choices(WORDS, k=6)) for _ in range(rng.randint(1, 2))],
            fields={
                "lang": rng.choice(["en", "de", "fr", None]),
                "year": rng.choice([None, *range(2000, 2027)]),
                "price": rng.choice([None, 0.5, 1.5, 2.5]),
                "tags": rng.choice([["bees"], ["bees", "honey"], []]),
            },
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def target() -> SearchTarget:
    return collection(documents(150), fields=FIELDS)


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return {doc.doc_id: doc.fields for doc in documents(150)}


@pytest.fixture(scope="module")
def searcher(target: SearchTarget) -> Searcher:
    return Searcher(target)


def search(searcher: Searcher, query: str = QUERY, **options: Any) -> SearchResult:
    return searcher.search(query, SearchOptions(**options))


def ids(hits: Any) -> list[str]:
    return [hit.doc_id for hit in hits]


class Logits:
    """A reranker whose scores are below and above 0, as those of a cross-encoder."""

    name = "logits"

    def score(self, query: str, texts: Sequence[str]) -> Any:
        shared = [len(set(query.split()) & set(text.split())) for text in texts]
        return np.array(shared, np.float32) * 2 - 3 + np.arange(len(texts), dtype=np.float32) / 1e3


# ------------------------------------------------------------------ boosts

BOOSTS = ["lang=en: 1.4", "year: gauss(2026, scale=8, offset=2)", "tags=honey: 0.8"]


def by_hand(fields: Any) -> list[float]:
    year = fields["year"]
    distance = 0.0 if year is None else max(0.0, abs(year - 2026) - 2) / 8
    return [
        1.4 if fields["lang"] == "en" else 1.0,
        max(0.5 ** (distance**2), 1e-6),
        0.8 if "honey" in fields["tags"] else 1.0,
    ]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_boosts_order_everything_found(searcher: Searcher, values: Any, mode: Any) -> None:
    plain = search(searcher, k=100, mode=mode)
    found = search(searcher, k=100, mode=mode, boost=BOOSTS)
    everything = plain.hits if mode != "hybrid" else search(searcher, k=150, depth=150, mode=mode).hits
    assert found[0].doc_id != plain[0].doc_id
    for hit in found:
        expected = boosted(hit.score, by_hand(values[hit.doc_id]))
        assert hit.boosted_score == pytest.approx(expected)
    scores = [hit.boosted_score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    ranks = {hit.doc_id: hit.rank for hit in plain}
    assert all(hit.fused_rank == ranks.get(hit.doc_id, hit.fused_rank) for hit in found)
    if mode == "dense":  # the depth is the number of hits
        expected = sorted(everything, key=lambda h: -boosted(h.score, by_hand(values[h.doc_id])))
        assert ids(found) == ids(expected)


def test_a_boost_brings_a_document_from_beyond_the_page_to_the_front(searcher: Searcher) -> None:
    plain = search(searcher, k=90)
    last = plain[-1].doc_id
    found = search(searcher, k=3, boost=[f"doc_id={last}: 1000000"])
    assert (found[0].doc_id, found[0].fused_rank) == (last, 90)
    assert ids(found[1:]) == ids(plain[:2])


def test_scores_below_0_of_a_reranker_are_boosted_in_the_right_direction(
    searcher: Searcher, values: Any
) -> None:
    plain = search(searcher, k=60, rerank=Logits(), rerank_depth=60)
    found = search(searcher, k=60, rerank=Logits(), rerank_depth=60, boost=["lang=en: 3"])
    assert {hit.doc_id for hit in found} == {hit.doc_id for hit in plain}
    assert min(hit.rerank_score or 0 for hit in found) < 0
    before = {hit.doc_id: hit.rank for hit in plain}
    for hit in found:
        assert hit.rerank_score is not None
        is_english = values[hit.doc_id]["lang"] == "en"
        assert hit.boosted_score == pytest.approx(boosted(hit.rerank_score, [3.0 if is_english else 1.0]))
        assert before[hit.doc_id] >= hit.rank or not is_english
    order = [hit.boosted_score or 0 for hit in found]
    assert order == sorted(order, reverse=True)
    assert ids(found) != ids(plain)


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_gives_the_factors_and_the_ranks_at_other_weights(sparse: Any, method: Any) -> None:
    """The search with other weights has the hit at the rank that the explanation gives."""
    searcher = Searcher(collection(documents(40), sparse, fields=FIELDS))
    found = search(searcher, boost=BOOSTS, explain=True, k=5, fusion=method)
    for hit, explanation in zip(found, found.explanations, strict=True):
        assert [boost.boost for boost in explanation.boosts] == BOOSTS
        factors = [boost.factor for boost in explanation.boosts]
        assert hit.boosted_score == boosted(hit.score, factors)
        assert any(r.rank == hit.rank and r.start <= 0.5 <= r.end for r in explanation.ranks)
        for part in explanation.ranks[1:-1]:
            share = (part.start + part.end) / 2
            weights = {"dense": 1 - share, "sparse": share}
            other = search(searcher, boost=BOOSTS, k=40, fusion=method, weights=weights)
            assert [h.rank for h in other if h.doc_id == hit.doc_id] == [part.rank]


def test_a_boost_by_the_fields_of_every_collection() -> None:
    docs = [Doc(name, ["red apple"], source=source) for name, source in (("a", "x"), ("b", "y"))]
    searcher = Searcher(collection(docs))
    assert ids(searcher.search("red", SearchOptions(boost="source=y: 1.5"))) == ["b", "a"]
    assert ids(searcher.search("red", SearchOptions(boost=["source=x: 1.5"]))) == ["a", "b"]


def test_dates_and_fields_in_objects() -> None:
    docs = [
        Doc(name, ["red apple"], fields={"published": published, "author__name": author})
        for name, published, author in (
            ("a", "2024-05-01T00:00:00.000000Z", "Zoe"),
            ("b", "2026-05-01T00:00:00.000000Z", "Ada"),
            ("c", None, "Mae"),
            ("d", "2025-05-01T00:00:00.000000Z", "Ada"),
        )
    ]
    searcher = Searcher(collection(docs, fields={"published": "date", "author__name": "str"}))

    def found(**options: Any) -> list[str]:
        return ids(searcher.search("red", SearchOptions(mode="dense", **options)))

    assert found(sort="published") == ["a", "d", "b", "c"]
    assert found(sort="published:desc") == ["b", "d", "a", "c"]
    assert found(boost="published: gauss(2024-05-01, scale=30d)", where="published<2030")[0] == "a"
    assert found(boost="published=2025: 2")[0] == "d"
    assert found(sort="author.name")[-1] == "a"
    assert found(boost="author.name=Zoe: 2")[0] == "a"
    assert len(found(group_by="author.name")) == 3


# -------------------------------------------------------------------- sort


@pytest.mark.parametrize("direction", ["", ":asc", ":desc"])
@pytest.mark.parametrize("field", ["year", "lang", "price"])
def test_a_sort_orders_everything_found(searcher: Searcher, values: Any, field: str, direction: str) -> None:
    plain = search(searcher, k=100, mode="dense")
    found = search(searcher, k=100, mode="dense", sort=field + direction)
    present = [hit for hit in plain if values[hit.doc_id][field] is not None]
    missing = [hit for hit in plain if values[hit.doc_id][field] is None]
    present.sort(key=lambda hit: values[hit.doc_id][field], reverse=direction == ":desc")
    assert ids(found) == ids([*present, *missing])
    assert 5 < len(present) < 100
    assert {hit.doc_id: hit.rank for hit in plain} == {hit.doc_id: hit.fused_rank for hit in found}


def test_equal_values_are_sorted_by_boosted_score(searcher: Searcher, values: Any) -> None:
    found = search(searcher, k=100, sort="lang", boost=["year>=2013: 2"])
    for one, next_ in pairwise(found):
        if values[one.doc_id]["lang"] == values[next_.doc_id]["lang"]:
            assert (one.boosted_score or 0) >= (next_.boosted_score or 0)


# --------------------------------------------------------------- diversity


def test_diversity_is_mmr_of_the_first_hits_by_the_stored_vectors(
    target: SearchTarget, searcher: Searcher
) -> None:
    plain = search(searcher, k=150, depth=150)
    found = search(searcher, k=150, depth=150, diversity=0.6)
    first = plain.hits[:DIVERSE_HITS]
    rows = target.store.get(target.collection, [hit.passage_id for hit in first], ["dense"])
    vectors = np.stack([rows[hit.passage_id]["dense"] for hit in first])
    order = diversified([hit.score for hit in first], vectors, 0.6)
    assert ids(found) == [*(first[i].doc_id for i in order), *ids(plain.hits[DIVERSE_HITS:])]
    assert order != sorted(order)
    assert [hit.fused_rank for hit in found.hits[:DIVERSE_HITS]] == [i + 1 for i in order]


def test_a_near_copy_of_the_first_hit_falls_back() -> None:
    docs = [
        Doc("a", ["red apple pie sugar"]),
        Doc("copy", ["red apple pie sugar flour"]),
        Doc("other", ["red brick stone house"]),
    ]
    searcher = Searcher(collection(docs, encoder=FakeEncoder(dim=64)))
    plain = searcher.search("red apple pie", SearchOptions(fusion="rrf"))
    assert ids(plain) == ["copy", "a", "other"]
    found = searcher.search("red apple pie", SearchOptions(fusion="rrf", diversity=0.7))
    assert ids(found) == ["copy", "other", "a"]
    assert ids(searcher.search("red apple pie", SearchOptions(fusion="rrf", diversity=0.0))) == ids(plain)


def test_diversity_of_reranked_and_boosted_hits_is_relative_to_their_scores(searcher: Searcher) -> None:
    for more in ({"rerank": Logits(), "rerank_depth": 30}, {"boost": BOOSTS}):
        plain, found = (search(searcher, k=30, diversity=d, **more) for d in (0.0, 0.8))
        assert found[0].doc_id == plain[0].doc_id
        assert ids(found) != ids(plain)
        assert search(searcher, k=30, diversity=1e-9, **more).hits == plain.hits


def test_a_removed_row_does_not_stop_diversity(target: SearchTarget) -> None:
    class Forgetful:
        """Has lost the first row that is asked for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(target.store, name)

        def get(self, name: str, keys: Sequence[str], fields: Sequence[str]) -> Any:
            rows = target.store.get(name, keys, fields)
            return {key: row for key, row in rows.items() if key != gone}

    gone = search(Searcher(target), k=1)[0].passage_id
    found = search(Searcher(replace(target, store=Forgetful())), diversity=0.5)  # type: ignore[arg-type]
    assert gone not in {hit.passage_id for hit in found}
    assert len(found) in (9, 10)


# -------------------------------------------------- what cannot be combined


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sort": "year", "rerank": "colbert"}, "sort and rerank cannot be combined"),
        ({"sort": "year", "diversity": 0.5}, "sort and diversity cannot be combined"),
        ({"sort": "tags"}, "has lists in 'tags', which have no order to sort by"),
        ({"sort": "tags", "group_by": "tags"}, "has lists in 'tags'"),
        ({"sort": "colour"}, r"no field 'colour' to sort by\. Its fields are: lang, price, tags, year"),
        ({"sort": "doc_id"}, "no field 'doc_id' to sort by"),
        ({"sort": "year:up"}, "sort takes a declared field"),
        ({"boost": "colour=red: 2"}, r"no field 'colour' to boost by\. Its fields are: doc_id, lang,"),
        ({"boost": "colour: exp(1, scale=2)"}, "no field 'colour' to boost by"),
        ({"boost": "lang: exp(1, scale=2)"}, "needs a field declared int, float, date"),
        ({"boost": "year=new: 2"}, "'year' is declared int; it cannot be 'new'"),
        ({"diversity": 1.5}, "diversity takes a number from 0 to 1, not 1.5"),
        ({"diversity": -0.1}, "diversity takes a number from 0 to 1"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_searched(
    target: SearchTarget, options: dict[str, Any], says: str
) -> None:
    class Unasked:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("the store was asked")

    searcher = Searcher(replace(target, store=Unasked()))  # type: ignore[arg-type]
    with pytest.raises((UsageError, FilterError), match=says):
        searcher.search(QUERY, SearchOptions(**options))
    with pytest.raises((UsageError, FilterError), match=says):
        searcher.similar("d1", SearchOptions(**options))


# ----------------------------------------------------- several collections


def two(kind: FieldType = "int") -> tuple[SearchTarget, SearchTarget]:
    encoder = FakeEncoder()
    first = collection(documents(20), fields=FIELDS, encoder=encoder)
    year: Any = {"int": 2001, "str": "2001"}[kind]
    others = [Doc(f"e{i}", ["w1 w2"], fields={"lang": "en", "year": year}) for i in range(5)]
    second = collection(others, fields={"lang": "str", "year": kind}, encoder=encoder)
    return replace(first, name="a"), replace(second, name="b", encoder=first.encoder)


def test_several_collections_are_arranged_as_one() -> None:
    searcher = Searcher(*two())
    found = search(searcher, k=25, sort="year:desc")
    years = {doc.doc_id: doc.fields["year"] for doc in documents(20)} | {f"e{i}": 2001 for i in range(5)}
    assert len(found) == 25
    present = [years[hit.doc_id] for hit in found if years[hit.doc_id] is not None]
    assert present == sorted(present, reverse=True)
    assert search(searcher, k=25, boost="lang=en: 100").hits[0].doc_id.startswith(("d", "e"))
    diverse = search(searcher, k=25, diversity=0.9)
    assert {hit.doc_id for hit in diverse} == {hit.doc_id for hit in found}


def test_collections_that_do_not_fit_together_are_refused() -> None:
    first, second = two("str")
    says = "Collection a declares 'year' as int, Collection b as str. Search them apart to sort by it."
    with pytest.raises(UsageError, match=re.escape(says)):
        search(Searcher(first, second), sort="year")
    with pytest.raises(UsageError, match="Collection b has no field 'price' to sort by"):
        search(Searcher(first, second), sort="price")
    apart = replace(two()[1], encoder=lambda: FakeEncoder(name="another"))
    with pytest.raises(UsageError, match="vectors, which these collections have from different encoders"):
        search(Searcher(first, apart), diversity=0.5)


# ------------------------------------------------------------------ similar


@pytest.mark.parametrize(
    "more",
    [{"boost": BOOSTS}, {"sort": "year:desc"}, {"diversity": 0.7}, {"boost": BOOSTS, "diversity": 0.7}],
    ids=str,
)
def test_similar_documents_are_arranged_too(searcher: Searcher, more: dict[str, Any]) -> None:
    whole = searcher.similar("d3", SearchOptions(k=30, **more))
    plain = searcher.similar("d3", SearchOptions(k=30))
    assert ids(whole) != ids(plain)
    assert "d3" not in ids(whole)
    pages = [searcher.similar("d3", SearchOptions(k=10, page=page, **more)) for page in (1, 2, 3)]
    assert [hit for page in pages for hit in page] == list(whole)


def test_queries_together_are_arranged_as_alone(searcher: Searcher) -> None:
    from m3index.types import Query

    queries = [Query(str(i), f"w{i} w{i + 1}") for i in range(5)]
    for more in ({"boost": BOOSTS}, {"sort": "year"}, {"diversity": 0.7}):
        options = SearchOptions(**more)
        for query, result in zip(queries, searcher.run(queries, options, batch=3), strict=True):
            assert ids(result) == ids(searcher.search(query.text, options))


# ------------------------------------------------------------------ pages

_more = st.fixed_dictionaries(
    {},
    optional={
        "boost": st.lists(st.sampled_from([*BOOSTS, "lang in de,fr: 0.2"]), min_size=1, max_size=3),
        "mode": st.sampled_from(["dense", "sparse"]),
        "fusion": st.sampled_from(["rrf", "minmax", "dbsf", "arctan", "server"]),
        "where": st.just(["year>=2005"]),
        "depth": st.sampled_from([100, 120, 150]),
    },
)
_order = st.one_of(
    st.just({}),
    st.builds(lambda f: {"sort": f}, st.sampled_from(["year", "year:desc", "lang", "price:desc"])),
    st.builds(lambda d: {"diversity": d}, st.floats(0, 1)),
    st.just({"rerank": "colbert"}),
    st.builds(lambda d: {"rerank": "colbert", "diversity": d}, st.floats(0, 1)),
)
_query = st.sampled_from([QUERY, QUERY, "w1 w2 w3 -w4", 'w1 w2 w3 -"w4 w5"', '"w1 w2" w3'])
_unit = st.sampled_from([{}, {"passages": True}, {"group_by": "year"}, {"group_by": "lang"}])


@settings(max_examples=120, deadline=None)
@given(
    more=_more,
    order=_order,
    unit=_unit,
    query=_query,
    k=st.integers(1, 40),
    count=st.integers(1, 6),
    by_offset=st.booleans(),
)
@example({}, {}, {}, QUERY, 10, 10, False)
@example({}, {"diversity": 0.5}, {"passages": True}, QUERY, 25, 4, False)
@example({"boost": BOOSTS}, {"sort": "year"}, {}, QUERY, 20, 5, True)
@example({"boost": BOOSTS}, {}, {}, "w1 w2 w3 -w4", 20, 5, True)
def test_pages_together_are_one_long_list(
    searcher: Searcher,
    more: dict[str, Any],
    order: dict[str, Any],
    unit: dict[str, Any],
    query: str,
    k: int,
    count: int,
    by_offset: bool,
) -> None:
    """With the default depths up to hit 100, or 50 with a reranker."""
    asked = {**more, **order, **unit}
    last = 50 if "rerank" in asked else 100
    count = max(1, min(count, last // k))
    whole = search(searcher, query, k=k * count, **asked)
    pages = [
        search(searcher, query, k=k, **({"offset": k * i} if by_offset else {"page": i + 1}), **asked)
        for i in range(count)
    ]
    hits: list[Hit] = [hit for page in pages for hit in page]
    assert hits == list(whole)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert len({hit.passage_id for hit in hits}) == len(hits)
    assert {page.notes for page in pages} == {whole.notes}


@pytest.fixture(scope="module")
def large() -> Searcher:
    return Searcher(collection(documents(250), fields=FIELDS))


@pytest.mark.parametrize(
    "more",
    [{}, {"boost": BOOSTS}, {"sort": "year:desc"}, {"diversity": 0.6}, {"rerank": "colbert"}],
    ids=str,
)
@pytest.mark.parametrize("step", [(51, 100), (101, 200)])
def test_pages_beyond_the_default_depth_agree_within_a_step(
    large: Searcher, more: dict[str, Any], step: tuple[int, int]
) -> None:
    k = 12
    numbers = [n for n in range(1, 20) if step[0] <= n * k <= step[1]]
    whole = search(large, k=numbers[-1] * k, texts=False, **more)
    pages = [search(large, k=k, page=n, texts=False, **more) for n in numbers]
    start = (numbers[0] - 1) * k
    assert [hit for page in pages for hit in page] == list(whole.hits[start:])
    assert len(whole) == numbers[-1] * k
