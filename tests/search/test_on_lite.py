"""The searches of this package on Milvus Lite as in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from search.corpus import TIDES, Doc, collection

from m3index.search.options import SearchOptions, Sought
from m3index.search.result import SearchResult
from m3index.search.searcher import Searcher
from m3index.search.stages import Stage
from m3index.search.synonyms import parse_synonyms
from m3index.search.why import why
from m3index.store.filter import Compare
from m3index.store.milvus import MilvusStore
from m3index.types import Leg

DOCS = [
    Doc(d.doc_id, d.passages, d.title, d.source, d.metadata, {"lang": lang, "year": year})
    for d, lang, year in zip(
        TIDES, ["en", "en", "fr", None, "fr"], [2001, None, 2003, 2001, 2002], strict=True
    )
]


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStore]:
    store = MilvusStore.open(str(tmp_path_factory.mktemp("lite") / "search.db"))
    yield store
    store.close()


@pytest.fixture(scope="module", params=["lexical", "bm25"])
def both(request: pytest.FixtureRequest, lite: MilvusStore) -> tuple[Searcher, Searcher]:
    fields: Any = {"lang": "str", "year": "int"}
    name = f"search_{request.param}__g1"
    return (
        Searcher(collection(DOCS, request.param, fields=fields)),
        Searcher(collection(DOCS, request.param, fields=fields, store=lite, name=name)),
    )


def scores(result: SearchResult) -> dict[str, Any]:
    return {
        name: {id_: pytest.approx(s, rel=1e-4) for id_, s in zip(leg.ids, leg.scores, strict=True)}
        for name, leg in result.legs.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(),
        SearchOptions(k=2, weights={"dense": 0.3, "sparse": 0.7}),
        SearchOptions(passages=True),
        SearchOptions(group_by="lang"),
        SearchOptions(where=Compare("lang", "==", "fr")),
        SearchOptions(fusion="minmax", explain=True),
        SearchOptions(fusion="evidence", explain=True),
        SearchOptions(mode="sparse"),
        SearchOptions(k=2, page=2),
        SearchOptions(boost=["lang=fr: 3", "year: gauss(2001, scale=1)", "source=default: 2"], explain=True),
        SearchOptions(sort="year:desc"),
        SearchOptions(sort="lang", passages=True),
        SearchOptions(diversity=0.6),
        SearchOptions(diversity=0.6, passages=True, boost="lang=en: 1.5", k=3, page=2),
    ],
    ids=[
        "plain",
        "weights",
        "passages",
        "groups",
        "filter",
        "explain",
        "evidence",
        "sparse",
        "page",
        "boosts",
        "sort",
        "sorted passages",
        "diversity",
        "diverse boosted passages",
    ],
)
def test_legs_and_hits_are_those_of_the_exact_store(
    both: tuple[Searcher, Searcher], options: SearchOptions
) -> None:
    exact, lite = (searcher.search("fish live in salt water", options) for searcher in both)
    assert {name: set(leg) for name, leg in scores(lite).items()} == {
        name: set(leg) for name, leg in scores(exact).items()
    }
    for name, leg in lite.legs.items():
        # Under a filter, Milvus Lite counts how rare a term is among the filtered rows only.
        if options.where is None or leg.leg is not Leg.BM25:
            assert dict(zip(leg.ids, leg.scores, strict=True)) == scores(exact)[name]
    assert [hit.score for hit in lite.hits] == pytest.approx([hit.score for hit in exact.hits], abs=1e-4)
    assert [(hit.passage_id, hit.text) for hit in lite] == [(hit.passage_id, hit.text) for hit in exact]
    assert [hit.fused_rank for hit in lite.hits] == [hit.fused_rank for hit in exact.hits]
    assert {hit.group for hit in lite.hits} == {hit.group for hit in exact.hits}
    for ours, theirs in zip(lite.explanations, exact.explanations, strict=True):
        assert {m.token for m in ours.matches} == {m.token for m in theirs.matches}
        assert ours.boosts == theirs.boosts


def test_similar(both: tuple[Searcher, Searcher]) -> None:
    exact, lite = (searcher.similar("sea") for searcher in both)
    for name, leg in lite.legs.items():
        assert dict(zip(leg.ids, leg.scores, strict=True)) == scores(exact)[name]
    assert "sea" not in {hit.doc_id for hit in lite.hits}


def test_a_query_without_a_lexical_match(both: tuple[Searcher, Searcher]) -> None:
    for searcher in both:
        result = searcher.search("どこにもない言葉")
        assert len(result.hits) == 5
        assert "sparse found nothing" in result.notes[0]


@pytest.mark.parametrize("query", ["salt water in the sea", "the moon", "yeast"])
def test_why_is_as_in_memory(both: tuple[Searcher, Searcher], query: str) -> None:
    """Among others, the scores of single documents are those that they have in the whole leg."""
    memory, lite = (searcher._targets[0] for searcher in both)
    for doc in DOCS:
        for options in ({"k": 1, "depth": 1}, {"k": 2, "mode": "dense"}, {"k": 1, "where": "lang=fr"}):
            sought = Sought(doc.doc_id, **options)
            expected, found = why(memory, query, sought), why(lite, query, sought)
            assert (found.stage, found.rank) == (expected.stage, expected.rank)
            assert found.stage is not Stage.LOST
            if found.repair is not None and found.stage is not Stage.FILTERED:
                assert found.repair.rank is not None
                assert found.repair.rank <= found.k


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_evidence_is_the_same_over_both_stores(lite: MilvusStore, sparse: Any) -> None:
    rng = random.Random(9)
    words = [f"w{i}" for i in range(60)]
    docs = [Doc(f"d{i}", [" ".join(rng.sample(words, 6 + i % 20))]) for i in range(60)]
    exact = Searcher(collection(docs, sparse))
    real = Searcher(collection(docs, sparse, store=lite, name=f"evidence_{sparse}__g1"))
    for _ in range(8):
        query = " ".join(rng.sample(words, 5))
        ours, theirs = (s.search(query, SearchOptions(k=60, explain=True)) for s in (exact, real))
        assert not [note for note in ours.notes if "ranks were fused" in note]
        assert {hit.doc_id: hit.score for hit in theirs.hits} == {
            hit.doc_id: pytest.approx(hit.score, rel=1e-3, abs=1e-4) for hit in ours.hits
        }
        assert theirs.legs["sparse"].trust == ours.legs["sparse"].trust


@pytest.mark.parametrize(
    "query", ['"the sea"', "sea -ships", '"salt water" -moon', 'water -"salt leek"', "-x sea"]
)
@pytest.mark.parametrize("options", [{}, {"passages": True}, {"group_by": "lang"}], ids=str)
def test_phrases_and_exclusions_as_in_memory(
    both: tuple[Searcher, Searcher], query: str, options: dict[str, Any]
) -> None:
    exact, lite = (searcher.search(query, SearchOptions(**options)) for searcher in both)
    assert {hit.passage_id for hit in lite} == {hit.passage_id for hit in exact}
    assert lite.notes == exact.notes
    assert lite.searched == exact.searched


@pytest.mark.parametrize("over", ["found", "filter"])
def test_facets_as_in_memory(both: tuple[Searcher, Searcher], over: Any) -> None:
    options = SearchOptions(facets=["lang"], facets_over=over, where="doc_id!=moon")
    exact, lite = (searcher.search("salt water", options) for searcher in both)
    assert lite.facets == exact.facets
    assert exact.facets["lang"].documents == 4


def test_synonyms_as_in_memory(both: tuple[Searcher, Searcher]) -> None:
    rules = parse_synonyms(["ocean, sea", "ocean => ships"])
    for searcher in both:
        [target] = searcher._targets
        result = Searcher(replace(target, synonyms=rules)).search("ocean", SearchOptions(mode="sparse"))
        assert {hit.doc_id for hit in result} == {"tide", "sea"}
        assert result.searched == "ocean sea ships"
