"""A first run that wrote nothing leaves nothing behind that would bind the next one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEncoder
from index.support import SETTINGS, ListCorpus, bad, doc, run
from servers import lite_server

from m3index.errors import Exit, MismatchError, StoreError, UnreachableError
from m3index.index import lock as lock_module
from m3index.index.changes import apply_changes
from m3index.index.collection import find
from m3index.index.sync import sync
from m3index.progress import Silent
from m3index.store.base import Store
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.types import Document, EncodedBatch, IntArray, Rejected

WRONG = replace(SETTINGS, fields={"year": "str"}, max_errors=None)
RIGHT = replace(SETTINGS, fields={"year": "int"})
REMOVED = (
    "Nothing was written, so the new collection 'docs' was removed again. The next run creates it with its "
    "own options."
)


class Warnings(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class FailingEncoder(FakeEncoder):
    def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> EncodedBatch:
        raise StoreError("the device is gone")


class StoppedAtOnce:
    exit = Exit.INTERRUPTED

    def __call__(self) -> bool:
        return True


class BreakingCorpus(ListCorpus):
    def __iter__(self) -> Iterator[Document | Rejected]:
        raise StoreError("the input broke off")


@pytest.fixture(params=["memory", "lite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else MilvusStore.open(str(tmp_path / "m.db"))
    yield store
    store.close()


def check_nothing_is_left(store: Store, reporter: Warnings) -> None:
    assert reporter.warnings[-1] == REMOVED
    assert store.collections() == []
    assert store.resolve("docs") is None
    assert run(store, [doc("a", year=1999)], settings=RIGHT).exit == Exit.OK
    assert find(store, "docs").spec.fields == {"year": "int"}


def test_every_row_rejected(store: Store) -> None:
    reporter = Warnings()
    summary = run(store, [doc("a", year=1999), doc("b", year=2001)], settings=WRONG, reporter=reporter)
    assert (summary.quarantined, summary.store_count) == (2, 0)
    check_nothing_is_left(store, reporter)


def test_an_encoder_that_fails(store: Store) -> None:
    reporter = Warnings()
    with pytest.raises(StoreError, match="the device is gone") as error:
        run(store, [doc("a", year="x")], FailingEncoder(), settings=WRONG, reporter=reporter)
    assert error.value.summary is not None
    check_nothing_is_left(store, reporter)


def test_an_input_that_breaks_off(store: Store) -> None:
    reporter = Warnings()
    with pytest.raises(StoreError, match="the input broke off"):
        sync(store, FakeEncoder(), "docs", BreakingCorpus([]), WRONG, reporter=reporter)
    check_nothing_is_left(store, reporter)


def test_interrupted_before_the_first_row(store: Store) -> None:
    reporter = Warnings()
    summary = run(store, [doc("a", year="x")], settings=WRONG, reporter=reporter, stop=StoppedAtOnce())
    assert summary.exit == Exit.INTERRUPTED
    check_nothing_is_left(store, reporter)


def test_a_feed_without_a_good_row(store: Store) -> None:
    reporter = Warnings()
    apply_changes(store, FakeEncoder(), "docs", [bad("a"), bad()], WRONG, reporter=reporter)
    check_nothing_is_left(store, reporter)


def test_what_was_written_stays(store: Store) -> None:
    reporter = Warnings()
    run(store, [doc("a", year="x"), bad("b")], settings=WRONG, reporter=reporter)
    assert reporter.warnings == []
    with pytest.raises(MismatchError):
        run(store, [doc("a", year=1999)], settings=RIGHT)


def test_the_collection_of_an_empty_corpus_stays(store: Store) -> None:
    reporter = Warnings()
    assert run(store, [], settings=RIGHT, reporter=reporter).exit == Exit.OK
    assert reporter.warnings == []
    assert find(store, "docs").spec.fields == {"year": "int"}


def test_a_collection_of_an_earlier_run_stays_though_it_is_empty(store: Store) -> None:
    run(store, [doc("a")])
    reporter = Warnings()
    assert run(store, [], reporter=reporter).store_count == 0
    assert reporter.warnings == []
    assert store.resolve("docs") == "docs__g1"


def test_a_store_that_does_not_answer_is_not_asked_again() -> None:
    class Gone(FakeEncoder):
        def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> EncodedBatch:
            raise UnreachableError("no answer")

    store, reporter = MemoryStore(), Warnings()
    with pytest.raises(UnreachableError):
        run(store, [doc("a")], Gone(), settings=SETTINGS, reporter=reporter)
    assert store.collections() == ["docs__g1"]
    assert reporter.warnings == []


def test_a_run_on_another_host_that_waits_creates_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own lock folder, and both the server. The second opens the collection that the first
    removes."""
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.2)
    reading, waiting = threading.Event(), threading.Event()

    class Slow(ListCorpus):
        def __iter__(self) -> Iterator[Document | Rejected]:
            reading.set()
            assert waiting.wait(30)
            yield from self.items

    class Waits(MilvusStore):
        """Says when it has found that another run has the lease."""

        def properties(self, name: str) -> dict[str, str]:
            properties = super().properties(name)
            if "expires" in properties.get("lease", ""):
                waiting.set()
            return properties

    with lite_server(tmp_path / "served.db") as uri:
        first, second = MilvusStore.open(uri), Waits.open(uri)
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders[0]))
        reporter = Warnings()
        items = [doc("a", year=1999)]
        run_first = threading.Thread(
            target=lambda: sync(first, FakeEncoder(), "docs", Slow(items), WRONG, reporter=reporter)
        )
        run_first.start()
        assert reading.wait(30)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders[1]))
        fields = replace(SETTINGS, retry_lock="30s")
        summary = sync(second, FakeEncoder(), "docs", ListCorpus(items), fields)
        run_first.join(30)
        assert reporter.warnings[-1] == REMOVED
        assert (summary.exit, summary.added, summary.store_count) == (Exit.OK, 1, 1)
        assert find(second, "docs").spec.fields == {}
        first.close()
        second.close()
