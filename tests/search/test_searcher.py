from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from search.corpus import TIDES, Doc, collection

from m3index.errors import FilterError, NotFoundError, QueryError, UnreachableError, UsageError
from m3index.search.fusion import METHODS, combine, fuse
from m3index.search.legs import group_id
from m3index.search.options import SearchOptions
from m3index.search.searcher import Searcher, SearchTarget
from m3index.store.filter import Compare
from m3index.store.memory import MemoryStore
from m3index.types import Candidate, Leg, Query

KEYS = {doc.key: doc.doc_id for doc in TIDES}


def options(**changes: Any) -> SearchOptions:
    return SearchOptions(**changes)


def ids(result: Any) -> list[str]:
    return [hit.doc_id for hit in result.hits]


def no_encoder() -> FakeEncoder:
    raise AssertionError("the encoder was loaded")


class Spy:
    """A store that notes its searches, and may wait or fail in one leg."""

    def __init__(self, store: MemoryStore, before: Mapping[Leg, Callable[[], None]] | None = None) -> None:
        self.store, self.before = store, before or {}
        self.searches: list[tuple[Leg, int]] = []
        self.gets: list[tuple[int, tuple[str, ...]]] = []

    def search(self, name: str, leg: Leg, queries: Sequence[Any], *rest: Any) -> list[list[Candidate]]:
        self.searches.append((leg, len(queries)))
        self.before.get(leg, lambda: None)()
        return self.store.search(name, leg, queries, *rest)

    def get(self, name: str, keys: Sequence[str], fields: Sequence[str]) -> Any:
        self.gets.append((len(keys), tuple(fields)))
        return self.store.get(name, keys, fields)


def spied(
    target: SearchTarget, before: Mapping[Leg, Callable[[], None]] | None = None
) -> tuple[SearchTarget, Spy]:
    spy = Spy(target.store, before)  # type: ignore[arg-type]
    return replace(target, store=spy), spy  # type: ignore[arg-type]


# -- what is found


@pytest.mark.parametrize("more", [{}, {"explain": True}, {"passages": True}, {"rerank": "colbert"}], ids=str)
def test_pages_are_parts_of_one_list(more: dict[str, Any]) -> None:
    searcher = Searcher(collection(TIDES, "lexical"))
    whole = searcher.search("salt water in the sea", options(k=6, **more))
    pages = [
        searcher.search("salt water in the sea", options(k=2, offset=offset, **more)) for offset in (0, 2, 4)
    ]
    assert [hit.rank for hit in whole] == list(range(1, len(whole) + 1))
    assert len(whole) >= 5
    assert [hit for page in pages for hit in page] == list(whole)
    for page in pages:
        shown = {hit.rank for hit in page}
        assert {crossing.other for e in page.explanations for crossing in e.crossings} <= shown
    assert [e.ranks for page in pages for e in page.explanations] == [e.ranks for e in whole.explanations]
    assert not searcher.search("salt water in the sea", options(offset=1_000, **more))


def test_depths_cover_the_offset() -> None:
    assert (options(offset=40).leg_depth, options(offset=40).rerank_count) == (100, 50)
    assert (options(offset=41).leg_depth, options(offset=41).rerank_count) == (100, 100)
    assert (options(offset=95).leg_depth, options(offset=95).rerank_count) == (200, 200)
    assert (options(offset=190).leg_depth, options(offset=191).leg_depth) == (200, 400)
    with pytest.raises(UsageError, match=re.escape("depth is 20, which is less than offset + k (15 + 10).")):
        options(offset=15, depth=20)
    with pytest.raises(UsageError, match="at most 16,384 hits can be reached"):
        options(offset=16_380)


def test_a_page_is_an_offset() -> None:
    searcher = Searcher(collection(TIDES))
    for number in (1, 2, 3):
        page = searcher.search("salt water in the sea", options(k=2, page=number))
        assert page.hits == searcher.search("salt water in the sea", options(k=2, offset=2 * number - 2)).hits
    assert (options(k=7, page=3).skipped, options(k=7, page=3).last_rank) == (14, 21)
    assert (options(page=1).skipped, options().skipped) == (0, 0)
    with pytest.raises(UsageError, match="page and offset cannot be combined"):
        options(page=2, offset=10)
    with pytest.raises(UsageError, match="page takes a whole number from 1 to 16,384, not 0"):
        options(page=0)
    with pytest.raises(UsageError, match="at most 16,384 hits can be reached"):
        options(page=1_640)


