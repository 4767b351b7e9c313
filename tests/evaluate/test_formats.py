from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from m3index.errors import UsageError
from m3index.evaluate.formats import MOST_RELEVANT, read_qrels, read_queries
from m3index.types import Query

TOPICS = """<top>
<num> Number: 301
<title> International Organized Crime
<desc> Description:
Identify organizations that participate.
</top>

<top>
<num> Number: 302
<title> Poliomyelitis &amp; Post-Polio
</top>
"""
XML = """<topics><topic number="1"><query>what causes
 tides</query><question>...</question></topic>
<topic number="2"><title>salt</title></topic></topics>"""


def written(folder: Path, text: str, name: str = "file") -> Path:
    path = folder / name
    path.write_text(text, "utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            '{"_id": "1", "text": "tides"}\n\n{"_id": 2, "text": "salt\u2028sea"}\n',
            ["1 tides", "2 salt\u2028sea"],
        ),
        ('{"id": "a", "query": "tides", "lang": "en"}', ["a tides"]),
        ("q1\twhat are tides\r\nq2\tsalt\tand pepper\r\n", ["q1 what are tides", "q2 salt\tand pepper"]),
        ("\ufeffq1\ttides\n", ["q1 tides"]),
        (TOPICS, ["301 International Organized Crime", "302 Poliomyelitis & Post-Polio"]),
        (XML, ["1 what causes tides", "2 salt"]),
        ('{"_id": "1", "text": ""}', ["1 "]),
    ],
)
def test_queries(tmp_path: Path, content: str, expected: list[str]) -> None:
    queries = read_queries(written(tmp_path, content))
    assert [f"{q.query_id} {q.text}" for q in queries] == expected


def test_gzip_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(gzip.compress(b'{"_id": "1", "text": "tides"}\n'))
    assert read_queries(path) == [Query("1", "tides")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no queries: it is empty"),
        ('{"_id": "1", "text": "a"}\n{"_id": "1"', "file:2 is not JSON"),
        ('{"_id": "1"}', "file:1 is not a query; it needs `_id` and `text`"),
        ('{"_id": true, "text": "a"}', "file:1 is not a query"),
        ("no tab here", "file:1 is not a query; a line must be an id, a tab, and the text"),
        ("q1\ta\nq1\tb", "two queries with the id 'q1'"),
        ("<html></html>", "no <top> or <topic>"),
        ("<top><title>x</top>", "topic 1 has no number"),
    ],
)
def test_queries_that_cannot_be_read(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_queries(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("query-id\tcorpus-id\tscore\n1\td 1\t2\n1\td2\t0\n", {"1": {"d 1": 2, "d2": 0}}),
        ("1\td1\t1\r\n2\td2\t1\r\n", {"1": {"d1": 1}, "2": {"d2": 1}}),
        ("1 0 d1 1\n1 Q0 d2 -1\n1 Q0 d3 -2\n\n", {"1": {"d1": 1, "d2": 0, "d3": 0}}),
        ("1\t0\td1\t3\n", {"1": {"d1": 3}}),
    ],
)
def test_qrels(tmp_path: Path, content: str, expected: dict[str, dict[str, int]]) -> None:
    assert read_qrels(written(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no judgements"),
        ("query-id\tcorpus-id\tscore\n", "has no judgements"),
        ("1 d1 1\n", "file:1: 3 columns"),
        ("1\td1\t1\n1\td2\n", "file:2: 2 columns"),
        ("1 0 d1 good\n", "file:1: the relevance 'good' is not a whole number"),
    ],
)
def test_qrels_that_cannot_be_read(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_qrels(written(tmp_path, content))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    for read in (read_queries, read_qrels):
        with pytest.raises(UsageError, match="There is no file"):
            read(tmp_path / "nothing")
        with pytest.raises(UsageError, match="cannot be read"):
            read(tmp_path)
        (tmp_path / "latin").write_bytes(b"q1\tcaf\xe9\n")
        with pytest.raises(UsageError, match="not UTF-8 text"):
            read(tmp_path / "latin")
    whole = gzip.compress(b"q1\ttides\n" * 5000)
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot be read"):
        read_queries(tmp_path / "cut.gz")


def test_a_relevance_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """Such as a document's number in the last column: trec_eval allocates a number for each level."""
    assert read_qrels(written(tmp_path, f"1 0 d1 {MOST_RELEVANT}\n")) == {"1": {"d1": MOST_RELEVANT}}
    with pytest.raises(UsageError, match=r":1: the relevance 4294967296 is too large"):
        read_qrels(written(tmp_path, "1 0 d1 4294967296\n"))


def test_ids_of_queries_follow_the_rule_of_corpora(tmp_path: Path) -> None:
    """null is as if it were not there; only a line feed ends a line; a byte order mark is none of the id."""
    content = '\ufeff{"_id": null, "id": "a\u2028b", "text": "one"}\n{"_id": 2, "text": "t\u0085wo"}\n'
    assert read_queries(written(tmp_path, content)) == [Query("a\u2028b", "one"), Query("2", "t\u0085wo")]
    with pytest.raises(UsageError, match="not a query"):
        read_queries(written(tmp_path, '{"_id": true, "text": "one"}\n'))
