"""Each stage is planted alone, named, and repaired: the repair shows the document among the first hits."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from jsonschema import Draft202012Validator
from search.corpus import Doc, collection

from m3index import Index, schema
from m3index.corpus.quarantine import default_path
from m3index.errors import FilterError, QueryError, UsageError
from m3index.options import changed, options_of
from m3index.search.options import RankingOptions, SearchOptions, Sought
from m3index.search.plan import SearchTarget
from m3index.search.searcher import Searcher
from m3index.search.stages import Repair, Stage, Standing, Why
from m3index.search.synonyms import parse_synonyms
from m3index.search.why import why
from m3index.store.memory import MemoryStore
from m3index.types import Candidate, Leg, passage_key

SCHEMA = Draft202012Validator(schema.load("why.schema.json"))
WORDS = [f"w{i}" for i in range(40)]
QUERY = "w1 w2 w3"


def documents(count: int = 60, seed: int = 3) -> list[Doc]:
    rng = random.Random(seed)
    return [Doc(f"d{i}", [" ".join(rng.choices(WORDS, k=6))]) for i in range(count)]


def asked(target: SearchTarget, doc_id: str, query: str = QUERY, **options: Any) -> Why:
    answer = why(target, query, Sought(doc_id, **options))
    SCHEMA.validate(json.loads(json.dumps(answer.to_json())))
    assert Why.from_json(json.loads(json.dumps(answer.to_json()))) == answer
    assert answer.stage.message.partition("{")[0] in answer.reason
    return answer


def search_options(**options: Any) -> SearchOptions:
    return SearchOptions(**options)


def shown_by(target: SearchTarget, answer: Why, query: str = QUERY, **options: Any) -> bool:
    """Whether the search with nothing but the repair has the document among its hits."""
    assert answer.repair is not None
    repaired = changed(search_options(**options), answer.repair.changes)
    result = Searcher(target).search(answer.repair.query or query, repaired)
    ranks = [hit.rank for hit in result if hit.doc_id == answer.doc_id]
    return ranks == [answer.repair.rank] and ranks[0] <= answer.k


# ----------------------------------------------------------------- the ranking


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "dense=0.9,sparse=0.1"},
        {"mode": "dense"},
        {"mode": "sparse"},
        {"fusion": "minmax"},
        {"fusion": "dbsf"},
        {"fusion": "arctan"},
        {"fusion": "server"},
        {"offset": 2, "k": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_the_repair_of_a_stage_shows_the_document(sparse: Any, options: dict[str, Any]) -> None:
    """Of all documents of a collection, whatever the stage is."""
    target = collection(documents(30), sparse)
    options = {"k": 3, "depth": 6, **options}
    wide = {**options, "k": options["k"] + options.get("offset", 0), "offset": 0}
    hits = {hit.doc_id: hit.rank for hit in Searcher(target).search(QUERY, SearchOptions(**wide))}
    stages: Counter[Stage] = Counter()
    for doc in documents(30):
        answer = asked(target, doc.doc_id, **options)
        stages[answer.stage] += 1
        assert answer.is_found == (doc.doc_id in hits)
        if answer.is_found:
            assert answer.rank == hits[doc.doc_id]
        else:
            assert shown_by(target, answer, **wide), answer
    assert stages[Stage.FOUND] == 3
    assert stages.keys() <= {Stage.FOUND, Stage.DEPTH, Stage.FUSION, Stage.OUTRANKED}
    assert stages[Stage.OUTRANKED]
    assert stages[Stage.FUSION]


def test_beyond_the_depth() -> None:
    target = collection(documents())
    by_depth = [asked(target, doc.doc_id, k=3, depth=3, fusion="rrf") for doc in documents()]
    [answer, *_] = [answer for answer in by_depth if answer.stage is Stage.DEPTH]
    ranks = [leg.rank for leg in answer.legs.values() if leg.rank is not None]
    assert max(ranks) > 3
    assert answer.repair is not None
    assert answer.repair.changes == {"depth": max(r for r in ranks if r <= answer.repair.changes["depth"])}
    assert shown_by(target, answer, k=3, depth=3, fusion="rrf")
    assert f"--depth {answer.repair.changes['depth']}: then it is at rank" in answer.remedy


def test_the_fusion_with_its_votes_and_the_weights_that_help() -> None:
    target = collection(documents(), "bm25")
    answers = [asked(target, doc.doc_id, k=2, weights="dense=0.95,sparse=0.05") for doc in documents()]
    [answer, *_] = [a for a in answers if a.stage is Stage.FUSION and a.legs["sparse"].rank == 1]
    assert answer.repair is not None
    assert answer.repair.changes.keys() == {"weights"}
    assert answer.repair.changes["weights"]["sparse"] > 0.05
    assert "the sparse leg ranks it 1" in answer.reason
    votes = [leg.vote for leg in answer.legs.values() if leg.vote is not None]
    assert f"Its score is {sum(votes):.4g}" in answer.reason
    assert "--weights dense=" in answer.remedy


def test_a_leg_that_was_not_asked_is_a_matter_of_the_fusion() -> None:
    target = collection(documents(), "bm25")
    first = Searcher(target).search(QUERY, SearchOptions(mode="sparse", k=1)).hits[0].doc_id
    answer = asked(target, first, mode="dense", k=1)
    assert (answer.stage, answer.legs["sparse"].asked) == (Stage.FUSION, False)
    assert answer.repair is not None
    assert answer.repair.changes["mode"] == "hybrid"
    assert shown_by(target, answer, mode="dense", k=1)


def test_the_weights_are_those_of_a_fusion_that_is_named() -> None:
    target = collection(documents(), "bm25")
    options = {"k": 2, "weights": "dense=0.95,sparse=0.05"}
    plain = [asked(target, doc.doc_id, **options) for doc in documents()]
    answer = next(a for a in plain if a.stage is Stage.FUSION)
    by_server = asked(target, answer.doc_id, fusion="server", **options)
    assert answer.repair is not None
    assert by_server.repair is not None
    assert by_server.repair.changes == {"fusion": "rrf", **answer.repair.changes}
    assert "--fusion rrf --weights dense=" in by_server.remedy


def test_a_better_query_has_as_few_words_more_as_will_do() -> None:
    target = collection(documents(), "bm25")
    answers = [asked(target, doc.doc_id, k=2) for doc in documents()]
    outranked = [a for a in answers if a.stage is Stage.OUTRANKED]
    for answer in outranked:
        assert answer.repair is not None
        assert answer.repair.query is not None
        words = answer.repair.query.removeprefix(QUERY).split()
        [own] = [doc.passages[0] for doc in documents() if doc.doc_id == answer.doc_id]
        assert 1 <= len(words) <= 6
        assert set(words) <= set(own.split()) - set(QUERY.split())
        assert f"-k {answer.rank} shows it" in answer.remedy or answer.rank is None


def test_copies_that_no_query_can_tell_apart() -> None:
    target = collection([Doc(f"d{i}", ["the same words"]) for i in range(5)])
    found = [asked(target, f"d{i}", "words", k=2) for i in range(5)]
    assert Counter(a.stage for a in found) == {Stage.FOUND: 2, Stage.OUTRANKED: 3}
    assert all(a.repair is None and "-k" in a.remedy for a in found if not a.is_found)


def test_a_collection_without_a_sparse_leg() -> None:
    target = collection(documents(), "none")
    answers = [asked(target, doc.doc_id, k=2) for doc in documents()]
    assert {a.stage for a in answers} == {Stage.FOUND, Stage.OUTRANKED}
    assert all(a.legs.keys() == {"dense"} for a in answers)


class Scores:
    """A reranker with the scores of its texts' first words."""

    name = "scores"

    def __init__(self, best: Callable[[str], float]) -> None:
        self.best = best

    def score(self, query: str, texts: Sequence[str]) -> Any:
        return np.array([self.best(text) for text in texts], np.float32)


