"""Paths are checked with the messages of reading them, and what must not be opened is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m3index.corpus.check import check_corpus, check_feed
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


def test_one_path_in_an_object_store_hides_no_other() -> None:
    assert message(check_corpus, ["s3://bucket/a.jsonl", "no.jsonl"]) == message(read, ["no.jsonl"])


@pytest.mark.parametrize("path", ["no.jsonl", "empty", "link.jsonl"])
def test_a_feed_has_the_message_of_reading_it(path: str) -> None:
    assert message(check_feed, path) == message(list, read_changes(path))


@pytest.mark.parametrize("path", ["a.jsonl", "a.xyz", "-", "pipe", "s3://bucket/a.jsonl"])
def test_a_feed_that_may_be_there(path: str) -> None:
    check_feed(path)
