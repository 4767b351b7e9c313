"""A document whose file was not read has not left the corpus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fakes import FakeEncoder
from index.support import doc, run

from m3index import Index
from m3index.errors import Exit
from m3index.index.summary import Summary
from m3index.store.base import StoredRow
from m3index.store.filter import Filter
from m3index.store.memory import MemoryStore


def write(path: Path, *ids: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"id": "{doc_id}", "text": "text of {doc_id}"}}\n' for doc_id in ids))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """30 documents in all.jsonl, and one in each of some other files."""
    folder = tmp_path / "corpus"
    write(folder / "all.jsonl", *(f"d{i}" for i in range(30)))
    write(folder / "one.jsonl", "one")
    write(folder / "sub" / "two.jsonl", "two")
    (folder / "sub" / "deep").mkdir()
    (folder / "sub" / "deep" / "three.txt").write_text("text of three")
    (folder / "table.csv").write_text("id,text\nfour,text of four\n")
    (folder / "notes.exe").write_text("not read")
    return folder


@pytest.fixture
def index() -> Index:
    return Index(uri="memory:", encoder=FakeEncoder())


def linked(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a folder that became a link": lambda c: linked(c / "sub"),
    "a folder that is hidden": lambda c: (c / "sub").rename(c / ".sub"),
    "a file that became a FIFO": lambda c: fifo(c / "one.jsonl"),
    "a text file that became a FIFO": lambda c: fifo(c / "sub" / "deep" / "three.txt"),
    "another ending": lambda c: (c / "one.jsonl").rename(c / "one.jsonl.bak"),
    "a text file with another ending": lambda c: (c / "sub" / "deep" / "three.txt").rename(
        c / "sub" / "deep" / "three.text"
    ),
    "no ending": lambda c: (c / "table.csv").rename(c / "table"),
    "a hidden file": lambda c: (c / "one.jsonl").rename(c / ".one.jsonl"),
    "an empty file": lambda c: (c / "one.jsonl").write_text(""),
    "a blank file": lambda c: (c / "one.jsonl").write_text("\n \n"),
    "a table with its header only": lambda c: (c / "table.csv").write_text("id,text\n"),
    "a file that cannot be opened": lambda c: (
        (c / "one.jsonl").unlink(),
        (c / "one.jsonl").symlink_to("nowhere"),
    ),
}


@pytest.mark.parametrize("first", ["sync", "ingest"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_not_read_is_not_gone(
    corpus: Path, index: Index, change: Callable[[Path], object], first: str
) -> None:
    getattr(index, first)(str(corpus))
    change(corpus)
    for _ in range(2):  # the second night is like the first
        summary = index.sync(str(corpus))
        assert (summary.exit, summary.deleted) == (Exit.DELETES_WITHHELD, 0)
        assert summary.deletes_withheld > 0
    assert index.status().documents == 34
    verified = index.verify(str(corpus), repair=True)
    assert verified.exit in (Exit.DRIFT, Exit.QUARANTINED)
    assert index.status().documents == 34


def test_what_is_intended_is_said_once(corpus: Path, index: Index) -> None:
    index.sync(str(corpus))
    (corpus / "one.jsonl").rename(corpus / "one.jsonl.bak")
    assert index.sync(str(corpus), max_delete="50%").exit == Exit.DELETES_WITHHELD
    assert index.sync(str(corpus), max_delete="100%").deleted == 1
    shutil.rmtree(corpus / "sub")
    assert outcome(index.sync(str(corpus))) == (0, 2), "and is forgotten"


def outcome(summary: Summary) -> tuple[int, int]:
    return summary.exit, summary.deleted


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c / "one.jsonl").unlink(),
        lambda c: (c / "sub" / "deep" / "three.txt").unlink(),
        lambda c: ((c / "one.jsonl").unlink(), (c / "new.exe").write_text("exe")),
        lambda c: ((c / "one.jsonl").unlink(), (c / "other").symlink_to(c / "sub")),
        lambda c: ((c / "one.jsonl").unlink(), write(c / "notes.jsonl", "one-more")),
    ],
)
def test_what_is_gone_is_removed(corpus: Path, index: Index, change: Callable[[Path], object]) -> None:
    index.sync(str(corpus))
    change(corpus)
    assert outcome(index.sync(str(corpus))) == (0, 1)


def test_files_that_were_skipped_before_prove_nothing(corpus: Path, index: Index) -> None:
    (corpus / "one.exe").write_text("beside one.jsonl, and never read")
    index.sync(str(corpus))
    (corpus / "one.jsonl").unlink()
    assert outcome(index.sync(str(corpus))) == (0, 1)


def test_a_document_that_cannot_be_read_today_is_not_gone(tmp_path: Path, index: Index) -> None:
    for i in range(30):
        (tmp_path / f"{i}.md").write_text(f"# Note {i}\n\ntext {i}")
    assert outcome(index.sync(str(tmp_path))) == (0, 0)
    (tmp_path / "3.md").write_text("---\ntitle: a: b\n---\ntext")
    (tmp_path / "4.md").write_text("")
    (tmp_path / "5.md").unlink()
    summary = index.sync(str(tmp_path))
    assert (summary.exit, summary.deleted, summary.deletes_withheld) == (Exit.DELETES_WITHHELD, 0, 2)
    assert (summary.quarantined, summary.skipped) == (1, {"empty": 1})
    (tmp_path / "4.md").unlink()
    assert outcome(index.sync(str(tmp_path))) == (Exit.QUARANTINED, 2), "what is bad has its place, others go"
    assert index.status().documents == 28
    (tmp_path / "3.md").write_text("# Note 3\n\ntext 3")
    assert outcome(index.sync(str(tmp_path))) == (0, 0)


def test_a_glob_does_not_wait_for_a_fifo(corpus: Path, index: Index) -> None:
    pattern = str(corpus / "*.jsonl")
    index.sync(pattern)
    fifo(corpus / "one.jsonl")
    assert index.sync(pattern).exit == Exit.DELETES_WITHHELD


def test_a_file_that_a_glob_does_not_match_any_more(corpus: Path, index: Index) -> None:
    pattern = str(corpus / "**" / "*.jsonl")
    index.sync(pattern)
    (corpus / "sub" / "two.jsonl").rename(corpus / "sub" / "two.jsonl.bak")
    write(corpus / "sub" / "other.jsonl", "more")
    summary = index.sync(pattern)
    assert (summary.exit, summary.added, summary.deletes_withheld) == (Exit.DELETES_WITHHELD, 1, 1)
    (corpus / "sub" / "two.jsonl.bak").unlink()
    assert outcome(index.sync(pattern)) == (0, 1)


def test_each_source_has_its_own_memory(corpus: Path, index: Index, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / "o.jsonl", "o", "p")
    index.sync(str(corpus))
    index.sync(str(other), source="other")
    (corpus / "one.jsonl").write_text("")
    assert index.sync(str(corpus)).exit == Exit.DELETES_WITHHELD
    write(other / "o.jsonl", "o")
    assert outcome(index.sync(str(other), source="other")) == (0, 1)


def test_a_reindex_knows_it_too(corpus: Path, index: Index) -> None:
    index.sync(str(corpus))
    (corpus / "one.jsonl").rename(corpus / "one.jsonl.bak")
    from m3index.errors import DeletesWithheldError

    with pytest.raises(DeletesWithheldError, match=r"one\.jsonl\.bak \(unknown type\) gives no documents"):
        index.reindex({"default": str(corpus)}, force=True)
    (corpus / "one.jsonl.bak").rename(corpus / "one.jsonl")
    assert index.reindex({"default": str(corpus)}, force=True).exit == 0
    (corpus / "one.jsonl").write_text("")
    assert index.sync(str(corpus)).exit == Exit.DELETES_WITHHELD, "the new generation remembers"


def test_the_rows_are_listed_once_if_nothing_lies_unread() -> None:
    class Counting(MemoryStore):
        listings = 0

        def scan(self, name: str, where: Filter | None, fields: Sequence[str]) -> Iterator[StoredRow]:
            self.listings += 1
            return super().scan(name, where, fields)

    store = Counting()
    run(store, [doc("a"), doc("b")])
    store.listings = 0
    assert run(store, [doc("a")]).deleted == 1
    assert store.listings == 1