def test_only_the_rows_of_the_page_are_fetched() -> None:
    target, spy = spied(collection(TIDES))
    assert len(Searcher(target).search("salt water in the sea", options(k=2, page=2, fusion="rrf"))) == 2
    assert [n for n, _ in spy.gets] == [2]


def test_a_page_that_is_searched_more_deeply_than_the_first_says_so() -> None:
    searcher = Searcher(collection(TIDES))

    def notes(**changes: Any) -> tuple[str, ...]:
        return searcher.search("sea", options(**changes)).notes

    assert notes(k=10, page=10) == notes(k=60) == notes(k=150, page=1) == notes(k=110, page=1) == ()
    [note] = notes(k=10, page=11)
    assert "Search for all pages with depth 200." in note
    assert notes(k=10, page=11, depth=200) == ()
    [note] = notes(k=10, page=6, rerank="colbert")
    assert "Search for all pages with rerank_depth 100." in note
    [note] = notes(k=10, page=11, rerank="colbert")
    assert "Search for all pages with depth 200 and rerank_depth 200." in note
    assert notes(k=10, page=11, rerank="colbert", depth=200, rerank_depth=200) == ()


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights", [None, {"dense": 0.7, "sparse": 0.3}])
def test_hybrid_is_the_fusion_of_the_two_legs(sparse: Any, method: Any, weights: Any) -> None:
    searcher = Searcher(collection(TIDES, sparse))
    result = searcher.search("salt water in the sea", options(fusion=method, weights=weights))
    alone = {
        name: searcher.search("salt water in the sea", options(mode=name)).legs[name]
        for name in ("dense", "sparse")
    }
    if method == "evidence":  # reads beside the legs how far to trust the sparse one
        alone["sparse"] = replace(alone["sparse"], trust=result.legs["sparse"].trust)
    assert result.legs == alone
    fused = fuse(alone, weights or {"dense": 1.0, "sparse": 1.0}, method=method)
    assert ids(result) == [KEYS[f.id] for f in fused]
    assert [hit.score for hit in result.hits] == [f.score for f in fused]
    assert [hit.rank for hit in result.hits] == list(range(1, len(fused) + 1))
    for hit, f in zip(result.hits, fused, strict=True):
        assert {name: leg.contribution for name, leg in hit.legs.items()} == f.contributions
        for name, leg in hit.legs.items():
            assert alone[name].ids[leg.rank - 1] == f.id
            assert alone[name].scores[leg.rank - 1] == leg.score


def test_a_hit_is_the_whole_row_and_shows_its_best_passage() -> None:
    [first, *_] = Searcher(collection(TIDES)).search("fish live in the sea", options(k=2)).hits
    assert (first.doc_id, first.ordinal, first.text) == ("sea", 2, "fish live in the sea")
    assert first.passage_id == f"{TIDES[4].key}-2"
    bread = Searcher(collection(TIDES)).search("flour yeast").hits[0]
    assert (bread.title, bread.metadata, bread.source) == ("", {"kind": "recipe"}, "default")


def test_one_leg_alone_keeps_its_own_score() -> None:
    searcher = Searcher(collection(TIDES))
    dense = searcher.search("the moon", options(mode="dense"))
    assert [h.score for h in dense.hits] == list(dense.legs["dense"].scores)
    assert set(dense.legs) == {"dense"}
    weighed = searcher.search("the moon", options(weights={"dense": 2.0, "sparse": 0.0}))
    assert weighed.hits == dense.hits


def test_passages_are_hits_of_their_own() -> None:
    result = Searcher(collection(TIDES)).search("the sea", options(passages=True, k=20))
    assert len(result.hits) == sum(len(doc.passages) for doc in TIDES)
    assert len({hit.passage_id for hit in result.hits}) == len(result.hits)


def test_k_cuts() -> None:
    assert len(Searcher(collection(TIDES)).search("sea", options(k=2)).hits) == 2


def test_a_filter_holds_in_both_legs() -> None:
    result = Searcher(collection(TIDES)).search("salt", options(where=Compare("doc_id", "==", "soup")))
    assert ids(result) == ["soup"]
    assert {len(leg) for leg in result.legs.values()} == {1}


