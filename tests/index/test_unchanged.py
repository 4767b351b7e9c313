"""A night in which the files are byte for byte what they were ends without comparing documents, and never
when the rows may be others than those of the last run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index.support import INGEST, SETTINGS, VERIFY, by_document, doc, rows, run
from index.test_sync import Recorder

from m3index.corpus.mapping import FieldMapping
from m3index.corpus.readers import FileCorpus, read
from m3index.errors import Exit
from m3index.index import unchanged
from m3index.index.changes import apply_changes, read_changes
from m3index.index.collection import Collection, find
from m3index.index.delete import delete
from m3index.index.options import DeleteOptions, IngestOptions, Never
from m3index.index.summary import Summary
from m3index.index.sync import Run, sync
from m3index.index.unchanged import COMPARED_EVERY
from m3index.index.verify import verify
from m3index.store.memory import MemoryStore

EARLY = "byte for byte"


class Nights:
    """A folder of files, a store, and the runs over them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.encoder = folder, MemoryStore(), FakeEncoder()
        self.notes: list[str] = []

    def put(self, name: str, **texts: str) -> None:
        lines = [json.dumps({"id": doc_id, "text": text}) + "\n" for doc_id, text in texts.items()]
        (self.folder / name).write_text("".join(lines))

    def corpus(self, mapping: FieldMapping | None = None) -> FileCorpus:
        return read([self.folder], mapping or FieldMapping())

    def sync(self, options: IngestOptions = SETTINGS, corpus: FileCorpus | None = None) -> Summary:
        reporter = Recorder()
        self.notes.clear()
        reporter.note = self.notes.append  # type: ignore[method-assign]
        return sync(self.store, self.encoder, "docs", corpus or self.corpus(), options, reporter=reporter)

    def opened(self) -> Collection:
        """The collection without a record."""
        self.sync()
        unchanged.forget(self.store, find(self.store, "docs").name, None)
        return find(self.store, "docs")

    def over(self, target: Collection) -> None:
        options = replace(SETTINGS, thorough=True)
        Run(self.store, self.encoder, target, options, Recorder(), Never(), None).over(self.corpus())

    def is_recorded(self) -> bool:
        properties = find(self.store, "docs").properties
        return unchanged.recorded(properties, SETTINGS.source) is not None

    @property
    def ended_early(self) -> bool:
        return any(EARLY in note for note in self.notes)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = Nights(tmp_path)
    nights.put("a.jsonl", one="the quick brown fox", two="a lazy dog " * 9)
    nights.put("b.jsonl", three="a book about search")
    return nights


