from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import (
    ALL,
    INGEST,
    PRUNE,
    SETTINGS,
    VERIFY,
    BrokenEncoder,
    ListCorpus,
    bad,
    by_document,
    doc,
    rows,
    run,
)

from m3index.errors import Exit, UnreachableError
from m3index.index.forecast import plan
from m3index.index.options import SyncOptions
from m3index.index.status import status
from m3index.index.sync import CountingCorpus, sync
from m3index.index.verify import verify
from m3index.index.write import mark
from m3index.progress import Silent
from m3index.store.base import StoredRow
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.store.rows import row_fields, row_of
from m3index.types import Document, Place, Rejected, Row, document_key

GUARDED = SyncOptions(passage_tokens=10, overlap=2)


def threads_of_runs() -> list[str]:
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("m3index")]
    return [name for name in names if name != "m3index-check"]  # of servers in the tests before


class Recorder(Silent):
    def __init__(self) -> None:
        self.rejections: list[Rejected] = []
        self.warnings: list[str] = []

    def rejected(self, rejected: Rejected) -> None:
        self.rejections.append(rejected)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def counts(summary: Any) -> dict[str, int]:
    names = ("added", "updated", "metadata_only", "unchanged", "deleted", "quarantined", "deletes_withheld")
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def writes(store: MemoryStore) -> list[str]:
    made: list[str] = []
    store.fail = made.append
    return made


def test_a_second_ingest_does_nothing() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    corpus = [doc("a", 30), doc("b", 3, "Title", tag="x"), doc("c", 1)]
    first = run(store, corpus, encoder)
    assert counts(first) == {"added": 3}
    assert (first.exit, first.count_ok, first.store_count) == (0, True, first.passages)
    assert first.generation == 1
    assert encoder.encoded == first.passages

    made = writes(store)
    again = run(store, corpus, encoder)
    assert counts(again) == {"unchanged": 3}
    assert encoder.encoded == first.passages
    assert set(made) == {"before set_properties", "after set_properties"}, "no row is written"


def test_each_kind_of_change() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(
        store,
        [doc("same", 20), doc("grows", 3), doc("shrinks", 40), doc("meta", 25, tag="x"), doc("gone", 12)],
    )
    later = [doc("meta", 25, tag="y"), doc("shrinks", 4), doc("grows", 30), doc("same", 20), doc("new", 5)]
    summary = run(store, later, encoder)
    assert counts(summary) == {"added": 1, "updated": 2, "metadata_only": 1, "unchanged": 1, "deleted": 1}
    rebuilt = MemoryStore()
    run(rebuilt, later)
    assert rows(store) == rows(rebuilt)


def test_metadata_is_written_without_the_encoder() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a", 40, tag="x")])
    summary = run(store, [doc("a", 40, tag="y")], encoder)
    assert encoder.encoded == summary.tokens == 0
    assert {row["metadata"]["tag"] for row in rows(store).values()} == {"y"}


class Watched(MilvusStore):
    """A store that remembers which fields are read, and its writes of rows."""

    def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        self.read |= set(fields)
        return super().get(name, passage_ids, fields)

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        self.whole += len(rows)
        super().upsert(name, rows)

    def watch(self) -> None:
        self.read: set[str] = set()
        self.whole = 0


@pytest.mark.parametrize("lexical", [True, False])
def test_a_change_of_metadata_reads_no_text_and_no_vectors(tmp_path: Path, lexical: bool) -> None:
    store, encoder = Watched.open(str(tmp_path / "x.db")), FakeEncoder(lexical=lexical)
    assert isinstance(store, Watched)
    settings = replace(SETTINGS, fields={"year": "int"})
    sizes = {"a": 30, "b": 1, "c": 9}
    store.watch()
    run(store, [doc(i, n, tag="x", year=1) for i, n in sizes.items()], encoder, settings=settings)
    encoded = encoder.encoded
    corpus = [doc(i, n, tag="y", year=None) for i, n in sizes.items()]
    store.watch()
    summary = run(store, corpus, encoder, settings=settings)
    assert counts(summary) == {"metadata_only": 3}
    assert (summary.exit, summary.count_ok, summary.passages) == (Exit.OK, True, summary.passages_kept)
    assert store.read == {"doc_hash", "passages"}
    assert store.whole == 0
    assert encoder.encoded == encoded
    found = verify(store, encoder, "docs", ListCorpus(corpus), VERIFY)
    assert (found.exit, found.differing, found.passages) == (Exit.OK, 0, summary.passages)
    rebuilt = MemoryStore()
    run(rebuilt, corpus, FakeEncoder(lexical=lexical), settings=settings)
    assert rows(store) == rows(rebuilt)

    store.watch()
    summary = run(store, [], encoder, settings=settings)
    assert (summary.deleted, summary.store_count) == (3, 0)
    assert store.whole == 0, "documents are marked before they are removed"
    assert store.read.isdisjoint({"text", "dense", "lexical"})
    store.close()


