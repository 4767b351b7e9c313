from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import SETTINGS, ListCorpus, bad, doc, rows, run

from m3index.errors import MismatchError
from m3index.index.forecast import Plan, plan
from m3index.index.settings import SyncSettings
from m3index.store.memory import MemoryStore

COUNTS = (
    "scanned",
    "added",
    "updated",
    "metadata_only",
    "unchanged",
    "deleted",
    "deletes_withheld",
    "quarantined",
)


def forecast(
    store: MemoryStore, items: list[Any], encoder: FakeEncoder | None = None, **options: Any
) -> Plan:
    settings = options.pop("settings", SETTINGS)
    return plan(store, encoder or FakeEncoder(), "docs", ListCorpus(items), settings, **options)


OLD = [doc("same", 20), doc("edited", 20), doc("meta", 20, tag="x"), doc("gone", 20), doc("bad", 3)]
NEW = [
    doc("same", 20),
    doc("edited", 50),
    doc("meta", 20, tag="y"),
    doc("new", 33),
    bad("bad"),
    doc("new", 2),
]


@pytest.mark.parametrize("mode", ["ingest", "sync", "prune"])
def test_says_what_the_run_then_does_and_writes_nothing(mode: Any) -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, OLD)
    before, made = rows(store), []
    store.fail = made.append
    told = forecast(store, NEW, encoder, mode=mode)
    assert not made
    assert encoder.encoded == 0
    assert rows(store) == before
    store.fail = None
    did = run(store, NEW, mode=mode)
    assert {name: getattr(told, name) for name in COUNTS} == {name: getattr(did, name) for name in COUNTS}
    assert (told.tokens, told.exit) == (did.tokens, did.exit)


def test_where_there_is_no_collection_yet() -> None:
    store = MemoryStore()
    told = forecast(store, OLD)
    assert (told.added, told.deleted, told.seconds) == (5, 0, None)
    assert store.collections() == []
    assert told.to_json()["command"] == "plan"


def test_estimates_from_a_sample_and_the_last_rate() -> None:
    store = MemoryStore()
    run(store, [doc(f"d{i}", 100) for i in range(50)])
    later = [doc(f"e{i}", 30) for i in range(600)]
    told = forecast(store, later, mode="ingest")
    did = run(store, later, mode="ingest")
    assert told.tokens == pytest.approx(did.tokens, rel=0.15)
    assert told.passages == pytest.approx(did.passages, rel=0.15)
    assert told.seconds is not None


def test_a_guard_that_would_withhold() -> None:
    store = MemoryStore()
    run(store, [doc(f"d{i}") for i in range(30)])
    told = forecast(store, [doc("d0")], settings=replace(SETTINGS, max_delete=None))
    assert (told.deleted, told.deletes_withheld, told.exit) == (0, 29, 14)


def test_a_run_that_would_be_refused() -> None:
    store = MemoryStore()
    run(store, OLD)
    with pytest.raises(MismatchError):
        forecast(store, NEW, FakeEncoder(space="other"), settings=SyncSettings())
