from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from index.support import SETTINGS, check_invariant, doc, rows, run

from m3index.errors import CollectionNotFoundError, FilterError, UsageError
from m3index.index.changes import ChangeItem, Deletion, apply_changes, plan_changes, read_changes
from m3index.index.delete import delete
from m3index.index.options import DeleteOptions
from m3index.store.filter import Compare, Where
from m3index.store.memory import MemoryStore
from m3index.types import Document, Place, Rejected

NASTY = 'x"] or passage_id in ["'


def stored(store: MemoryStore) -> set[str]:
    return {row["doc_id"] for row in rows(store).values()}


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    settings = replace(SETTINGS, fields={"year": "int"})
    corpus = [
        doc("a", 30, year=1990),
        doc("b", year=1991),
        doc(NASTY, 25, year=1992),
        doc("d", 40, year=1990),
    ]
    run(store, corpus, settings=settings)
    run(store, [doc("a", year=1990)], settings=replace(SETTINGS, source="other"))
    return store


def test_by_id(store: MemoryStore) -> None:
    summary = delete(store, "docs", DeleteOptions(ids=["a", NASTY, "not there", "a"]))
    assert (summary.deleted, summary.count_ok, summary.exit, summary.command) == (2, True, 0, "delete")
    assert {(row["source"], row["doc_id"]) for row in rows(store).values()} == {
        ("default", "b"),
        ("default", "d"),
        ("other", "a"),
    }
    assert summary.store_count == len(rows(store))


def test_by_filter(store: MemoryStore) -> None:
    assert delete(store, "docs", DeleteOptions(where=Compare("year", "==", 1990))).deleted == 2
    assert stored(store) == {"a", "b", NASTY}, "the other source's a stays"


@pytest.mark.parametrize(
    "where",
    ["year=1990", ["year>=1990", "year<1991"], {"year": 1990}, {"year": [1990, 1989]}],
    ids=str,
)
def test_by_condition(store: MemoryStore, where: Where) -> None:
    assert delete(store, "docs", DeleteOptions(where=where)).deleted == 2
    assert stored(store) == {"a", "b", NASTY}, "the other source's a stays"


@pytest.mark.parametrize(
    "selection",
    [{}, {"ids": ["a"], "where": "year=1990"}, {"ids": ["a"], "filter": "year == 1990"}],
    ids=str,
)
def test_documents_are_selected_in_exactly_one_way(selection: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="either by ids or by where"):
        DeleteOptions(**selection)


@pytest.mark.parametrize("where", ["", [], {}, {"year": []}, 7, [7], {"year": None}], ids=str)
def test_an_empty_filter_is_refused(where: Any) -> None:
    with pytest.raises(FilterError):
        DeleteOptions(where=where)


def test_a_field_that_is_not_declared_removes_nothing(store: MemoryStore) -> None:
    before = rows(store)
    with pytest.raises(FilterError, match="no field 'month'"):
        delete(store, "docs", DeleteOptions(where="month=3"))
    assert rows(store) == before


def test_a_filter_that_one_passage_matches_removes_the_whole_document(store: MemoryStore) -> None:
    assert delete(store, "docs", DeleteOptions(where=Compare("ordinal", "==", 2))).deleted == 3
    assert stored(store) == {"b", "a"}
    check_invariant(rows(store))


def test_a_dry_run_writes_nothing(store: MemoryStore) -> None:
    before, made = rows(store), []
    store.fail = made.append
    assert delete(store, "docs", DeleteOptions(ids=["a", "b", "?"], dry_run=True)).deleted == 2
    assert rows(store) == before
    assert not made


def test_an_unknown_collection() -> None:
    with pytest.raises(CollectionNotFoundError):
        delete(MemoryStore(), "docs", DeleteOptions(ids=["a"]))