def test_by_the_reranker() -> None:
    docs = documents()
    target = collection(docs)
    order = [hit.doc_id for hit in Searcher(target).search(QUERY, SearchOptions(k=40, fusion="rrf"))]
    text_of = {doc.passages[0]: doc.doc_id for doc in docs}
    last_first = Scores(lambda text: float(order.index(text_of[text])))
    options = {"k": 2, "rerank": last_first, "rerank_depth": 20, "fusion": "rrf"}
    answer = asked_with_object(target, order[0], **options)
    assert (answer.stage, answer.fused_rank, answer.rank) == (Stage.RERANKING, 1, 20)
    assert "the reranker puts it at rank 20" in answer.reason
    assert shown_by(target, answer, **options)
    deeper = asked_with_object(target, order[30], **options)
    assert (deeper.stage, deeper.fused_rank, deeper.rank) == (Stage.RERANKING, 31, None)
    assert deeper.repair is not None
    assert deeper.repair.changes["rerank_depth"] == 31
    assert shown_by(target, deeper, **options)
    assert asked_with_object(target, order[19], **options).is_found


def asked_with_object(target: SearchTarget, doc_id: str, **options: Any) -> Why:
    """Without the check as JSON, which has no objects."""
    return why(target, QUERY, Sought(doc_id, **options))