@pytest.mark.parametrize(
    "where",
    [
        "lang=fr",
        ["lang=fr"],
        ["lang in fr,de", "doc_id!=c"],
        {"lang": "fr"},
        {"lang": ["fr", "de"], "doc_id": "d"},
        Compare("lang", "==", "fr"),
    ],
)
def test_every_form_of_a_filter_is_read_for_the_collection(where: Any) -> None:
    docs = [
        Doc("a", ["red apple"], fields={"lang": "en"}),
        Doc("b", ["red"]),
        Doc("c", ["red pomme"], fields={"lang": "es"}),
        Doc("d", ["red pomme"], fields={"lang": "fr"}),
    ]
    searcher = Searcher(collection(docs, fields={"lang": "str"}))
    assert ids(searcher.search("red", options(where=where))) == ["d"]
    with pytest.raises(FilterError, match="no field 'lang' to filter by"):
        Searcher(collection(TIDES)).search("red", options(where="lang=fr"))


def test_where_source_and_tenant_hold_together() -> None:
    docs = [
        Doc(name, ["red apple"], source=source, fields={"owner": owner})
        for name, source, owner in (("a", "x", "acme"), ("b", "x", "other"), ("c", "y", "acme"))
    ]
    target = collection(docs, fields={"owner": "str"})
    searcher = Searcher(replace(target, spec=replace(target.spec, tenant="owner")))
    assert set(ids(searcher.search("red", options(source="x")))) == {"a", "b"}
    assert set(ids(searcher.search("red", options(tenant="acme")))) == {"a", "c"}
    assert ids(searcher.search("red", options(source="x", tenant="acme"))) == ["a"]
    assert ids(searcher.search("red", options(source="x", tenant="acme", where="doc_id=b"))) == []
    with pytest.raises(UsageError, match="no tenant field"):
        Searcher(target).search("red", options(tenant="acme"))


def test_a_result_is_a_sequence_of_its_hits() -> None:
    result = Searcher(collection(TIDES)).search("the sea", options(k=3))
    assert list(result) == list(result.hits)
    assert (len(result), result[0], result[-1]) == (3, result.hits[0], result.hits[2])
    assert not Searcher(collection([])).search("sea")


def test_group_by_gives_the_best_hit_of_each_value() -> None:
    docs = [
        Doc("a", ["red apple"], fields={"lang": "en"}),
        Doc("b", ["red red apple"], fields={"lang": "en"}),
        Doc("c", ["red pomme"], fields={"lang": "fr"}),
        Doc("d", ["red stone"]),
    ]
    searcher = Searcher(collection(docs, fields={"lang": "str"}))
    result = searcher.search("red apple", options(group_by="lang"))
    assert result.hits[0].group == "en"
    assert {hit.group for hit in result.hits} == {"en", "fr", None}
    assert len(result.hits) == 3
    assert group_id("fr") in result.legs["dense"].ids
    with pytest.raises(UsageError, match=r"no field 'colour' to group by\. Its fields are: lang"):
        searcher.search("red", options(group_by="colour"))


def test_texts_may_be_left_out() -> None:
    target, spy = spied(collection(TIDES))
    result = Searcher(target).search("sea", options(texts=False, k=3, fusion="rrf"))
    assert [hit.text for hit in result.hits] == ["", "", ""]
    assert spy.gets == [(3, ("doc_id", "ordinal", "source"))]


def test_only_the_final_hits_are_fetched_in_one_call() -> None:
    target, spy = spied(collection(TIDES))
    Searcher(target).search("sea", options(k=2, fusion="rrf"))
    assert [n for n, _ in spy.gets] == [2]


@pytest.mark.parametrize(
    ("sparse", "fields"), [("lexical", ("lexical",)), ("bm25", ("title", "breadcrumb", "text"))]
)
def test_evidence_reads_the_best_sparse_hit_too(sparse: Any, fields: tuple[str, ...]) -> None:
    target, spy = spied(collection(TIDES, sparse))
    result = Searcher(target).search("sea", options(k=2))
    assert spy.gets[0] == (1, fields)
    assert [n for n, _ in spy.gets] == [1, 2]
    assert result.legs["sparse"].trust == 1.0
    assert Searcher(target).search("sea nowhere", options(k=2)).legs["sparse"].trust == 0.5**1.5
    spy.gets.clear()
    Searcher(target).search("sea", options(k=2, mode="sparse"))
    assert [n for n, _ in spy.gets] == [2]


