"""`verify --recall`: an exact index has a recall of 1, a planted loss is measured, and the gate sees it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import Doc, collection
from terminal import write_jsonl

from m3index import GateError, Index, UsageError
from m3index.errors import Exit, FilterError
from m3index.evaluate.exact import Ask, can_scan, scan
from m3index.evaluate.options import RecallOptions
from m3index.evaluate.recall import IndexRecall, RecallReport, measure, recall_at
from m3index.index.metrics import render
from m3index.schema import CollectionSpec, IndexChoice
from m3index.search.fusion import Ranking
from m3index.search.legs import LegScope, retrieve
from m3index.search.plan import SearchTarget, stored_vector
from m3index.store.filter import Compare
from m3index.store.memory import MemoryStore
from m3index.types import JOINED, Candidate, Leg

WORDS = [f"w{i}" for i in range(60)]
FIELDS: Mapping[str, Any] = {"lang": "str", "year": "int"}


def documents(count: int = 200, seed: int = 5) -> list[Doc]:
    """Of one to four passages."""
    rng = random.Random(seed)
    return [
        Doc(
            f"d{i}",
            [" ".join(rng.choices(WORDS, k=8)) for _ in range(rng.randint(1, 4))],
            title=rng.choice(["", "w1 title"]),
            fields={"lang": rng.choice(["en", "de", "fr"]), "year": rng.choice([2001, 2002, None])},
        )
        for i in range(count)
    ]


class Losing(MemoryStore):
    """A store whose dense index does not find every nth document."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.nth = nth

    def search(self, name: str, leg: Leg, queries: Any, limit: int, *rest: Any) -> list[list[Candidate]]:
        if leg is not Leg.DENSE:
            return super().search(name, leg, queries, limit, *rest)
        found = super().search(name, leg, queries, 10_000, *rest)
        return [[c for c in candidates if int(c.key[:8], 16) % self.nth][:limit] for candidates in found]


def indexed(sparse: Any = "lexical", store: MemoryStore | None = None, count: int = 200) -> SearchTarget:
    target = collection(documents(count), sparse, store=store, fields=FIELDS)
    return replace(target, spec=target.store.spec(target.collection))


def by_name(report: RecallReport) -> dict[tuple[str, int, bool], IndexRecall]:
    return {(row.leg, row.at, row.filtered): row for row in report}


# ------------------------------------------------------------- exact rankings


@pytest.mark.parametrize("leg", list(Leg))
@pytest.mark.parametrize("depth", [1, 7, 500])
def test_a_scan_ranks_as_an_exact_store_does(leg: Leg, depth: int) -> None:
    target = indexed("bm25" if leg is Leg.BM25 else "lexical")
    store, name, spec = target.store, target.collection, target.spec
    rows = list(store.scan(name, None, ["dense", "lexical", *JOINED]))[:20]
    vectors = [stored_vector(row, leg) for row in rows]
    own = [Compare("lang", "==", "de") if i % 2 else None for i in range(len(rows))]
    scanned = scan(store, name, spec, leg, [Ask(v, c) for v, c in zip(vectors, own, strict=True)], depth)
    for vector, condition, ranking in zip(vectors, own, scanned, strict=True):
        [expected] = retrieve(store, name, leg, condition, [vector], LegScope(depth=depth))
        assert ranking.scores == pytest.approx(expected.scores, rel=1e-5)
        assert ranking.leg == expected.leg
        if len(set(np.round(expected.scores, 4))) == len(expected):  # nothing ties but for rounding
            assert (ranking.ids, ranking.passages) == (expected.ids, expected.passages)


def test_the_statistics_of_bm25_are_those_of_all_rows() -> None:
    target = indexed("bm25")
    where = Compare("lang", "==", "de")
    [ranking] = scan(target.store, target.collection, target.spec, Leg.BM25, [Ask("w1 w2")], 10, where)
    [expected] = retrieve(target.store, target.collection, Leg.BM25, where, ["w1 w2"], LegScope(depth=10))
    assert ranking.scores == pytest.approx(expected.scores, rel=1e-5)
    assert can_scan(target.spec, Leg.BM25)
    assert not can_scan(CollectionSpec(4, "bm25", analyzer="icu"), Leg.BM25)


