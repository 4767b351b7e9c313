"""`m3index delete`: which ids a file of ids names."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import Command, write_jsonl

IDS = ("a", "b", "None", "True", "7", "x\u2028y", "x", "y", "t\u0085w", "v\x0bt", " spaced ")


@pytest.fixture
def docs(m3index: Command, dense_model: Path, tmp_path: Path) -> Command:
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"id": i, "text": f"text of {i!r}"} for i in IDS])
    done = m3index("ingest", corpus, "-e", dense_model)
    assert done.code == 0, done.err
    return m3index


@pytest.mark.parametrize(
    ("content", "deleted"),
    [
        ("a\nb\n", 2),
        ("\ufeffa\nb", 2),
        ("a\r\n\r\nb\r\n", 2),
        ("x\u2028y\n", 1),
        ("t\u0085w\nv\x0bt\n", 2),
        (" spaced \n", 1),
        ('{"id": null, "_id": "a"}\n{"docid": "b", "text": "anything"}\n', 2),
        ('{"id": 7}\n', 1),
        ("nothing\n", 0),
    ],
)
def test_a_file_of_ids(docs: Command, tmp_path: Path, content: str, deleted: int) -> None:
    (tmp_path / "ids").write_text(content, "utf-8", newline="")
    done = docs("delete", "--file", "ids", "--dry-run", "--json")
    assert (done.code, done.summary["deleted"]) == (0, deleted), done.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": true}\n', "ids:1: no usable id: 'id' is true or false"),
        ('a\n{"id": 1.5}\n', "ids:2: no usable id"),
        ('{"id": null}\n', "ids:1: no id: the row has no 'id'"),
        ('{"id": ""}\n', "ids:1: no id: 'id' is empty"),
        ('{"id": "a"\n', "ids:1 is not JSON"),
        (b"caf\xe9\n", "ids is not UTF-8 text"),
    ],
)
def test_what_is_no_id_is_an_error_and_nothing_is_removed(
    docs: Command, tmp_path: Path, content: str | bytes, message: str
) -> None:
    (tmp_path / "ids").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = docs("delete", "--file", "ids", "--yes")
    assert (done.code, message in done.err) == (2, True), done.err
    assert docs("status", "--json").lines[0]["documents"] == len(IDS)