@given(st.integers(0, 12))
def test_a_crash_during_deletion_is_harmless(fault: int) -> None:
    store, calls = MemoryStore(batch=1), []
    run(store, [doc("a", 30), doc("b", 9), doc("c", 30)])

    def fail(moment: str) -> None:
        calls.append(moment)
        if len(calls) > fault:
            raise InterruptedError

    store.fail = fail
    try:
        delete(store, "docs", DeleteOptions(ids=["a", "b"]))
    except InterruptedError:
        check_invariant(rows(store))
    store.fail = None
    delete(store, "docs", DeleteOptions(ids=["a", "b"]))
    assert stored(store) == {"c"}
    rebuilt = MemoryStore()
    for each in (store, rebuilt):
        run(each, [doc("a", 4), doc("c", 30)])
    assert rows(store) == rows(rebuilt)


# ------------------------------------------------------------------- feeds


def write_feed(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_reads_a_feed(tmp_path: Path) -> None:
    lines = [
        {"op": "upsert", "id": "a", "text": "one", "tag": "x"},
        {"op": "delete", "id": "b"},
        {"id": 3, "text": "no op is an upsert"},
        {"op": "delete"},
        {"op": "rename", "id": "c"},
        "no json",
    ]
    path = write_feed(tmp_path / "feed.jsonl", lines)
    items = list(read_changes(path))
    assert [type(item) for item in items] == [Document, Deletion, Document, Rejected, Rejected, Rejected]
    assert isinstance(items[0], Document)
    assert items[0].metadata == {"tag": "x"}
    assert isinstance(items[1], Deletion)
    assert items[1].doc_id == "b"
    zipped = tmp_path / "feed.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert [type(item) for item in read_changes(zipped)] == [type(item) for item in items]
    with pytest.raises(UsageError, match="Cannot read"):
        list(read_changes(tmp_path / "nowhere.jsonl"))


def test_applies_a_feed_in_order() -> None:
    store, encoder, place = MemoryStore(), FakeEncoder(), Place("feed", 1)
    run(store, [doc("a", 30), doc("b"), doc("c")])
    feed: list[ChangeItem] = [
        doc("new", "first"),
        Deletion("a", place),
        doc("a", 9),
        Deletion("b", place),
        doc("new", "second"),
        doc("gone again"),
        Deletion("gone again", place),
        Rejected(place, "bad"),
        Deletion("never there", place),
    ]
    forecast = plan_changes(store, encoder, "docs", feed, SETTINGS)
    summary = apply_changes(store, encoder, "docs", feed, SETTINGS)
    for count in ("scanned", "added", "updated", "metadata_only", "unchanged", "deleted"):
        assert getattr(forecast, count) == getattr(summary, count), count
    assert (summary.added, summary.updated, summary.deleted, summary.quarantined) == (1, 1, 1, 1)
    assert (summary.scanned, summary.count_ok, summary.exit) == (len(feed), True, 3)
    assert {row["doc_id"]: row["text"] for row in rows(store).values() if row["doc_id"] != "a"} == {
        "c": "some text",
        "new": "second",
    }
    again = apply_changes(store, encoder, "docs", feed, SETTINGS)
    assert (again.added, again.updated, again.deleted, again.unchanged) == (0, 0, 0, 2)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0, 1, 12, 30))), max_size=30),
    st.integers(1, 9),
)
def test_a_feed_equals_its_outcome(operations: list[tuple[str, int]], window: int) -> None:
    """After any feed, the index holds the last state of each document (0 words: deleted)."""
    import m3index.index.plan as plan

    store, rebuilt = MemoryStore(), MemoryStore()
    feed = [doc(i, n) if n else Deletion(i, Place("feed", 1)) for i, n in operations]
    old, plan.WINDOW_DOCUMENTS = plan.WINDOW_DOCUMENTS, window
    try:
        summary = apply_changes(store, FakeEncoder(), "docs", feed, SETTINGS)
    finally:
        plan.WINDOW_DOCUMENTS = old
    assert summary.count_ok
    run(rebuilt, [doc(i, n) for i, n in dict(operations).items() if n])
    assert rows(store) == rows(rebuilt)