def ranking(**scores: float) -> Ranking:
    return Ranking(tuple(scores), tuple(scores.values()), tuple(f"{name}-0" for name in scores))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ranking(a=9, b=8), 1.0),
        (ranking(b=8, a=9), 1.0),
        (ranking(a=9, x=1), 0.5),
        (ranking(a=9, c=8), 1.0),  # c ties with b
        (ranking(x=2, y=1), 0.0),
        (ranking(), 0.0),
    ],
)
def test_recall_counts_documents_and_ties(found: Ranking, expected: float) -> None:
    assert recall_at(found, ranking(a=9.0, b=8.0, c=8.0, d=7.0), 2, 1e-4) == expected
    assert recall_at(found, Ranking(), 2, 1e-4) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 30), unique=True, max_size=12),
    st.lists(st.integers(0, 30), unique=True, max_size=12),
)
def test_recall_is_a_share(found: list[int], exact: list[int]) -> None:
    def of(numbers: Sequence[int]) -> Ranking:
        ids = tuple(f"d{n}" for n in numbers)
        return Ranking(ids, tuple(float(20 - i) for i in range(len(ids))), ids)

    for k in (1, 5, 20):
        share = recall_at(of(found), of(exact), k, 1e-9)
        if not exact:
            assert share is None
        else:
            assert share == len(set(found[:k]) & set(exact[:k])) / min(k, len(exact))


# ------------------------------------------------------------------ the index


@pytest.mark.parametrize("sparse", ["lexical", "bm25", "none"])
def test_an_exact_index_finds_all(sparse: Any) -> None:
    report = measure(indexed(sparse), 40, RecallOptions())
    rows = by_name(report)
    legs = {"dense"} if sparse == "none" else {"dense", "sparse", "fused"}
    assert {leg for leg, _, _ in rows} == legs
    assert {filtered for _, _, filtered in rows} == {False, True}
    assert {at for leg, at, _ in rows if leg == "dense"} == {10, 100}
    for row in report:
        assert (row.mean, row.high, row.asked) == (1.0, 1.0, "passages")
        assert row.low > 0.85
        assert 30 <= row.queries <= 40
    assert (report.exit, report.indexes["dense"]) == (Exit.OK, "exact")
    report.raise_for_recall()


def test_a_planted_loss_is_measured() -> None:
    target = indexed(store=Losing(5))
    lost = sum(int(d.key[:8], 16) % 5 == 0 for d in documents()) / 200
    assert 0.1 < lost < 0.3
    report = measure(target, 150, RecallOptions(min_recall=0.95))
    rows = by_name(report)
    for filtered in (False, True):
        dense = rows["dense", 10, filtered]
        assert dense.low <= 1 - lost <= dense.high
        assert dense.high - dense.low < 0.15
        assert rows["sparse", 10, filtered].mean == 1.0
        assert 0.5 < rows["fused", 10, filtered].mean < 1.0
    assert report.exit == Exit.GATE
    assert {row.leg for row in report.failed} >= {"dense"}
    with pytest.raises(GateError, match=r"finds too little: dense 0"):
        report.raise_for_recall()


def test_the_sample_stays_the_same() -> None:
    target = indexed(store=Losing(7))
    assert measure(target, 10, RecallOptions()).rows == measure(target, 10, RecallOptions()).rows
    assert measure(target, 10, RecallOptions()).rows != measure(target, 11, RecallOptions()).rows
    small = indexed(count=20)
    everything = measure(small, 10_000, RecallOptions())
    assert by_name(everything)["dense", 10, False].queries == small.store.count(small.collection)