def test_metadata_change_of_a_document_with_a_lost_passage_is_encoded() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a", 40, tag="x")])
    store.delete("docs__g1", [f"{document_key('default', 'a')}-2"])
    summary = run(store, [doc("a", 40, tag="y")], encoder)
    assert summary.updated == 1
    assert encoder.encoded == summary.passages - summary.passages_kept == 1, "only what was lost"
    assert summary.passages == len(rows(store))


def test_other_passage_settings_encode_again_and_are_kept() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a", 40)])
    assert run(store, [doc("a", 40)], settings=SyncOptions()).unchanged == 1, "those of the collection"
    larger = SyncOptions(passage_tokens=20, overlap=2)
    assert run(store, [doc("a", 40)], encoder, settings=larger).updated == 1
    assert run(store, [doc("a", 40)], settings=SyncOptions()).unchanged == 1


def test_an_omitted_size_is_that_of_the_collection() -> None:
    store = MemoryStore()
    run(store, [doc("a", 40)])
    before = rows(store)
    for sizes in ({"passage_tokens": 10}, {"overlap": 2}):
        assert run(store, [doc("a", 40)], settings=SyncOptions(**sizes)).unchanged == 1, sizes
    assert run(store, [doc("a", 40)], settings=SyncOptions(passages_by="tokens")).unchanged == 1
    assert rows(store) == before
    assert run(store, [doc("a", 40)], settings=SyncOptions(overlap=0)).updated == 1
    assert status(store, "docs").passages == {"tokens": 10, "overlap": 0, "by": "tokens"}
    assert run(store, [doc("a", 40)], settings=SyncOptions(passage_tokens=4)).updated == 1
    assert status(store, "docs").passages == {"tokens": 4, "overlap": 0, "by": "tokens"}


def test_force_encodes_everything() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a", 40), doc("b", 1)])
    before = rows(store)
    summary = run(store, [doc("a", 40), doc("b", 1)], encoder, settings=replace(SETTINGS, force=True))
    assert counts(summary) == {"updated": 2}
    assert encoder.encoded == summary.store_count
    assert rows(store) == before


def test_ingest_never_deletes_and_prune_only_deletes() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a"), doc("b")])
    assert counts(run(store, [doc("c")], settings=INGEST)) == {"added": 1}
    assert counts(run(store, [doc("a", "other"), doc("new")], encoder, settings=PRUNE)) == {"deleted": 2}
    assert encoder.encoded == 0
    assert {row["doc_id"] for row in rows(store).values()} == {"a"}


def test_repeated_id_first_wins() -> None:
    store, recorder = MemoryStore(), Recorder()
    summary = run(store, [doc("a", "first"), doc("a", "second")], reporter=recorder)
    assert counts(summary) == {"added": 1, "quarantined": 1}
    assert summary.exit == Exit.QUARANTINED
    assert [row["text"] for row in rows(store).values()] == ["first"]
    assert recorder.rejections[0].document is not None
    assert recorder.rejections[0].document.text == "second"


def test_a_bad_row_with_an_id_keeps_its_document() -> None:
    store = MemoryStore()
    run(store, [doc("a"), doc("b")])
    summary = run(store, [doc("a"), bad("b")])
    assert counts(summary) == {"unchanged": 1, "quarantined": 1}
    assert (summary.exit, summary.count_ok) == (Exit.QUARANTINED, True)
    assert {row["doc_id"] for row in rows(store).values()} == {"a", "b"}


@pytest.mark.parametrize("items", [[doc("a"), bad("a")], [bad("a"), doc("a")]])
def test_a_good_and_a_bad_row_of_one_id(items: list[Document | Rejected]) -> None:
    store = MemoryStore()
    summary = run(store, items)
    assert counts(summary) == {"added": 1, "quarantined": 1}
    assert summary.count_ok
    assert len(rows(store)) == 1