# ------------------------------------------- by what comes after the fusion


def dated(count: int = 60) -> list[Doc]:
    rng = random.Random(4)
    return [replace(doc, fields={"year": rng.choice([None, *range(2000, 2027)])}) for doc in documents(count)]


def dated_collection(docs: Sequence[Doc]) -> SearchTarget:
    return collection(docs, fields={"year": "int"})


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({"boost": ["year: gauss(2026, scale=3)"]}, Stage.BOOSTS),
        ({"boost": ["year: gauss(2026, scale=3)"], "mode": "dense"}, Stage.BOOSTS),
        ({"boost": ["year: gauss(2026, scale=3)", "year>=2020: 2"], "offset": 2, "k": 2}, Stage.BOOSTS),
        ({"sort": "year"}, Stage.SORTING),
        ({"sort": "year:desc", "boost": ["year<2010: 3"]}, Stage.SORTING),
        ({"diversity": 0.7}, Stage.DIVERSITY),
        ({"diversity": 0.7, "boost": ["year>=2010: 1.1"]}, Stage.DIVERSITY),
        ({"diversity": 0.7, "fusion": "server"}, Stage.DIVERSITY),
    ],
    ids=str,
)
def test_by_boosts_a_sort_or_diversity(options: dict[str, Any], stage: Stage) -> None:
    """Of all documents: each that is named so is shown by the repair, and has the rank of a longer list."""
    docs = dated()
    target = dated_collection(docs)
    options = {"k": 4, "depth": 20, "fusion": "rrf", **options}
    wide = {**options, "k": options["k"] + options.get("offset", 0), "offset": 0}
    ranks = {
        hit.doc_id: hit.rank for hit in Searcher(target).search(QUERY, SearchOptions(**{**wide, "k": 20}))
    }
    fused = {
        hit.doc_id: hit.rank
        for hit in Searcher(target).search(
            QUERY, SearchOptions(**{**wide, "k": 20, "boost": None, "sort": None, "diversity": None})
        )
    }
    stages: Counter[Stage] = Counter()
    for doc in docs:
        answer = asked(target, doc.doc_id, **options)
        stages[answer.stage] += 1
        assert answer.is_found == (ranks.get(doc.doc_id, 99) <= wide["k"])
        if doc.doc_id in ranks and (answer.is_found or "diversity" not in options):
            assert answer.rank == ranks[doc.doc_id]
        if doc.doc_id in fused:
            assert answer.fused_rank == fused[doc.doc_id]
        if answer.stage is Stage.SORTING:
            assert answer.repair is not None
            assert answer.repair.changes == {"sort": None}
            assert f"sorted by {options['sort']} it is at rank {answer.rank}." in answer.reason
            assert f"-k {answer.rank} shows it." in answer.remedy
        elif not answer.is_found and answer.repair is not None:
            assert shown_by(target, answer, **wide), answer
    assert stages[stage]
    assert stages[Stage.FOUND] == wide["k"]


def test_the_factors_of_a_document_that_boosts_put_behind() -> None:
    docs = [
        Doc("new", ["red apple"], fields={"year": 2026}),
        Doc("old", ["red apple pie"], fields={"year": 2020}),
    ]
    target = dated_collection(docs)
    options = {"k": 1, "boost": ["year: gauss(2026, scale=3)", "year<2021: 0.5"], "fusion": "rrf"}
    first = Searcher(target).search("apple pie", SearchOptions(k=1, fusion="rrf"))[0]
    assert first.doc_id == "old"
    answer = asked(target, "old", "apple pie", **options)
    assert answer.stage is Stage.BOOSTS
    assert answer.reason == (
        "The fusion puts it at rank 1, but the boosts put it at rank 2. Its factors are 0.0625 by "
        "'year: gauss(2026, scale=3)' and 0.5 by 'year<2021: 0.5'."
    )
    assert answer.remedy == "Search without --boost: then it is at rank 1."
    assert (answer.rank, answer.fused_rank) == (2, 1)