def test_a_filter_of_the_user_is_that_of_all_queries() -> None:
    target = indexed(store=Losing(5))
    report = measure(target, 30, RecallOptions(where="lang=de"))
    wanted = by_name(report)["dense", 100, True]
    assert wanted.queries == 30
    of_one = measure(target, 30, RecallOptions(where="lang=xx"))
    assert {row.filtered for row in of_one} == {False}, "nothing to find with the filter"
    with pytest.raises(FilterError, match="colour"):
        measure(target, 30, RecallOptions(where="colour=red"))


def test_without_declared_fields_the_filter_is_the_ordinal() -> None:
    target = collection([replace(doc, fields={}) for doc in documents(60)], "lexical")
    assert {row.filtered for row in measure(target, 20, RecallOptions())} == {False, True}


def test_queries_of_a_file(tmp_path: Path) -> None:
    queries = write_jsonl(
        tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": f"w{i} w{i + 1}"} for i in range(25)]
    )
    report = measure(indexed("bm25"), 10, RecallOptions(queries=str(queries), recall_k=5))
    asked = {row.asked: row for row in report if (row.leg, row.at, row.filtered) == ("dense", 5, False)}
    assert {name: row.queries for name, row in asked.items()} == {"passages": 10, "queries": 25}
    assert all(row.mean == 1.0 for row in report)


def test_words_that_only_the_server_knows_are_not_measured() -> None:
    target = indexed("bm25")
    spec = CollectionSpec(target.spec.dim, "bm25", FIELDS, analyzer="icu")
    report = measure(SearchTarget(target.store, target.collection, spec, target.encoder), 20, RecallOptions())
    assert {row.leg for row in report} == {"dense", "fused"}
    [note] = report.notes
    assert "only the server has the words of its analyzer 'icu'" in note


def test_the_type_of_an_index_follows_from_its_class() -> None:
    assert IndexChoice().dense_type == "HNSW"
    assert IndexChoice.parse("large", ["dense.type=HNSW_SQ"]).dense_type == "HNSW_SQ"
    assert IndexChoice.parse("huge").dense_type == "DISKANN"


# ------------------------------------------------------------------- the doors


@pytest.fixture
def index() -> Any:
    with Index("docs", uri="memory:", encoder=FakeEncoder()) as opened:
        opened.ingest(
            [{"id": f"{org}{i}", "text": f"sea {org} {i}", "org": org} for org in "ab" for i in range(20)],
            tenant_field="org",
        )
        yield opened


def test_of_an_index(index: Index) -> None:
    report = index.recall(15, min_recall=0.99)
    assert (report.collection, report.generation, report.exit) == ("docs", 1, 0)
    assert by_name(index.recall(100, tenant="a"))["dense", 10, False].queries == 20
    assert by_name(index.recall(100))["dense", 10, False].queries == 40
    for wrong in (0, -1, "5", 2.5, None):
        with pytest.raises(UsageError, match="passages takes a whole number"):
            index.recall(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="min_recall takes a number from 0 to 1"):
        index.recall(5, min_recall=95)
    with pytest.raises(UsageError, match="no passages to measure with"):
        index.recall(5, source="nothing")


def test_an_index_without_a_loaded_model(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored passages have their vectors."""

    def refused() -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(index._service, "encoder", refused)
    assert index.recall(5).exit == 0


def test_metrics(index: Index) -> None:
    record = {**index.recall(15).to_json(), "command": "verify"}
    lines = render(record, 1.0, None).splitlines()
    labels = 'collection="docs",command="verify",leg="dense",at="10",filter="no",asked="passages"'
    assert f"m3index_recall{{{labels}}} 1.0" in lines
    names = [text.partition("{")[0] for text in lines if text.startswith("m3index_recall")]
    assert set(names) == {"m3index_recall", "m3index_recall_low", "m3index_recall_high"}
    assert sum(text.startswith("# TYPE m3index_recall ") for text in lines) == 1