def test_weights_without_a_method_are_those_of_ranks() -> None:
    assert SearchOptions().method == "evidence"
    assert SearchOptions(weights={"dense": 1, "sparse": 1}).method == "rrf"
    assert SearchOptions(rrf_k=60).method == "rrf"
    assert SearchOptions(fusion="evidence", weights={"dense": 1, "sparse": 1}, rrf_k=1).method == "evidence"
    assert SearchOptions(fusion="server").method == "rrf"


def test_evidence_multiplies_the_dense_votes_by_what_was_measured() -> None:
    docs = [Doc(f"d{i}", [f"word{i} word{i + 1} sea"]) for i in range(30)]
    target = collection(docs)
    plain = Searcher(target).search("word3 sea", options(explain=True))
    trusted = Searcher(replace(target, dense_trust=3.0)).search("word3 sea", options(explain=True))
    assert trusted.legs["dense"].trust == 3.0
    for one in plain.hits:
        [other] = [hit for hit in trusted.hits if hit.doc_id == one.doc_id] or [None]
        if other is not None and "dense" in one.legs:
            assert other.legs["dense"].contribution == pytest.approx(3 * one.legs["dense"].contribution)


def test_a_hit_that_left_in_the_meantime_is_not_shown() -> None:
    target = collection(TIDES)
    before = {Leg.LEXICAL: lambda: None}
    spied_target, spy = spied(target, before)
    get = spy.get

    def deleting(name: str, keys: Sequence[str], fields: Sequence[str]) -> Any:
        target.store.delete(name, [keys[0]])
        return get(name, keys, fields)

    spy.get = deleting  # type: ignore[method-assign]
    result = Searcher(spied_target).search("salt water", options(k=3, fusion="rrf"))
    assert [hit.rank for hit in result.hits] == [1, 2]
    assert result.notes == ("1 of the hits had been removed before they could be read.",)


# -- the encoder


def test_bm25_alone_does_not_touch_the_encoder() -> None:
    target = replace(collection(TIDES, "bm25"), encoder=no_encoder)
    result = Searcher(target).search("salt water", options(mode="sparse"))
    assert set(ids(result)) == {"bread", "soup", "sea"}
    assert [
        r.hits[0].doc_id for r in Searcher(target).run([Query("q", "yeast")], options(mode="sparse"))
    ] == ["bread"]


def test_a_query_is_encoded_once_for_both_legs() -> None:
    encoder = FakeEncoder()
    calls: list[tuple[int, bool]] = []
    inner = encoder.encode_queries

    def counted(texts: Sequence[str], *, lexical: bool, multi_vector: bool = False) -> Any:
        calls.append((len(texts), lexical))
        return inner(texts, lexical=lexical, multi_vector=multi_vector)

    encoder.encode_queries = counted  # type: ignore[method-assign]
    searcher = Searcher(collection(TIDES, encoder=encoder))
    searcher.search("sea")
    searcher.search("sea", options(mode="dense"))
    assert calls == [(1, True), (1, False)]


# -- concurrency and failure


def test_the_legs_are_asked_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=10)
    target, _ = spied(collection(TIDES), {Leg.DENSE: meeting.wait, Leg.LEXICAL: meeting.wait})
    assert Searcher(target).search("sea").hits


def test_bm25_is_asked_while_the_encoder_works() -> None:
    asked = threading.Event()
    encoder = FakeEncoder()
    target, _ = spied(collection(TIDES, "bm25", encoder=encoder), {Leg.BM25: asked.set})

    def slow() -> FakeEncoder:
        assert asked.wait(10)
        return encoder

    assert Searcher(replace(target, encoder=slow)).search("sea").hits


@pytest.mark.parametrize("leg", [Leg.DENSE, Leg.LEXICAL])
def test_a_leg_that_fails_fails_the_search(leg: Leg) -> None:
    def broken() -> None:
        raise UnreachableError("down")

    target, _ = spied(collection(TIDES), {leg: broken})
    with pytest.raises(UnreachableError, match="down"):
        Searcher(target).search("sea")