def test_one_refused_row_does_not_lose_its_neighbours() -> None:
    store, recorder = MemoryStore(), Recorder()
    corpus = [doc(f"d{i}", 12) for i in range(50)]
    corpus[20] = doc("huge", 12, blob="x" * 70_000)
    corpus[30] = doc("half", " ".join(["w"] * 30 + ["nan"]))
    summary = run(store, corpus, BrokenEncoder(), reporter=recorder)
    assert counts(summary) == {"added": 48, "quarantined": 2}
    assert summary.count_ok
    assert {r.doc_id for r in recorder.rejections} == {"huge", "half"}
    assert all(r.reason for r in recorder.rejections)
    assert not {"huge", "half"} & {row["doc_id"] for row in rows(store).values()}, "no half documents"


def test_a_refused_new_version_leaves_the_old_one() -> None:
    store = MemoryStore()
    run(store, [doc("a", 30)])
    before = rows(store)
    summary = run(store, [doc("a", 35, blob="x" * 70_000)])
    assert counts(summary) == {"quarantined": 1}
    assert summary.count_ok
    assert rows(store) == before


def test_declared_fields() -> None:
    store, settings = MemoryStore(), replace(SETTINGS, fields={"year": "int"})
    summary = run(store, [doc("a", year=1999), doc("b", year="no"), doc("c")], settings=settings)
    assert counts(summary) == {"added": 2, "quarantined": 1}
    assert {row["doc_id"]: row["year"] for row in rows(store).values()} == {"a": 1999, "c": None}
    assert run(store, [doc("a", year=2000), doc("c")]).metadata_only == 1
    assert {row["doc_id"]: row["year"] for row in rows(store).values()} == {"a": 2000, "c": None}


# ------------------------------------------------------------------- guards


def many(n: int, start: int = 0) -> list[Document]:
    return [doc(f"d{i}") for i in range(start, start + n)]


def test_at_most_a_tenth_is_deleted_by_default() -> None:
    store, recorder = MemoryStore(), Recorder()
    run(store, many(200))
    summary = run(store, many(179), settings=GUARDED, reporter=recorder)
    assert counts(summary) == {"unchanged": 179, "deletes_withheld": 21}
    assert summary.exit == Exit.DELETES_WITHHELD
    assert summary.count_ok
    assert "--max-delete 21" in recorder.warnings[0]
    assert "last_success" in store.properties("docs__g1"), "of the first run"
    assert run(store, many(180), settings=GUARDED).deleted == 20


def test_ten_documents_can_always_be_deleted() -> None:
    store = MemoryStore()
    run(store, many(12))
    assert run(store, many(2), settings=GUARDED).deleted == 10


def test_new_documents_do_not_raise_the_limit() -> None:
    store = MemoryStore()
    run(store, many(100))
    summary = run(store, [*many(80), *many(1000, start=5000)], settings=GUARDED)
    assert (summary.deleted, summary.deletes_withheld, summary.exit) == (0, 20, 14)


@pytest.mark.parametrize(("limit", "deleted"), [("0", 0), ("4", 0), ("5", 5), ("10%", 5), ("100%", 5)])
def test_max_delete(limit: str, deleted: int) -> None:
    store = MemoryStore()
    run(store, many(20))
    summary = run(store, many(15), settings=replace(GUARDED, max_delete=limit))
    assert summary.deleted == deleted
    assert summary.exit == (0 if deleted else 14)


def test_an_empty_corpus_deletes_nothing_by_default() -> None:
    store = MemoryStore()
    run(store, many(5))
    summary = run(store, [], settings=GUARDED)
    assert (summary.exit, summary.deletes_withheld, summary.store_count) == (14, 5, 5)
    assert run(store, [], settings=replace(GUARDED, max_delete=ALL)).deleted == 5


def test_rows_without_an_id_withhold_deletions_and_win_over_exit_3() -> None:
    store = MemoryStore()
    run(store, many(5))
    summary = run(store, [*many(4), bad()])
    assert (summary.exit, summary.deleted, summary.deletes_withheld, summary.quarantined) == (14, 0, 1, 1)
    assert run(store, [*many(5), bad()]).exit == 3, "there was nothing to withhold"


def test_an_unreadable_file_withholds_deletions() -> None:
    store = MemoryStore()
    run(store, many(5))
    broken = ListCorpus(many(4), read_errors=[Rejected(Place("b.jsonl.gz"), "the gzip data ends too early")])
    summary = sync(store, FakeEncoder(), "docs", broken, SETTINGS)
    assert (summary.exit, summary.deleted, summary.deletes_withheld, summary.quarantined) == (14, 0, 1, 1)


def test_sources_share_a_collection_and_prune_their_own() -> None:
    store = MemoryStore()
    a, b = replace(SETTINGS, source="a"), replace(SETTINGS, source="b")
    run(store, many(10), settings=a)
    assert counts(run(store, many(10), settings=b)) == {"added": 10}
    summary = run(store, many(7), settings=b)
    assert (summary.deleted, summary.store_count, summary.count_ok) == (3, 17, True)
    assert sum(row["source"] == "a" for row in rows(store).values()) == 10