def test_by_the_boosts_after_a_reranker() -> None:
    """All scores of the reranker are below 0."""
    docs = documents()
    target = collection(docs)
    order = [hit.doc_id for hit in Searcher(target).search(QUERY, SearchOptions(k=40, fusion="rrf"))]
    text_of = {doc.passages[0]: doc.doc_id for doc in docs}
    last_first = Scores(lambda text: float(order.index(text_of[text])) - 30)
    boost = f"doc_id={order[18]}: 0.1"
    options = {"k": 3, "rerank": last_first, "rerank_depth": 20, "fusion": "rrf", "boost": [boost]}
    answer = asked_with_object(target, order[18], **options)
    assert answer.reason == (
        f"The reranker puts it at rank 2, but the boosts put it at rank 20. Its factors are 0.1 by {boost!r}."
    )
    assert (answer.stage, answer.rank, answer.fused_rank) == (Stage.BOOSTS, 20, 19)
    assert shown_by(target, answer, **options)
    kept = asked_with_object(target, order[0], **options)
    assert kept.stage is Stage.RERANKING
    assert "the reranker puts it at rank 20" in kept.reason


def test_a_document_beyond_the_depth_is_not_kept_out_by_the_sort() -> None:
    docs = documents(40)
    target = dated_collection([replace(doc, fields={"year": 2000 + i}) for i, doc in enumerate(docs)])
    answers = [asked(target, doc.doc_id, k=3, depth=5, fusion="rrf", sort="year") for doc in docs]
    assert {a.stage for a in answers} > {Stage.FOUND, Stage.SORTING, Stage.DEPTH}
    for answer in answers:
        if answer.stage is Stage.DEPTH:
            assert shown_by(target, answer, k=3, depth=5, fusion="rrf", sort="year")
        if answer.stage is not Stage.SORTING and answer.stage is not Stage.FOUND:
            assert answer.rank is None


class Forgetful(MemoryStore):
    """A store whose dense index misses a document in searches for fewer than `limit` results."""

    def __init__(self, key: str, limit: int) -> None:
        super().__init__()
        self.key, self.limit = key, limit

    def search(self, name: str, leg: Leg, queries: Any, limit: int, *rest: Any) -> list[list[Candidate]]:
        found = super().search(name, leg, queries, limit, *rest)
        if leg is Leg.BM25 or limit >= self.limit:
            return found
        return [[c for c in candidates if c.key != self.key] for candidates in found]


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
@pytest.mark.parametrize("limit", [20, 10**6])
def test_lost_by_the_index(sparse: Any, limit: int) -> None:
    docs = documents()
    exact = collection(docs, sparse)
    options = {"k": 3, "depth": 10, "weights": "dense=1,sparse=0.01"}
    best = Searcher(exact).search(QUERY, SearchOptions(**options)).hits[0]
    key = next(doc.key for doc in docs if doc.doc_id == best.doc_id)
    store = Forgetful(key, limit)
    target = collection(docs, sparse, store=store)
    assert best.doc_id not in [hit.doc_id for hit in Searcher(target).search(QUERY, SearchOptions(**options))]
    answer = asked(target, best.doc_id, **options)
    assert answer.stage is Stage.LOST
    assert "dense leg does not return it, but its exact score gives it rank 1 there" in answer.reason
    assert "verify --recall" in answer.remedy
    if limit == 20:
        assert answer.repair is not None
        assert answer.repair.changes == {"depth": 20}
        assert shown_by(target, answer, **options)
    else:
        assert answer.repair is None
    store.limit = 0  # an index that finds all
    assert asked(target, best.doc_id, **options).is_found


@pytest.mark.parametrize("depth", [10, 100])
def test_a_document_that_the_index_rightly_leaves_out_is_not_lost(depth: int) -> None:
    target = collection(documents())
    for doc in documents():
        assert asked(target, doc.doc_id, k=3, depth=depth).stage is not Stage.LOST


