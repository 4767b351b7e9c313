from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import INGEST, PRUNE, SETTINGS, ListCorpus, bad, doc, rows, run

from m3index.errors import MismatchError
from m3index.index.forecast import plan
from m3index.index.options import IngestOptions, SyncOptions
from m3index.index.summary import Summary
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
) -> Summary:
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


@pytest.mark.parametrize("settings", [INGEST, SETTINGS, PRUNE], ids=lambda settings: settings.mode)
def test_the_forecast_matches_the_run_and_writes_nothing(settings: IngestOptions) -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, OLD)
    before, made = rows(store), []
    store.fail = made.append
    predicted = forecast(store, NEW, encoder, settings=settings)
    assert not made
    assert encoder.encoded == 0
    assert rows(store) == before
    store.fail = None
    actual = run(store, NEW, settings=settings)
    assert {name: getattr(predicted, name) for name in COUNTS} == {
        name: getattr(actual, name) for name in COUNTS
    }
    assert (predicted.tokens, predicted.exit) == (actual.tokens, actual.exit)
    assert (predicted.command, predicted.dry_run) == (actual.command, True)
    assert (actual.command, actual.dry_run) == (settings.mode, False)


def test_a_forecast_without_a_collection() -> None:
    store = MemoryStore()
    predicted = forecast(store, OLD)
    assert (predicted.added, predicted.deleted, predicted.seconds) == (5, 0, None)
    assert store.collections() == []
    assert {name: predicted.to_json()[name] for name in ("command", "dry_run")} == {
        "command": "sync",
        "dry_run": True,
    }


def test_estimates_from_a_sample_and_the_last_rate() -> None:
    store = MemoryStore()
    run(store, [doc(f"d{i}", 100) for i in range(50)])
    later = [doc(f"e{i}", 30) for i in range(600)]
    predicted = forecast(store, later, settings=INGEST)
    actual = run(store, later, settings=INGEST)
    assert predicted.tokens == pytest.approx(actual.tokens, rel=0.15)
    assert predicted.passages == pytest.approx(actual.passages, rel=0.15)
    assert predicted.seconds is not None


def test_a_forecast_of_withheld_deletions() -> None:
    store = MemoryStore()
    run(store, [doc(f"d{i}") for i in range(30)])
    predicted = forecast(store, [doc("d0")], settings=replace(SETTINGS, max_delete=None))
    assert (predicted.deleted, predicted.deletes_withheld, predicted.exit) == (0, 29, 14)


def test_a_forecast_of_a_refused_run() -> None:
    store = MemoryStore()
    run(store, OLD)
    with pytest.raises(MismatchError):
        forecast(store, NEW, FakeEncoder(space="other"), settings=SyncOptions())
