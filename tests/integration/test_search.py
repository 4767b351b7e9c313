"""Every way to search gives the same result on a server as in the exact store in memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from fakes import FakeEncoder
from integration.conftest import NewIndex
from integration.corpora import LANGUAGES, OpenIndex, documents, in_memory, layout
from integration.engines import Engine

from m3index.errors import FilterError
from m3index.search.result import SearchResult
from m3index.search.synonyms import NONE, parse_synonyms
from m3index.types import Document, Query

pytestmark = pytest.mark.integration

Pair: TypeAlias = tuple[OpenIndex, OpenIndex]
"""An index on the server, and one in memory with the same documents."""

ITEMS = documents(60)
TEXTS = ["the moon pulls the sea", "Ebbe und Flut", "притяжением луны", "潮汐 月球", "القمر", "gelgit", "qqq"]


@pytest.fixture(scope="module")
def filled(engine: Engine, new_index: NewIndex) -> Pair:
    """Two indexes with the same documents, on the server and in memory."""
    index, how = new_index(), layout(engine)
    index.ingest(ITEMS, **how)
    return index, in_memory(ITEMS, how)


@pytest.fixture(scope="module")
def bm25(engine: Engine, new_index: NewIndex) -> Pair:
    engine.needs("bm25")
    how = layout(engine, sparse="bm25", analyzer="stems")
    encoder = FakeEncoder(lexical=False)
    index = new_index(encoder=encoder)
    index.ingest(ITEMS, **how)
    return index, in_memory(ITEMS, how, encoder)


def seen(result: SearchResult) -> list[Any]:
    def near(score: float | None) -> Any:
        return None if score is None else pytest.approx(score, rel=1e-4)

    return [(h.rank, h.doc_id, h.ordinal, near(h.score), near(h.boosted_score)) for h in result.hits]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "dense"},
        {"mode": "sparse"},
        {"mode": "hybrid"},
        {"mode": "hybrid", "weights": {"dense": 0.2, "sparse": 0.8}},
        {"fusion": "minmax"},
        {"fusion": "server"},
        {"passages": True, "k": 20},
        {"group_by": "lang"},
        {"group_by": "year", "mode": "dense"},
        {"page": 3, "k": 7},
        {"page": 2, "k": 10, "passages": True, "mode": "dense"},
        {"boost": ["lang=de: 3", "year: gauss(2010, scale=4, offset=1)", "source=default: 1.5"]},
        {"boost": ["tags=t1: 0.2"], "mode": "dense", "page": 2},
        {"sort": "year:desc", "k": 60},
        {"sort": "lang", "mode": "dense", "page": 2},
        {"diversity": 0.5, "k": 30},
        {"diversity": 0.8, "mode": "dense", "passages": True, "boost": "lang=de: 1.5"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pair", ["filled", "bm25"])
def test_hits_are_those_of_the_exact_store(
    engine: Engine, request: pytest.FixtureRequest, pair: str, options: dict[str, Any]
) -> None:
    if options.get("mode") != "dense":
        engine.needs("lexical")
    if options.keys() & {"group_by", "boost", "sort"}:
        engine.needs("fields")
    server, memory = request.getfixturevalue(pair)
    for text in TEXTS:
        assert seen(server.search(text, **options)) == seen(memory.search(text, **options)), text


@pytest.mark.parametrize("pair", ["filled", "bm25"])
def test_its_index_finds_what_a_scan_finds(request: pytest.FixtureRequest, pair: str) -> None:
    """Small segments are searched exactly, whatever the index is."""
    server, _ = request.getfixturevalue(pair)
    report = server.recall(30, min_recall=0.999)
    assert report.exit == 0
    assert {row.filtered for row in report} == {False, True}


@pytest.mark.parametrize("pair", ["filled", "bm25"])
def test_why_says_the_same(request: pytest.FixtureRequest, pair: str) -> None:
    server, memory = request.getfixturevalue(pair)
    for item in ITEMS[:12]:
        found, expected = (index.why(TEXTS[0], item.doc_id, k=2, depth=5) for index in (server, memory))
        assert (found.stage, found.rank) == (expected.stage, expected.rank), item.doc_id


def test_weights_count_in_the_server_or_on_the_client(engine: Engine, filled: Pair) -> None:
    """`--fusion server` applies only if the server supports weights, and the result is the same."""
    engine.needs("lexical")
    server, memory = filled
    for weights in ({"dense": 1.0, "sparse": 0.05}, {"dense": 0.05, "sparse": 1.0}):
        ours = memory.search(TEXTS[0], weights=weights)
        theirs = server.search(TEXTS[0], weights=weights, fusion="server")
        assert [h.doc_id for h in theirs.hits] == [h.doc_id for h in ours.hits]


def test_server_fusion_with_weights_is_reported(engine: Engine, filled: Pair) -> None:
    engine.needs("weights in RRF")
    version = str(filled[0].store.describe()["version"]).lstrip("v").split(".")
    if (int(version[0]), int(version[1])) < (3, 0):
        pytest.skip("weights in RRF: honoured from Milvus 3.0.1; m3index fuses on the client before")
    notes = filled[0].search(TEXTS[0], weights={"dense": 0.3, "sparse": 0.7}, fusion="server").notes
    assert not any("client" in note for note in notes)


@pytest.mark.parametrize(
    "conditions",
    [
        ["lang=de"],
        ["lang!=en"],
        ["year>=2000", "year<2010"],
        ["tags=t1"],
        ["tags=t1", "lang=ru"],
        ["lang=nothing like it"],
    ],
    ids=str,
)
def test_filters_are_kept_in_every_leg(engine: Engine, filled: Pair, conditions: list[str]) -> None:
    engine.needs("fields", "lexical")
    server, memory = filled
    for mode in ("dense", "sparse", "hybrid"):
        found = server.search(TEXTS[0], where=conditions, mode=mode, k=60)
        assert seen(found) == seen(memory.search(TEXTS[0], where=conditions, mode=mode, k=60))


def test_expressions_of_milvus_and_hostile_values(engine: Engine, filled: Pair) -> None:
    server, memory = filled
    everything = server.search(TEXTS[0], mode="dense", k=60)
    assert len(everything.hits) == 60
    some = server.search(TEXTS[0], mode="dense", k=60, filter='metadata["lang"] == "de"')
    assert {h.doc_id for h in some.hits} == {d.doc_id for d in ITEMS if d.metadata["lang"] == "de"}
    for source in ('" or "" == "', "' or 1 == 1", "\\", "%", "ü\"'"):
        assert server.search(TEXTS[0], mode="dense", source=source).hits == ()
    with pytest.raises(FilterError):
        server.search(TEXTS[0], mode="dense", filter="no_such_field > 1")
    with pytest.raises(FilterError):
        server.search(TEXTS[0], mode="dense", filter="lang ==== 1")
    assert memory.status().documents == server.status().documents


def test_many_queries_at_once_equal_one_by_one(engine: Engine, filled: Pair) -> None:
    server, _ = filled
    mode: Any = "dense" if engine.sparse == "none" else "hybrid"
    queries = [Query(str(i), text) for i, text in enumerate(TEXTS)]
    for result in server.search_many(queries, mode=mode):
        assert seen(result) == seen(server.search(result.query.text, mode=mode))


def test_similar_explain_and_rerank(engine: Engine, filled: Pair) -> None:
    engine.needs("lexical")
    server, memory = filled
    doc_id = ITEMS[7].doc_id
    assert seen(server.similar(doc_id)) == seen(memory.similar(doc_id))
    explained = server.search(TEXTS[0], explain=True)
    assert len(explained.explanations) == len(explained.hits)
    for index in filled:
        reranked = index.search(TEXTS[0], rerank="colbert", k=5)
        assert reranked.hits[0].rerank_score is not None
    assert [h.doc_id for h in server.search(TEXTS[0], rerank="colbert", k=5).hits] == [
        h.doc_id for h in memory.search(TEXTS[0], rerank="colbert", k=5).hits
    ]


UNSPACED = {
    "zh": ("潮汐是月球引力造成的海水涨落", "月球引力"),
    "ja": ("潮の満ち引きは月の引力によって起こる", "月の引力"),
    "ko": ("밀물과 썰물은 달의 중력 때문에 생긴다", "달의 중력"),
    "th": ("น้ำขึ้นน้ำลงเกิดจากแรงดึงดูดของดวงจันทร์", "ดวงจันทร์"),
    "hi": ("ज्वार भाटा चंद्रमा के गुरुत्वाकर्षण से होता है", "चंद्रमा"),
    **{lang: (LANGUAGES[lang], LANGUAGES[lang].split()[0]) for lang in ("en", "de", "ru", "ar", "tr")},
}


def test_bm25_by_the_default_analyzer_finds_words_of_every_script(
    engine: Engine, new_index: NewIndex
) -> None:
    """`icu` on servers, `stems` (folded by the client) on Milvus Lite."""
    engine.needs("bm25")
    index = new_index(encoder=FakeEncoder(lexical=False))
    items = [Document(lang, text) for lang, (text, _) in UNSPACED.items()]
    index.ingest(items, **layout(engine, sparse="bm25", fields={}))
    assert index.current().spec.analyzer == index.store.default_analyzer()
    for lang, (_, word) in UNSPACED.items():
        assert index.search(word, mode="sparse", k=1).hits[0].doc_id == lang, word
        assert index.search(word.upper(), mode="sparse", k=1).hits[0].doc_id == lang
    assert index.search("qqq, zzz! ...", mode="sparse").hits == (), "spaces and punctuation are not words"


def test_servers_analyse_by_icu(engine: Engine, new_index: NewIndex) -> None:
    engine.needs("icu")
    assert new_index().store.default_analyzer() == "icu"


@pytest.mark.parametrize(
    "options", [{}, {"passages": True}, {"group_by": "lang"}, {"where": "lang=en"}], ids=str
)
@pytest.mark.parametrize(
    "query", ['"the moon"', "moon -sea", 'moon -"the sea"', '"潮汐" -x', '"no such phrase"']
)
def test_phrases_and_exclusions(engine: Engine, filled: Pair, query: str, options: dict[str, Any]) -> None:
    mode: Any = "dense" if engine.sparse == "none" else "hybrid"
    server, memory = (index.search(query, mode=mode, **options) for index in filled)
    assert {hit.passage_id for hit in server} == {hit.passage_id for hit in memory}
    assert server.notes == memory.notes


@pytest.mark.parametrize("over", ["found", "filter"])
def test_facets(engine: Engine, filled: Pair, over: Any) -> None:
    mode: Any = "dense" if engine.sparse == "none" else "hybrid"
    fields = list(filled[0].current().spec.fields)
    server, memory = (
        index.search(TEXTS[0], mode=mode, facets=fields, facets_over=over, depth=100) for index in filled
    )
    assert server.facets == memory.facets
    assert all(facet.documents == len(ITEMS) for facet in server.facets.values())


def test_synonyms(engine: Engine, bm25: Pair) -> None:
    engine.needs("bm25")
    for index in bm25:
        index.service.synonyms = parse_synonyms(["zzz => moon"])
        try:
            result = index.search("zzz", mode="sparse")
        finally:
            index.service.synonyms = NONE
        assert result.searched == "zzz moon"
        assert result.hits