def test_by_its_group() -> None:
    docs = [replace(doc, fields={"lang": "en" if i % 2 else "de"}) for i, doc in enumerate(documents())]
    target = collection(docs, fields={"lang": "str"})
    plain = Searcher(target).search(QUERY, SearchOptions(k=5))
    answers = [asked(target, hit.doc_id, k=5, group_by="lang") for hit in plain]
    stages = Counter(answer.stage for answer in answers)
    assert stages == {Stage.FOUND: 2, Stage.GROUPED: 3}
    for answer in answers:
        if not answer.is_found:
            assert shown_by(target, answer, k=5, group_by="lang")
            assert "ranks higher and has the same lang" in answer.reason
    last = next(d.doc_id for d in docs if d.doc_id not in {hit.doc_id for hit in plain})
    beyond = asked(target, last, k=5, group_by="lang")
    assert beyond.stage in (Stage.FUSION, Stage.OUTRANKED, Stage.DEPTH)
    assert beyond.notes == ("The ranks and the remedy are those of the search without --group-by.",)
    assert shown_by(target, beyond, k=5, group_by="lang")
    assert "None" not in beyond.remedy


# ---------------------------------------------------------- before the ranking


@pytest.fixture
def filtered() -> SearchTarget:
    docs = [
        replace(doc, fields={"lang": "de" if i % 2 else "en", "year": 2000 + i % 10})
        for i, doc in enumerate(documents())
    ]
    return collection(docs, fields={"lang": "str", "year": "int"})


@pytest.mark.parametrize(
    ("where", "named", "left"),
    [
        ("lang=fr", "lang=fr", None),
        (["lang=fr", "year>=2000"], "lang=fr", ["year>=2000"]),
        (["year>=2000", "year<2000", "lang in fr,es"], "year<2000 and lang in fr,es", ["year>=2000"]),
        ({"lang": "fr", "year": [*range(2000, 2010)]}, "lang=fr", {"year": [*range(2000, 2010)]}),
        ({"lang": ["fr", "es"]}, "lang in fr,es", None),
    ],
)
def test_filtered_out_by_a_condition(filtered: SearchTarget, where: Any, named: str, left: Any) -> None:
    best = Searcher(filtered).search(QUERY, SearchOptions(k=1)).hits[0].doc_id
    answer = asked(filtered, best, where=where)
    assert (answer.stage, answer.reason) == (Stage.FILTERED, f"None of its passages meets {named}.")
    assert answer.repair is not None
    assert answer.repair.changes["where"] == left
    assert shown_by(filtered, answer, where=where)
    assert "then it is at rank 1." in answer.remedy


def test_filtered_out_by_conditions_that_no_passage_meets_together() -> None:
    docs = [Doc("long", ["w1 w2", "w3 w4"]), *documents(5)]
    answer = asked(collection(docs), "long", where=["ordinal<1", "ordinal>0"])
    assert answer.reason == "None of its passages meets ordinal<1 and ordinal>0."


def test_a_document_that_meets_the_filter_is_ranked(filtered: SearchTarget) -> None:
    hits = Searcher(filtered).search(QUERY, SearchOptions(k=3, where="lang=de"))
    assert asked(filtered, hits[2].doc_id, k=3, where="lang=de").rank == 3
    with pytest.raises(FilterError, match="no field 'colour'"):
        asked(filtered, "nobody", where="colour=red")
    with pytest.raises(QueryError):
        asked(filtered, "d1", "  ")


def test_another_source() -> None:
    docs = [replace(documents(1)[0], source="news"), *documents()[1:]]
    target = collection(docs)
    answer = asked(target, "d0", docs[0].passages[0], source="wiki")
    assert answer.stage is Stage.SOURCE
    assert answer.reason == "It is in the source 'news', but the search covers the source 'wiki' only."
    assert shown_by(target, answer, docs[0].passages[0], source="wiki")
    assert (answer.source, answer.remedy) == (
        "news",
        "Search with --source news: then it is at rank 1.",
    )


def test_of_several_sources_the_best_document_counts() -> None:
    docs = [Doc("d0", ["other words"], source=name) for name in ("wiki", "books")]
    docs += [Doc("d0", ["w1 w2 w3"], source="news"), *documents()[1:]]
    answer = asked(collection(docs), "d0")
    assert (answer.stage, answer.source) == (Stage.FOUND, "news")
    assert answer.notes == ("There is another document of this id in 'books' and 'wiki'.",)


def test_a_half_written_document() -> None:
    docs = [Doc("long", ["nothing here", "w1 w2 w3", "nor here"]), *documents()]
    target = collection(docs)
    target.store.delete(target.collection, [passage_key(docs[0].key, 1)])
    answer = asked(target, "long", k=1)
    assert answer.stage is Stage.INCOMPLETE
    assert answer.reason.startswith("Only 2 of its 3 passages are stored")
    target.store.drop(target.collection)
    assert asked(collection(docs), "long", k=1).is_found  # written whole
    target = collection(docs)
    target.store.delete(target.collection, [passage_key(docs[0].key, i) for i in (0, 1)])
    assert asked(target, "long", k=1).stage is Stage.INCOMPLETE