def test_the_second_night_reads_no_document(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nights.sync()
    assert not nights.ended_early
    monkeypatch.setattr(FileCorpus, "__iter__", lambda _: pytest.fail("the corpus was read"))
    second = nights.sync()
    assert nights.ended_early
    assert (second.scanned, second.unchanged, second.exit) == (3, 3, Exit.OK)
    assert (second.store_count, second.count_ok) == (first.store_count, True)
    assert (second.added, second.updated, second.deleted, second.tokens) == (0, 0, 0, 0)


def test_every_seventh_night_compares_the_documents(nights: Nights) -> None:
    nights.sync()
    early = []
    for _ in range(2 * COMPARED_EVERY):
        nights.sync()
        early.append(nights.ended_early)
    assert early == 2 * ([True] * (COMPARED_EVERY - 1) + [False])


@pytest.mark.parametrize("change", ["thorough", "force", "removals_only"])
def test_options_that_compare_documents_all_the_same(nights: Nights, change: str) -> None:
    nights.sync()
    nights.sync(replace(SETTINGS, **{change: True}))
    assert not nights.ended_early


def test_other_bytes_names_and_files(nights: Nights) -> None:
    nights.sync()
    for change in (
        lambda: nights.put("b.jsonl", three="another book about search"),
        lambda: nights.put("c.jsonl", four="one more"),
        lambda: (nights.folder / "c.jsonl").rename(nights.folder / "d.jsonl"),
        lambda: (nights.folder / "d.jsonl").unlink(),
        lambda: nights.put("b.jsonl", three="a book about search"),
    ):
        change()
        nights.sync()
        assert not nights.ended_early
        nights.sync()
        assert nights.ended_early


def test_a_touched_file_is_the_same(nights: Nights) -> None:
    nights.sync()
    os.utime(nights.folder / "a.jsonl", (1, 1))
    nights.sync()
    assert nights.ended_early


def test_a_touched_document_has_another_date(nights: Nights) -> None:
    (nights.folder / "note.txt").write_text("a note")
    nights.sync()
    nights.sync()
    assert nights.ended_early
    os.utime(nights.folder / "note.txt", (1, 1))
    assert nights.sync().metadata_only == 1
    assert not nights.ended_early


def test_what_had_to_be_read_to_be_skipped_is_told_every_night(nights: Nights) -> None:
    (nights.folder / "settings.json").write_text('{"colour": "blue"}')
    for _ in range(2):
        assert sum(nights.sync().skipped.values()) == 1
        assert not nights.ended_early


def test_another_mapping_or_other_passages(nights: Nights) -> None:
    nights.sync()
    nights.sync(corpus=nights.corpus(FieldMapping.named(title="heading")))
    assert not nights.ended_early
    nights.sync(replace(SETTINGS, passage_tokens=6))
    assert not nights.ended_early


def test_another_version_of_the_program(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.sync()
    monkeypatch.setattr("m3index.__version__", "99.0", raising=False)
    nights.sync()
    assert not nights.ended_early


def test_a_file_that_changes_during_the_run_is_compared_in_the_next(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is that of the old bytes, its rows are those of the new ones; then the old bytes return."""
    old = (nights.folder / "b.jsonl").read_bytes()
    read_all = FileCorpus.__iter__

    def changing(corpus: FileCorpus) -> object:
        nights.put("b.jsonl", three="bytes that were there for a moment only")
        return read_all(corpus)

    with monkeypatch.context() as patched:
        patched.setattr(FileCorpus, "__iter__", changing)
        nights.sync()
    (nights.folder / "b.jsonl").write_bytes(old)
    nights.sync()
    assert not nights.ended_early
    assert by_document(rows(nights.store)) == by_document(rebuilt(nights))


def test_rows_that_are_rejected_are_told_every_night(nights: Nights) -> None:
    with (nights.folder / "a.jsonl").open("a") as file:
        file.write("no JSON\n")
    for _ in range(2):
        assert nights.sync().exit == Exit.QUARANTINED
        assert not nights.ended_early


def test_what_was_skipped_is_told_every_night(nights: Nights) -> None:
    (nights.folder / "picture.png").write_bytes(b"x")
    nights.sync()
    nights.sync()
    assert nights.ended_early
    assert any("picture.png" in note for note in nights.notes)
    assert sum(nights.sync().skipped.values()) == 1


def test_lost_rows_are_noticed(nights: Nights) -> None:
    nights.sync()
    name = nights.store.resolve("docs")
    assert name
    passage = next(iter(nights.store.scan(name, None, ["ordinal"])))["passage_id"]
    nights.store.delete(name, [passage])
    nights.sync()
    assert not nights.ended_early


def test_other_sources_do_not_matter(nights: Nights, tmp_path_factory: pytest.TempPathFactory) -> None:
    nights.sync()
    other = tmp_path_factory.mktemp("other") / "o.jsonl"
    for count in (1, 2, 2):
        rows = [json.dumps({"id": str(i), "text": "of another source"}) + "\n" for i in range(count)]
        other.write_text("".join(rows))
        nights.sync(replace(SETTINGS, source="other"), read([other]))
        nights.sync()
        assert nights.ended_early
    nights.sync(replace(SETTINGS, source="other"), read([other]))
    assert nights.ended_early


def rebuilt(nights: Nights) -> dict[str, dict[str, Any]]:
    store = MemoryStore()
    sync(store, FakeEncoder(), "docs", nights.corpus(), SETTINGS)
    return rows(store)


# Each leaves as many rows as there were, so that counting them tells nothing.
def ingest_others(nights: Nights, folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"id": "one", "text": "from elsewhere"}\n')
    sync(nights.store, nights.encoder, "docs", read([folder / "x.jsonl"]), INGEST)


def apply_feed(nights: Nights, folder: Path) -> None:
    (folder / "feed.jsonl").write_text('{"id": "one", "text": "changed by a feed"}\n')
    apply_changes(nights.store, nights.encoder, "docs", read_changes(folder / "feed.jsonl"), SETTINGS)


def delete_one(nights: Nights, folder: Path) -> None:
    delete(nights.store, "docs", DeleteOptions(ids=["three"]))
    sync(nights.store, nights.encoder, "docs", read([nights.folder / "b.jsonl"]), INGEST)


def repair(nights: Nights, folder: Path) -> None:
    """The verified corpus has another text for one of the documents, and the others as they are."""
    for file in nights.folder.iterdir():
        (folder / file.name).write_text(file.read_text().replace("quick brown", "slow grey"))
    verify(nights.store, nights.encoder, "docs", read([folder]), replace(VERIFY, repair=True))


def crash(nights: Nights, folder: Path) -> None:
    """A run over another corpus that ends after its first rows."""
    (folder / "z.jsonl").write_text('{"id": "two", "text": "written before the crash"}\n')

    def fail(step: str) -> None:
        if step == "after upsert":
            raise KeyboardInterrupt

    nights.store.fail = fail
    try:
        with pytest.raises(KeyboardInterrupt):
            sync(nights.store, nights.encoder, "docs", read([folder / "z.jsonl"]), INGEST)
    finally:
        nights.store.fail = None


WRITERS = (ingest_others, apply_feed, delete_one, repair, crash)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights_of=st.lists(st.lists(st.sampled_from(WRITERS), max_size=2), min_size=1, max_size=4))
def test_whatever_writes_in_between_the_rows_are_those_of_the_corpus(
    tmp_path_factory: pytest.TempPathFactory, nights_of: list[list[Callable[[Nights, Path], None]]]
) -> None:
    nights = Nights(tmp_path_factory.mktemp("corpus"))
    nights.put("a.jsonl", one="the quick brown fox", two="a lazy dog " * 9)
    nights.put("b.jsonl", three="a book about search")
    nights.sync()
    expected = by_document(rebuilt(nights))
    for writers in nights_of:
        for change in writers:
            change(nights, tmp_path_factory.mktemp("others"))
        assert nights.sync().exit == Exit.OK
        assert nights.ended_early == (not writers)
        assert by_document(rows(nights.store)) == expected


def test_a_record_goes_however_long_ago_the_collection_was_opened(nights: Nights) -> None:
    """A reindex goes over the corpus twice with one collection, as it was when it was opened."""
    target = nights.opened()
    nights.over(target)
    assert nights.is_recorded()
    with (nights.folder / "a.jsonl").open("a") as file:
        file.write("no JSON\n")
    nights.over(target)
    assert not nights.is_recorded()


def test_sources_and_tenants_are_apart() -> None:
    store = MemoryStore()
    run(store, [doc("one")])
    name = store.resolve("docs")
    assert name
    record = unchanged.UnchangedCorpus("d", 1, 1, 1)
    for scope in ("wiki", "wiki\nacme", "wiki\nother", "wikipedia"):
        store.set_properties(name, unchanged.with_record(store.properties(name), scope, record))

    def left(*forgotten: str) -> set[str]:
        unchanged.forget(store, name, forgotten)
        return set(json.loads(store.properties(name)[unchanged.PROPERTY]))

    assert left("news") == {"wiki", "wiki\nacme", "wiki\nother", "wikipedia"}
    assert left("wiki\nacme") == {"wiki\nother", "wikipedia"}
    assert left("wiki") == {"wikipedia"}
    unchanged.forget(store, name, None)
    assert unchanged.recorded(store.properties(name), "wikipedia") is None