def test_first_sync_of_another_corpus_without_a_source_is_withheld() -> None:
    store = MemoryStore()
    run(store, many(100), settings=INGEST)
    summary = run(store, many(50, start=1000), settings=GUARDED)
    assert (summary.exit, summary.added, summary.deletes_withheld) == (14, 50, 100)


def test_lost_rows_are_drift_and_written_again() -> None:
    store, recorder = MemoryStore(), Recorder()
    corpus = [doc("a", 30), doc("b", 30)]
    run(store, corpus)
    before = rows(store)
    store.delete("docs__g1", [f"{document_key('default', 'a')}-1"])
    summary = run(store, corpus, reporter=recorder)
    assert summary.exit == Exit.DRIFT
    assert "Rows of 1 document were lost" in recorder.warnings[0]
    assert "verify --repair" in recorder.warnings[0]
    assert rows(store) == before
    assert run(store, corpus).exit == Exit.OK


def mixed(store: MemoryStore, ordinal: int) -> None:
    """Leaves a row of another version in the document `a`, as a second writer at the same time can."""
    other = MemoryStore()
    run(other, [doc("a", " ".join(f"other{i}" for i in range(30)))])
    passage_id = f"{document_key('default', 'a')}-{ordinal}"
    spec = other.spec("docs__g1")
    (stored,) = other.get("docs__g1", [passage_id], row_fields(spec)).values()
    store.upsert("docs__g1", [row_of(passage_id, stored, spec)])


@pytest.mark.parametrize("length", [30, 9], ids=["a row between", "a row too many"])
def test_a_document_with_rows_of_two_versions_is_written_again(length: int) -> None:
    store, recorder = MemoryStore(), Recorder()
    corpus = [doc("a", length), doc("b", 30)]
    run(store, corpus)
    before = rows(store)
    mixed(store, 2)
    assert rows(store) != before
    summary = run(store, corpus, reporter=recorder)
    assert (summary.exit, summary.unchanged, summary.count_ok) == (Exit.OK, 2, True)
    assert recorder.warnings[0].startswith("1 document had rows of different versions")
    assert rows(store) == before
    assert not run_warnings(store, corpus)


def test_a_change_of_metadata_does_not_hide_rows_of_two_versions() -> None:
    store, expected = MemoryStore(), MemoryStore()
    run(store, [doc("a", 30)])
    mixed(store, 2)
    assert run(store, [doc("a", 30, year=2000)]).updated == 1, "its vectors are not reused"
    run(expected, [doc("a", 30, year=2000)])
    assert rows(store) == rows(expected)


def test_rows_of_two_versions_and_a_corpus_that_is_read_once() -> None:
    store, recorder = MemoryStore(), Recorder()
    run(store, [doc("a", 30)])
    before = rows(store)
    mixed(store, 2)
    corpus = ListCorpus([doc("a", 30)])
    corpus.repeatable = False
    summary = sync(store, FakeEncoder(), "docs", corpus, SETTINGS, reporter=recorder)
    assert summary.exit == Exit.DRIFT
    assert "could not be written" in recorder.warnings[-1]
    assert (run(store, [doc("a", 30)]).exit, rows(store)) == (Exit.OK, before)


def test_an_unfinished_document_that_is_rejected_now_is_no_drift() -> None:
    store, recorder = MemoryStore(), Recorder()
    settings = replace(SETTINGS, fields={"year": "int"})
    run(store, [doc("a", 30)], settings=settings)
    mark(store, "docs__g1", store.spec("docs__g1"), {document_key("default", "a"): 3})
    summary = run(store, [doc("a", 30, year="no year")], settings=settings, reporter=recorder)
    assert (summary.exit, recorder.warnings) == (Exit.QUARANTINED, [])


def run_warnings(store: MemoryStore, corpus: list[Document]) -> list[str]:
    recorder = Recorder()
    run(store, corpus, reporter=recorder)
    return recorder.warnings


def test_warnings_of_the_database_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    store, recorder = MemoryStore(), Recorder()
    described = {**store.describe(), "warnings": ["a segment was lost."]}
    monkeypatch.setattr(store, "describe", lambda: described)
    run(store, [doc("a")], reporter=recorder)
    assert "a segment was lost." in recorder.warnings[0]
    assert "verify --repair" in recorder.warnings[0]


# ------------------------------------------------------------------- stopping