@pytest.fixture
def index() -> Iterator[Index]:
    with Index("docs", uri="memory:", encoder=FakeEncoder()) as opened:
        opened.ingest(
            [{"id": f"{org}{i}", "text": f"sea {org} {i}", "org": org} for org in "ab" for i in range(5)],
            tenant_field="org",
        )
        yield opened


def test_absent(index: Index) -> None:
    answer = index.why("sea", "nobody")
    assert (answer.stage, answer.repair) == (Stage.ABSENT, None)
    assert answer.reason == "The collection 'docs' has no document with this id."
    index.ingest([{"id": "nobody", "text": "sea", "org": "a"}])
    assert index.why("sea", "nobody").is_found


def test_another_tenant(index: Index) -> None:
    answer = index.why("sea b 3", "b3", tenant="a")
    assert answer.stage is Stage.TENANT
    assert answer.repair is not None
    assert answer.repair == Repair({"tenant": "b"}, rank=1)
    assert [hit.doc_id for hit in index.search("sea b 3", k=1, tenant="b")] == ["b3"]
    assert index.why("sea b 3", "b3", tenant="b").is_found
    with pytest.raises(UsageError, match="tenant"):
        index.why("sea", "b3", tenant="")


def test_a_confined_answer_says_nothing_of_other_tenants(index: Index) -> None:
    of_b = index._service.why("sea b 3", Sought("b3", tenant="a"), confined=True)
    nobody = index._service.why("sea b 3", Sought("b9", tenant="a"), confined=True)
    assert of_b == replace(nobody, doc_id="b3")
    assert index._service.why("sea a 3", Sought("a3", tenant="a"), confined=True).is_found


def test_another_generation(index: Index) -> None:
    index.reindex(None, keep=1)
    index.delete(["b3"])
    answer = index.why("sea b 3", "b3", k=1)
    assert (answer.stage, answer.repair) == (Stage.GENERATION, Repair(generation=1, rank=1))
    assert "generation 1 of 'docs' only, but generation 2 serves" in answer.reason
    assert "rollback --to 1" in answer.remedy
    index.rollback(1)
    assert index.why("sea b 3", "b3", k=1).is_found


def test_a_generation_that_cannot_serve_or_be_searched(index: Index) -> None:
    index.reindex(None, fields={"org": "str", "year": "int"}, keep=1)
    index.delete(["b3"])
    answer = index.why("sea b 3", "b3", where="year>=2000")
    assert (answer.stage, answer.repair) == (Stage.GENERATION, None)
    index._service.store.set_properties("docs__g1", {"state": "building"})
    assert "wait until that generation is built" in index.why("sea b 3", "b3").remedy


def test_quarantined(index: Index, tmp_path: Path) -> None:
    kept = tmp_path / "bad.jsonl"
    rows = [{"id": "new", "org": "a"}, {"id": "a1", "org": "a"}]
    assert index.ingest(rows, quarantine=str(kept), max_errors="100%").quarantined == 2
    answer = index.why("sea", "new", quarantine=str(kept))
    assert answer.stage is Stage.QUARANTINED
    assert f"{kept}:1" in answer.reason
    assert "text" in answer.reason
    assert index.why("sea", "new").stage is Stage.ABSENT  # no file was named
    [note] = index.why("sea a 1", "a1", quarantine=str(kept)).notes
    assert note.startswith(f"A quarantine file has a row of it too ({kept}:2)")
    index.ingest([{"id": "new", "text": "sea", "org": "a"}])
    assert index.why("sea", "new", quarantine=str(kept)).is_found


def test_the_default_quarantine_files_are_those_of_the_collection(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    rows = [{"id": "new", "org": "a"}]
    for names, place in ((("docs", "news", "t"), "memory:"), (("other", "news"), "memory:")):
        path = default_path(place, *names)
        path.parent.mkdir(parents=True, exist_ok=True)
        index.ingest(rows, quarantine=str(path), max_errors="100%")
    answer = index.why("sea", "new")
    assert (answer.stage, "docs-news-t-" in answer.reason) == (Stage.QUARANTINED, True)
    assert index.why("sea", "new", quarantine="none").stage is Stage.ABSENT
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"broken\.jsonl cannot be read"):
        index.why("sea", "new", quarantine=str(broken))


