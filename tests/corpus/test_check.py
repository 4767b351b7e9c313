"""Paths are checked with the messages of reading them, and what must not be opened is not."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3index.corpus.check import check_corpus, check_feed
from m3index.corpus.mapping import FieldMapping
from m3index.corpus.readers import read
from m3index.errors import UsageError
from m3index.index.changes import read_changes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "a.xyz").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")


def message(function: object, *arguments: object) -> str:
    with pytest.raises(UsageError) as error:
        function(*arguments)  # type: ignore[operator]
    return str(error.value)


@pytest.mark.parametrize(
    "paths", [[], ["no.jsonl"], ["a.jsonl", "no*"], ["a.xyz"], ["empty"], ["link.jsonl"], ["-", "-"]]
)
def test_a_corpus_has_the_message_of_reading_it(paths: list[str]) -> None:
    assert message(check_corpus, paths) == message(read, paths)


@pytest.mark.parametrize("paths", [["a.jsonl"], ["-"], ["."], ["*.jsonl"], ["pipe"], ["s3://bucket/a.jsonl"]])
def test_a_corpus_that_may_be_there(paths: list[str]) -> None:
    check_corpus(paths)


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (
            {"a.csv": b"name;body\n1;x\n"},
            "a.csv: no column 'id', '_id', 'docid' or 'doc_id' for the id; its columns",
        ),
        ({"a.csv": b"id;body\n1;x\n", "b.tsv": b"x\ty\n"}, "a.csv: no column 'text'"),
        ({"a.csv": b"id;Gr\xf6\xdfe\n"}, "a.csv: the header is not UTF-8; if Excel made it, set --encoding"),
        ({"a.parquet": b"a"}, "a.parquet: no column 'id'"),
    ],
)
def test_tables_without_the_columns_are_one_message(tables: dict[str, bytes], says: str) -> None:
    for name, data in tables.items():
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"a": [1]}), name)
        else:
            Path(name).write_bytes(data)
    assert message(check_corpus, list(tables)).startswith(says)
    check_corpus([*tables, "a.jsonl"])


def test_a_table_with_the_columns_is_enough() -> None:
    Path("a.csv").write_text("name,body\n")
    Path("b.csv").write_text("Name,Body\n")
    check_corpus(["a.csv", "b.csv"], mapping=FieldMapping.named(id="name", text="body"))
    Path("c.csv").write_text("ID,Text\n")
    check_corpus(["a.csv", "c.csv"])
    Path("d.parquet").write_bytes(b"broken")
    check_corpus(["d.parquet"])


def test_one_path_in_an_object_store_hides_no_other() -> None:
    assert message(check_corpus, ["s3://bucket/a.jsonl", "no.jsonl"]) == message(read, ["no.jsonl"])


@pytest.mark.parametrize("path", ["no.jsonl", "empty", "link.jsonl"])
def test_a_feed_has_the_message_of_reading_it(path: str) -> None:
    assert message(check_feed, path) == message(list, read_changes(path))


@pytest.mark.parametrize("path", ["a.jsonl", "a.xyz", "-", "pipe", "s3://bucket/a.jsonl"])
def test_a_feed_that_may_be_there(path: str) -> None:
    check_feed(path)