def test_max_errors_stops_before_deleting() -> None:
    store = MemoryStore()
    run(store, many(5))
    summary = run(store, [bad("x"), bad("y")], settings=replace(SETTINGS, max_errors=1))
    assert (summary.exit, summary.deleted, summary.deletes_withheld) == (17, 0, 0)
    assert run(store, [*many(5), bad("x")], settings=replace(SETTINGS, max_errors=1)).exit == 3


class StopAfter:
    exit = Exit.TERMINATED

    def __init__(self, store: MemoryStore, writes: int) -> None:
        self.left = writes
        store.fail = self

    def __call__(self, moment: str = "") -> bool:
        if moment == "after upsert":
            self.left -= 1
        return self.left <= 0 and not moment


def test_a_stopped_run_commits_its_batch_and_the_next_continues() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    corpus = [doc(f"d{i}", 300) for i in range(60)]
    run(store, [doc("old")])
    summary = run(store, corpus, encoder, stop=StopAfter(store, 3))
    assert summary.exit == 143
    assert 0 < summary.added < 60
    assert (summary.deleted, summary.count_ok) == (0, True)
    first = encoder.encoded
    rest = run(store, corpus, encoder)
    assert (rest.added, rest.unchanged, rest.deleted) == (60 - summary.added, summary.added, 1)
    per_document = (summary.passages + rest.passages) // 60
    assert encoder.encoded - rest.passages == first
    assert first - summary.passages <= 6 * 16 * per_document, "only batches in flight are encoded twice"


def test_a_failed_run_reports_what_it_did() -> None:
    store, calls = MemoryStore(), []

    def fail(moment: str) -> None:
        calls.append(moment)
        if calls.count("after upsert") == 4:
            raise UnreachableError("gone")

    store.fail = fail
    with pytest.raises(UnreachableError) as caught:
        run(store, [doc(f"d{i}", 300) for i in range(60)])
    assert caught.value.summary is not None
    assert 0 < caught.value.summary["added"] < 60
    assert caught.value.summary["exit"] == 20
    assert threads_of_runs() == []


def test_an_error_of_the_encoder_ends_the_run_cleanly() -> None:
    class Failing(FakeEncoder):
        def encode_ids(self, ids: Any, **options: Any) -> Any:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        run(MemoryStore(), [doc("a")], Failing())
    assert threads_of_runs() == []


def test_status() -> None:
    store = MemoryStore()
    run(store, [doc("a", 30), doc("b")])
    state = status(store, "docs")
    assert (state.documents, state.unfinished, state.rows) == (2, 0, len(rows(store)))
    assert (state.generation, state.sparse, state.encoder) == (1, "lexical", "fake")
    assert state.last_success is not None
    assert state.last_verified is None
    assert state.locked_by is None
    assert state.passages == {"tokens": 10, "overlap": 2, "by": "tokens"}


def test_documents_larger_than_a_batch_stay_whole() -> None:
    store = MemoryStore()
    run(store, [doc("long", 20_000), doc("short", 3)])
    documents = by_document(rows(store))
    assert all(d[0]["passages"] == len(d) for d in documents.values())


def test_ids_that_differ_only_in_spelling_are_warned_of() -> None:
    store, reporter = MemoryStore(), Recorder()
    corpus = [doc("é"), doc("b"), doc("e\u0301")]
    for _ in range(2):
        summary = run(store, corpus, reporter=reporter)
        assert summary.exit == Exit.OK
        assert summary.scanned == 3
        assert [w.partition(". ")[0] for w in reporter.warnings] == [
            "1 document has an id that differs from another one only in spelling: '\\xe9' and 'e\\u0301'"
        ]
        reporter.warnings.clear()
    plan(store, FakeEncoder(), "docs", ListCorpus(corpus), SETTINGS, reporter=reporter)
    assert len(reporter.warnings) == 1


class Blocks:
    """A corpus of 100 documents of 10 bytes, read in blocks of 256."""

    bytes_read = 0

    def __iter__(self) -> Iterator[Document]:
        for number in range(100):
            self.bytes_read = min(1_000, -(-(number + 1) * 10 // 256) * 256)
            yield doc(str(number))


def test_bytes_of_documents_that_the_reader_is_ahead_of() -> None:
    corpus = Blocks()
    items = CountingCorpus(corpus)  # type: ignore[arg-type]
    for read, _ in enumerate(items, 1):
        for finished in range(0, read + 1, 7):
            assert abs(items.bytes_of(finished) - finished * 10) <= (30 if read > 26 else finished * 10)
    assert items.bytes_of(100) == 1_000
    assert items.bytes_of(50) == 500