def test_each_stage_has_one_message() -> None:
    assert len({stage.message for stage in Stage}) == len(Stage)
    assert [stage.value for stage in Stage] == schema.load("why.schema.json")["properties"]["stage"]["enum"]
    assert str(Standing(True, 1.0, 100, rank=1200)) == "ranks it 1,200"
    assert str(Standing(True, 1.0, 100)) == "does not find it"


def test_the_options_are_those_of_a_search() -> None:
    names = [declared.name for declared in options_of(RankingOptions)]
    said = Sought("d1", k=3, where="lang=de", weights="dense=1,sparse=2")
    for name in names:
        assert getattr(said.search, name) == getattr(said, name)


# ------------------------------------------------------- phrases and exclusions

HIVE = [
    Doc("dance", ["honey bees dance", "worker wasps rest"]),
    Doc("apart", ["honey of bees", "the hive"]),
    Doc("parts", ["honey bees", "in the hive"]),
]


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
@pytest.mark.parametrize(
    ("doc_id", "query", "stage", "says", "repaired"),
    [
        ("dance", '"honey bees"', Stage.FOUND, "hit", None),
        ("apart", '"honey bees" hive', Stage.PHRASE, '"honey bees"', "honey bees hive"),
        ("apart", '"honey bees" "the hive"', Stage.PHRASE, '"honey bees"', 'honey bees "the hive"'),
        (
            "parts",
            '"honey bees" "the hive"',
            Stage.PHRASE,
            '"honey bees" and "the hive"',
            "honey bees the hive",
        ),
        ("dance", "honey -wasps", Stage.EXCLUDED, '"wasps"', "honey"),
        (
            "dance",
            'honey -wasps -"worker wasps" -hive',
            Stage.EXCLUDED,
            '"wasps" and "worker wasps"',
            "honey   -hive",
        ),
    ],
)
def test_by_a_phrase_or_an_exclusion(
    sparse: Any, doc_id: str, query: str, stage: Stage, says: str, repaired: str | None
) -> None:
    target = collection(HIVE, sparse)
    answer = asked(target, doc_id, query)
    assert answer.stage is stage
    assert says in answer.reason
    if repaired is not None:
        assert answer.repair is not None
        assert answer.repair.query == repaired
        assert f"Search for {repaired} instead: then it is at rank " in answer.remedy
        assert shown_by(target, answer, query)


def test_with_plain_syntax_nothing_is_left_out() -> None:
    assert asked(collection(HIVE), "dance", "honey -wasps", syntax="plain").stage is Stage.FOUND


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_a_document_that_has_the_phrase_is_ranked_among_those_that_have_it(sparse: Any) -> None:
    docs = [Doc(f"d{n}", [f"honey bees {'wax ' * n}"]) for n in range(12)] + [Doc("no", ["honey wax"])]
    target = collection(docs, sparse)
    shown = [hit.doc_id for hit in Searcher(target).search('"honey bees"', search_options(k=12))]
    answer = asked(target, shown[7], '"honey bees"', k=5)
    assert answer.rank == 8
    assert answer.stage not in (Stage.PHRASE, Stage.LOST)


def test_beyond_what_is_looked_through() -> None:
    docs = [Doc(f"d{n:04}", [f"honey {'bees' if n == 1_100 else 'wax'} {n}"]) for n in range(1_200)]
    target = collection(docs, "none")
    ranking = Searcher(target).search("honey bees", search_options(depth=1_200, k=1)).legs["dense"]
    last = next(doc for doc in docs if doc.key == ranking.ids[-1])
    number = last.passages[0].split()[-1]
    answer = asked(target, last.doc_id, f'honey bees "{number}"')
    assert answer.stage in (Stage.DEPTH, Stage.FOUND)


def test_synonyms_are_those_of_the_search() -> None:
    rules = parse_synonyms(["car, automobile"])
    docs = [Doc("auto", ["an automobile"]), *(Doc(f"d{n}", [f"a stone {n}"]) for n in range(20))]
    for sparse in ("lexical", "bm25"):
        target = replace(collection(docs, sparse), synonyms=rules)  # type: ignore[arg-type]
        answer = asked(target, "auto", "car", mode="sparse")
        assert (answer.stage, answer.rank) == (Stage.FOUND, 1)
        assert answer.legs["sparse"].rank == 1