def test_nothing_of_a_refused_query_is_still_running() -> None:
    running = threading.Event()
    target, _ = spied(
        collection(TIDES, "bm25"), {Leg.BM25: lambda: (running.set(), time.sleep(0.05), running.clear())[0]}
    )
    with pytest.raises(QueryError, match="too long"):
        Searcher(target).search("word " * 100)
    assert not running.is_set()


# -- what cannot be asked


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_query(text: str) -> None:
    with pytest.raises(QueryError, match="The query is empty"):
        Searcher(collection(TIDES)).search(text)


def test_half_a_surrogate_pair() -> None:
    with pytest.raises(QueryError, match="not valid Unicode"):
        Searcher(collection(TIDES)).search("sea \udcff")


def test_a_query_of_a_hundred_thousand_characters() -> None:
    text = "salt " * 20_000
    with pytest.raises(QueryError, match="too long"):
        Searcher(collection(TIDES)).search(text)
    assert Searcher(collection(TIDES, "bm25")).search(text, options(mode="sparse")).hits


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_a_query_without_a_lexical_match(sparse: Any) -> None:
    result = Searcher(collection(TIDES, sparse)).search("どこにもない言葉")
    assert len(result.hits) == len(TIDES)
    assert len(result.legs["sparse"]) == 0
    assert result.notes == ("sparse found nothing. These hits are from dense only.",)


def test_nothing_at_all_is_found() -> None:
    result = Searcher(collection([])).search("sea")
    assert (result.hits, result.notes) == ((), ())


