"""Bad rows: written, mended, read again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from m3index.corpus.mapping import FieldMapping
from m3index.corpus.quarantine import Quarantine
from m3index.corpus.readers import read
from m3index.errors import StoppedError, UsageError
from m3index.types import Document, Place, Rejected


def quarantine(corpus: Path, path: Path, mapping: FieldMapping | None = None) -> list[Document]:
    documents = []
    with Quarantine(path) as bad:
        for item in read([corpus], mapping or FieldMapping()):
            if isinstance(item, Rejected):
                bad.add(item)
            else:
                documents.append(item)
    return documents


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"id": "1", "text": 5, "title": "Gr\xc3\xbc\xc3\x9fe"}\n'
        b'{"id": "2", "text": "cut\n'
        b'{"id": "3", "text": "caf\xe9"}\n'
        b'{"id": "4", "text": "ok"}\n'
        b'{"id": "5", "text": "\\ud800"}\n'
        b'{"id": "6", "text": "x", "k": NaN}\n'
    )
    return path


def test_no_bad_row_no_file(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "1", "text": "x"}\n')
    quarantine(tmp_path / "c.jsonl", tmp_path / "deep" / "q.jsonl")
    assert not (tmp_path / "deep").exists()


def test_each_line_says_where_and_why(tmp_path: Path, bad: Path) -> None:
    quarantine(bad, tmp_path / "q.jsonl")
    assert "Grüße" in (tmp_path / "q.jsonl").read_text("utf-8"), "readable, to be mended by hand"
    first, second, third, fifth, sixth = lines(tmp_path / "q.jsonl")
    assert first == {
        "m3index_quarantine": 1, "path": str(bad), "line": 1, "reason": "'text' is a number, not a string",
        "id": "1", "row": {"id": "1", "text": 5, "title": "Grüße"},
    }  # fmt: skip
    assert second["raw"] == '{"id": "2", "text": "cut'
    assert third["raw"] == r'{"id": "3", "text": "caf\xe9"}'
    assert fifth["row"]["text"] == "\ud800"
    assert "NaN" in sixth["raw"]
    assert [row["line"] for row in (second, third, fifth, sixth)] == [2, 3, 5, 6]


def test_unmended_rows_are_refused_again(tmp_path: Path, bad: Path) -> None:
    quarantine(bad, tmp_path / "q.jsonl")
    assert quarantine(tmp_path / "q.jsonl", tmp_path / "again.jsonl") == []
    drop = ("path", "line", "reason")
    assert [{k: v for k, v in row.items() if k not in drop} for row in lines(tmp_path / "again.jsonl")] == [
        {k: v for k, v in row.items() if k not in drop} for row in lines(tmp_path / "q.jsonl")
    ]


def test_mended_rows_are_read(tmp_path: Path, bad: Path) -> None:
    path = tmp_path / "q.jsonl"
    quarantine(bad, path)
    first, second, third, fifth, sixth = lines(path)
    first["row"]["text"] = "five"
    second["raw"] += '"}'
    third = {"id": "3", "text": "café"}
    del fifth["row"]["text"]
    fifth["row"]["contents"] = "x"
    sixth["row"] = {"id": "6", "text": "six"}
    save(path, [first, second, third, fifth, sixth])
    documents = quarantine(path, path)
    assert [(d.doc_id, d.text) for d in documents] == [
        ("1", "five"),
        ("2", "cut"),
        ("3", "café"),
        ("5", "x"),
        ("6", "six"),
    ]
    assert documents[0].title == "Grüße"
    assert documents[0].place == Place(str(path), 1)


def test_a_quarantine_replaces_the_file_that_is_read_only_at_the_end(tmp_path: Path, bad: Path) -> None:
    path = tmp_path / "q.jsonl"
    quarantine(bad, path)
    rows = lines(path)
    rows[1] = {"id": "2", "text": "mended"}
    save(path, rows)
    assert len(quarantine(path, path)) == 1
    assert [row["id"] for row in lines(path)] == ["1", None, "5", "6"]
    assert os.listdir(tmp_path) == ["c.jsonl", "q.jsonl"] or sorted(os.listdir(tmp_path)) == [
        "c.jsonl",
        "q.jsonl",
    ]


def test_rows_of_tables_are_replayed_with_the_same_mapping(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("pk,body,year\n,x,2001\n")
    mapping = FieldMapping.named(id="pk", text="body")
    path = tmp_path / "q.jsonl"
    quarantine(tmp_path / "c.csv", path, mapping)
    [row] = lines(path)
    assert row["row"] == {"body": "x", "year": "2001"}
    row["row"]["pk"] = "1"
    save(path, [row])
    assert quarantine(path, path, mapping)[0].metadata == {"year": "2001"}


def test_documents_refused_later_are_replayed_whatever_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    document = Document("1", "Text", "Title", {"text": "other", "k": [1]}, Place("c.jsonl", 3))
    with Quarantine(path) as bad:
        bad.add(Rejected.of(document, "the title is too long"))
        bad.add(Rejected.of(Document("2", "x"), "met before"))
    first, second = lines(path)
    assert (first["path"], first["line"]) == ("c.jsonl", 3)
    assert first["document"] == {
        "id": "1",
        "title": "Title",
        "text": "Text",
        "metadata": {"text": "other", "k": [1]},
    }
    assert second["document"] == {"id": "2", "text": "x"}
    again = quarantine(path, tmp_path / "none.jsonl", FieldMapping.named(id="pk", text="body"))
    assert [(d.doc_id, d.text, d.title, d.metadata) for d in again] == [
        ("1", "Text", "Title", document.metadata),
        ("2", "x", "", {}),
    ]


def test_rows_too_long_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    with Quarantine(path) as bad:
        bad.add(Rejected(Place("c.jsonl", 7), "longer", '{"id": "1", "te', "1", truncated=True))
        bad.add(Rejected.of(Document("2", "x" * 2_000_000), "met before"))
    assert path.stat().st_size < 1_100_000
    rejected = list(read([path]))
    assert all(isinstance(r, Rejected) and "too long" in r.reason for r in rejected)
    assert [r.doc_id for r in rejected] == ["1", "2"]
    assert isinstance(rejected[0], Rejected)
    assert "c.jsonl:7" in rejected[0].reason


def test_a_run_that_dies_leaves_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    bad = Quarantine(path)
    bad.add(Rejected(Place("c.jsonl", 7), "reason", "raw"))
    [partial] = tmp_path.glob(".q.jsonl.*.partial")
    assert len(lines(partial)) == 1
    assert bad.count == 1
    with pytest.raises(RuntimeError), bad:
        raise RuntimeError
    bad.close()
    assert len(lines(path)) == 1


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        Quarantine(tmp_path)
    bad = Quarantine(tmp_path / "file" / "q.jsonl")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoppedError, match="cannot be written"):
        bad.add(Rejected(Place("c"), "reason"))
