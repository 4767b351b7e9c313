"""The public face, in memory: what the example in its docstring promises, and each method beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeEncoder
from terminal import ROWS, write_jsonl

from m3index.api import Index
from m3index.errors import (
    CollectionNotFoundError,
    FilterError,
    M3IndexError,
    MismatchError,
    ModelNotFoundError,
    QueryError,
    UsageError,
)
from m3index.index.settings import SyncSettings
from m3index.progress import Silent
from m3index.types import Document, Query, Rejected

DOCUMENTS = [
    Document(r["id"], r["text"], r.get("title", ""), {"lang": r["lang"], "year": r["year"]}) for r in ROWS
]
FIELDS = {"lang": "str", "year": "int"}


@pytest.fixture
def index() -> Iterator[Index]:
    with Index.open("docs", uri="memory:", encoder=FakeEncoder()) as opened:
        opened.ingest(DOCUMENTS, fields=FIELDS)
        yield opened


def test_ingest_takes_documents_and_paths(index: Index, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": "new", "text": "a new one"}])
    for paths in (path, str(path), [path], [str(path)]):
        summary = index.ingest(paths)
        assert summary.scanned == 1
    assert index.ingest(iter(DOCUMENTS)).unchanged == len(DOCUMENTS)
    assert index.ingest(tuple(DOCUMENTS)).unchanged == len(DOCUMENTS)
    assert index.status().documents == len(DOCUMENTS) + 1


def test_settings_can_be_given_whole_or_by_name(index: Index) -> None:
    one = index.ingest(DOCUMENTS[:2], SyncSettings(source="a"))
    two = index.ingest(DOCUMENTS[:2], source="b")
    both = index.ingest(DOCUMENTS[:2], SyncSettings(source="c"), source="a")
    assert (one.added, two.added, both.unchanged) == (2, 2, 2)
    with pytest.raises(TypeError):
        index.ingest(DOCUMENTS, no_such_setting=1)


def test_search(index: Index) -> None:
    result = index.search("the quick brown fox", k=3)
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    assert result.hits[0].doc_id == "fox-en"
    assert result.hits[0].title == "Fox"
    assert result.hits[0].metadata == {"lang": "en", "year": 1}
    with pytest.raises(QueryError):
        index.search("   ")
    with pytest.raises(UsageError):
        index.search("fox", k=0)


def test_where(index: Index) -> None:
    where = index.where(["year>=2", "lang in de,ru"], source="default")
    assert {hit.doc_id for hit in index.search("fox", where=where, mode="dense").hits} == {"fox-de", "fox-ru"}
    assert index.where() is None
    with pytest.raises(FilterError, match="lang, year"):
        index.where(["colour=red"])


def test_like_and_run(index: Index) -> None:
    assert "fox-en" not in [hit.doc_id for hit in index.like("fox-en", k=3).hits]
    queries = [Query("1", "quick fox"), Query("2", "a book")]
    results = list(index.run(iter(queries), k=2))
    assert [result.query for result in results] == queries
    assert results[0].hits[0].doc_id == index.search("quick fox").hits[0].doc_id


def test_sync_prune_delete_and_plan(index: Index) -> None:
    assert index.plan(DOCUMENTS[:5]).deleted == 2
    assert index.sync(DOCUMENTS[:5]).deleted == 2
    assert index.delete(["fox-ru"]).deleted == 1
    assert index.prune(DOCUMENTS[:3]).deleted == 1
    assert index.status().documents == 3


def test_verify_and_reindex(index: Index) -> None:
    assert index.verify(DOCUMENTS).to_json()["exit"] == 0
    index.delete(["fox-en"])
    found = []
    assert index.verify(DOCUMENTS, found=found.append).to_json()["exit"] == 15
    assert len(found) == 1
    index.verify(DOCUMENTS, repair=True)
    summary = index.reindex({"default": DOCUMENTS}, fields={"lang": "str"})
    assert (summary.generation, summary.exit) == (2, 0)
    assert index.fields() == {"lang": "str"}
    assert index.search("the quick brown fox", k=1).hits[0].doc_id == "fox-en"
    assert index.rollback().number == 1
    assert index.status().generation == 1


def test_bad_rows_are_reported_and_kept(index: Index, tmp_path: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.rows: list[Rejected] = []

        def rejected(self, rejected: Rejected) -> None:
            self.rows.append(rejected)

    (tmp_path / "c.jsonl").write_text('{"id": "x"}\nnonsense\n{"id": "y", "text": "good"}\n')
    told = Told()
    summary = index.ingest(tmp_path / "c.jsonl", quarantine=tmp_path / "bad.jsonl", reporter=told)
    assert (summary.exit, summary.added, summary.quarantined) == (3, 1, 2)
    assert {row.place.line for row in told.rows} == {1, 2}
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2


def test_a_collection_that_is_not_there() -> None:
    with Index.open("nothere", uri="memory:", encoder=FakeEncoder()) as empty:
        for ask in (lambda: empty.search("x"), empty.status, empty.fields, lambda: empty.like("x")):
            with pytest.raises(CollectionNotFoundError, match="m3index ingest -c nothere"):
                ask()


def test_an_encoder_of_another_space_is_refused(index: Index) -> None:
    other = Index(index.store, "docs", FakeEncoder(name="other"))
    with pytest.raises(MismatchError, match="fake"):
        other.search("fox")
    with pytest.raises(MismatchError, match="other"):
        other.ingest(DOCUMENTS)


def test_no_model_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    with Index.open("docs", uri="memory:", encoder="no-such-model") as index:
        with pytest.raises(UsageError, match=r"no file, directory or match for 'nowhere\.jsonl'"):
            index.ingest("nowhere.jsonl")  # said before a model is loaded
        with pytest.raises(CollectionNotFoundError):
            index.status()
        with pytest.raises(ModelNotFoundError):
            index.ingest(DOCUMENTS)


def test_closing_closes_the_encoder_and_may_be_done_twice() -> None:
    encoder = FakeEncoder()
    index = Index.open("docs", uri="memory:", encoder=encoder)
    index.close()
    assert encoder.closed
    index.close()


def test_a_database_is_only_made_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "new.db"
    with pytest.raises(CollectionNotFoundError):
        Index.open(uri=str(path), create=False)
    assert not path.parent.exists()
    Index.open(uri=str(path)).close()
    assert path.is_dir()
    Index.open(uri=str(path), create=False).close()


def test_a_failed_open_lets_the_database_go(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with pytest.raises(M3IndexError), Index.open(uri=path, encoder="no-such-model") as index:
        index.ingest(DOCUMENTS)
    Index.open(uri=path).close()


def test_threads_may_search_together(index: Index) -> None:
    answers: list[list[str]] = []

    def ask() -> None:
        answers.append([hit.doc_id for hit in index.search("quick brown fox").hits])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