def test_a_collection_without_sparse_vectors() -> None:
    searcher = Searcher(collection(TIDES, "none"))
    with pytest.raises(UsageError, match=r"has no sparse vectors\. Search it with mode dense"):
        searcher.search("sea", options(mode="sparse"))
    result = searcher.search("sea")
    assert set(result.legs) == {"dense"}
    assert "no sparse vectors" in result.notes[0]
    weighed = searcher.search("sea", options(weights={"dense": 0.7, "sparse": 0.3}))
    assert weighed.hits == result.hits
    with pytest.raises(UsageError, match=r"exclude all legs of this search .dense."):
        searcher.search("sea", options(weights={"dense": 0.0, "sparse": 1.0}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 0}, "k takes a whole number from 1 to 16,384, not 0."),
        ({"k": 16_385}, "k takes a whole number from 1 to 16,384, not 16385."),
        ({"k": True}, "k takes a whole number from 1 to 16,384, not True."),
        ({"k": "3"}, "k takes a whole number from 1 to 16,384, not '3'."),
        ({"depth": 5}, "depth is 5, which is less than k (10). Raise depth to at least 10."),
        ({"depth": 20_000}, "depth takes a whole number from 1 to 16,384, not 20000."),
        (
            {"rerank_depth": 3},
            "rerank_depth is 3, which is less than k (10). Raise rerank_depth to at least 10.",
        ),
        ({"mode": "both"}, "mode takes hybrid, dense or sparse, not 'both'."),
        ({"fusion": "magic"}, "fusion takes rrf, evidence, minmax, dbsf, arctan or server, not 'magic'."),
        ({"rrf_k": -1.0}, "rrf_k takes a number from 0 up, not -1.0."),
        ({"rrf_k": float("nan")}, "rrf_k takes a number from 0 up, not nan."),
        ({"rrf_k": float("inf")}, "rrf_k takes a number from 0 up, not inf."),
        ({"rerank": ""}, "rerank takes the name of a reranker, not ''."),
        ({"weights": "dense"}, "weights takes weights such as dense=0.7,sparse=0.3, not 'dense'."),
        ({"weights": {}}, "weights takes weights such as dense=0.7,sparse=0.3, not {}."),
        ({"explain": "no"}, "explain takes true or false, not 'no'."),
        ({"source": ""}, "source takes a non-empty text, not ''."),
        ({"filter": ""}, "filter takes a non-empty text, not ''."),
        ({"tenant": ""}, "tenant is empty. Name a tenant, or omit the option for all tenants."),
        (
            {"passages": True, "group_by": "lang"},
            "passages and group_by cannot be combined. Use one of them.",
        ),
    ],
)
def test_options_that_cannot_be(changes: Any, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        SearchOptions(**changes)
    assert str(refusal.value).endswith(says)


@pytest.mark.parametrize("where", ["", [], {}, (), {"lang": []}, [""], [1], 5, {"lang": None}, "lang"])
def test_a_filter_that_says_nothing_never_means_everything(where: Any) -> None:
    with pytest.raises(FilterError):
        SearchOptions(where=where)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"dense": 0.0, "sparse": 0.0}, "All weights are 0"),
        ({"dense": 1.0, "bm25": 1.0}, "no leg 'bm25'"),
        ({"dense": -0.1, "sparse": 1.0}, "weight of dense must be a number from 0 up, not -0.1"),
        ({"dense": float("nan"), "sparse": 1.0}, "weight of dense must be a number from 0 up, not nan"),
        ({"sparse": 1.0}, "There is no weight for dense"),
    ],
)
def test_weights_that_cannot_be(weights: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Searcher(collection(TIDES)).search("sea", options(weights=weights))


def test_the_depth_of_the_legs() -> None:
    assert SearchOptions().leg_depth == 100
    assert SearchOptions(k=50).leg_depth == SearchOptions(k=50, offset=50).leg_depth == 100
    assert SearchOptions(k=50, offset=51).leg_depth == 200
    assert SearchOptions(k=16_384).leg_depth == 16_384
    assert SearchOptions(k=5, depth=7).leg_depth == 7
    result = Searcher(collection(TIDES)).search("the sea", options(k=1, depth=2))
    assert {len(leg) for leg in result.legs.values()} == {2}


# -- many queries


def test_a_run_equals_its_searches() -> None:
    target, spy = spied(collection(TIDES))
    searcher = Searcher(target)
    texts = ["salt water", "the moon", "ships", "flour", "fish", "どこにもない", "leek"]
    results = list(searcher.run([Query(str(i), t) for i, t in enumerate(texts)], options(k=3), batch=4))
    assert sorted(spy.searches) == sorted(
        [(Leg.DENSE, 4), (Leg.LEXICAL, 4), (Leg.DENSE, 3), (Leg.LEXICAL, 3)]
    )
    assert len(spy.gets) == 4  # for each batch the best sparse hits, and the final ones
    assert [r.query.query_id for r in results] == [str(i) for i in range(7)]
    for text, result in zip(texts, results, strict=True):
        alone = searcher.search(text, options(k=3))
        assert ids(result) == ids(alone)
        assert [h.score for h in result.hits] == pytest.approx([h.score for h in alone.hits])
        assert result.notes == alone.notes


def test_a_run_is_lazy() -> None:
    def endless() -> Any:
        n = 0
        while True:
            yield Query(str(n), "sea")
            n += 1

    results = Searcher(collection(TIDES)).run(endless(), batch=2)
    assert [next(results).query.query_id for _ in range(3)] == ["0", "1", "2"]


def test_a_run_goes_on_after_a_query_that_cannot_be_asked() -> None:
    queries = [Query("a", "sea"), Query("b", " "), Query("c", "word " * 100), Query("d", "moon")]
    results = list(Searcher(collection(TIDES)).run(queries))
    assert [bool(r.hits) for r in results] == [True, False, False, True]
    assert results[1].notes == ("The query is empty. Give at least one word.",)
    assert results[2].notes == ("the query is too long",)
    assert ids(results[3])[0] == "moon"
    assert [r.query.query_id for r in Searcher(collection(TIDES)).run([Query("b", "")])] == ["b"]


# -- similar


@pytest.mark.parametrize("sparse", ["lexical", "bm25", "none"])
@pytest.mark.parametrize("doc_id", ["sea", "bread"])
def test_similar_finds_the_nearest_by_the_stored_vectors(sparse: Any, doc_id: str) -> None:
    target = replace(collection(TIDES, sparse), encoder=no_encoder)
    result = Searcher(target).similar(doc_id)
    doc = next(d for d in TIDES if d.doc_id == doc_id)
    assert doc_id not in ids(result)
    rows = target.store.get(
        target.collection, [f"{doc.key}-{i}" for i in range(len(doc.passages))], ["dense"]
    )
    best: dict[str, float] = {}
    for answer in target.store.search(target.collection, Leg.DENSE, [r["dense"] for r in rows.values()], 100):
        for c in answer:
            if c.key != doc.key:
                best[c.key] = max(best.get(c.key, -9.0), c.score)
    assert list(result.legs["dense"].ids) == sorted(best, key=lambda k: -best[k])
    weights = dict.fromkeys(result.legs, 1.0)
    assert ids(result) == [KEYS[f.id] for f in combine(result.legs, weights)]


def test_similar_to_a_document_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="no document 'cake' of source 'default'"):
        Searcher(collection(TIDES)).similar("cake")
    with pytest.raises(NotFoundError):
        Searcher(collection(TIDES)).similar("sea", options(source="other"))


def test_similar_to_a_document_of_one_tenant_only() -> None:
    docs = [
        Doc(name, ["red apple"], fields={"owner": owner}) for name, owner in zip("abcd", "xxyy", strict=True)
    ]
    target = collection(docs, fields={"owner": "str"})
    searcher = Searcher(replace(target, spec=replace(target.spec, tenant="owner")))
    assert ids(searcher.similar("a", options(tenant="x"))) == ["b"]
    assert set(ids(searcher.similar("a"))) == {"b", "c", "d"}
    with pytest.raises(NotFoundError, match="no document 'c' of source 'default'"):
        searcher.similar("c", options(tenant="x"))


def test_similar_to_a_long_document_takes_passages_from_all_over_it() -> None:
    long = Doc("long", [f"word{i}" for i in range(200)])
    target, spy = spied(collection([*TIDES, long]))
    result = Searcher(target).similar("long")
    assert "64 of them were compared" in result.notes[0]
    assert {n for _, n in spy.searches} == {64}
    assert ids(result)


# -- several collections


def test_further_collections_are_further_legs() -> None:
    encoder, store = FakeEncoder(), MemoryStore()
    first = replace(collection(TIDES[:3], encoder=encoder, store=store, name="a__g1"), name="a")
    second = replace(collection(TIDES[3:], "bm25", encoder=encoder, store=store, name="b__g1"), name="b")
    result = Searcher(first, second).search("salt water")
    assert set(result.legs) == {"a:dense", "a:sparse", "b:dense", "b:sparse"}
    assert set(ids(result)) == set(KEYS.values())
    fused = fuse(result.legs, dict.fromkeys(result.legs, 1.0))
    assert ids(result) == [KEYS[f.id] for f in fused]
    weights = {"a:dense": 0.0, "a:sparse": 0.0, "b:dense": 1.0, "b:sparse": 1.0}
    assert set(ids(Searcher(first, second).search("salt", options(weights=weights)))) == {"soup", "sea"}
    with pytest.raises(UsageError, match="needs a name of its own"):
        Searcher(first, replace(second, name="a"))
    with pytest.raises(UsageError, match="in one collection only"):
        Searcher(first, second).similar("sea")


def test_one_document_in_two_collections_is_one_hit() -> None:
    store = MemoryStore()
    first = replace(collection(TIDES, store=store, name="a__g1"), name="a")
    other = FakeEncoder(8, name="other")
    second = replace(collection(TIDES, encoder=other, store=store, name="b__g1"), name="b")
    result = Searcher(first, second).search("salt water")
    assert sorted(ids(result)) == sorted(KEYS.values())
    assert set(result.hits[0].legs) == {"a:dense", "a:sparse", "b:dense", "b:sparse"}


def test_there_must_be_a_collection() -> None:
    with pytest.raises(UsageError, match="no collection"):
        Searcher()


# -- time


def test_timings_name_the_steps() -> None:
    timings = Searcher(collection(TIDES)).search("sea").timings
    assert set(timings) == {"load", "encode", "dense", "sparse", "fuse", "fetch", "total"}
    assert all(seconds >= 0 for seconds in timings.values())
    assert timings["total"] >= max(timings["dense"], timings["sparse"])


def test_candidates_of_equal_vectors_go_by_key() -> None:
    docs = [Doc(name, ["same words"]) for name in "abcdef"]
    result = Searcher(collection(docs)).search("same words")
    keys = sorted(doc.key for doc in docs)
    assert [hit.passage_id for hit in result.hits] == [f"{key}-0" for key in keys]
    assert np.ptp([hit.legs["dense"].score for hit in result.hits]) == 0
