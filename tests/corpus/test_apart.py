"""Large files, read in a process of their own."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3index.corpus import apart
from m3index.corpus.hash import doc_hash
from m3index.corpus.mapping import FieldMapping
from m3index.corpus.places import CorpusFiles
from m3index.corpus.readers import FileCorpus, read
from m3index.corpus.windows import PassageSize
from m3index.errors import M3IndexError
from m3index.types import Document, Rejected

SIZE = PassageSize(512, 64, "structure")
EMBEDDING = [0.5] * 64

ROWS: list[dict[str, Any]] = [
    {"id": "1", "text": "Grüße aus 東京", "title": "Titel", "lang": "de", "vector": EMBEDDING},
    {"id": "2", "text": "two", "metadata": {"deep": {"a": [1, None, 0.1, -0.0, 2**53 + 1]}, "b": "ü"}},
    {"id": 3, "text": "three " * 1000},
]
BAD = ['{"id": "4"}', "{not JSON", '{"id": "5", "text": "x", "n": NaN}', '{"text": "no id"}']


@pytest.fixture(autouse=True)
def every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LEAST", 0)


def opened(path: Path, *, separate: bool, **options: Any) -> FileCorpus:
    corpus = read([str(path)], **options)
    corpus.apart = lambda: separate
    return corpus


def write(folder: Path, name: str) -> Path:
    path, flat = folder / name, [{**row, "id": str(row["id"])} for row in ROWS]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS) + "\n".join(BAD) + "\n"
    match name.partition(".")[2]:
        case "jsonl":
            path.write_text(lines, "utf-8")
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "json":
            path.write_text(json.dumps(ROWS), "utf-8")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(flat), path)
        case "csv":
            path.write_text('id,text,year\n1,"a, b",1999\n2,,2000\n3,c\n4,d,e,f\n', "utf-8")
    return path


def seen(corpus: FileCorpus) -> list[Any]:
    """All that a pass tells."""
    items = [
        (item, list(item.metadata.items()), doc_hash(item, SIZE)) if isinstance(item, Document) else item
        for item in corpus
    ]
    told = corpus.notes, corpus.read_errors, corpus.complete, corpus.documents, corpus.rejected
    return [*items, *told, corpus.bytes_read, corpus.total_bytes, corpus.skip_counts, corpus.listing]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "a.csv"])
def test_a_pass_is_the_same(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    here, there = (opened(path, separate=separate, fields={"year": "int"}) for separate in (False, True))
    found = seen(there)
    assert found == seen(here)
    assert there.documents >= 2
    assert found == seen(there), "a second pass"


def test_the_reader_is_that_of_the_corpus(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": "1", "body": "one", "note": "n"}\n', "utf-8")
    mapping = FieldMapping.named(id="key", text="body", exclude=["note"])
    [document] = opened(path, separate=True, mapping=mapping)
    assert isinstance(document, Document)
    assert (document.doc_id, document.text, dict(document.metadata)) == ("1", "one", {})
    [bad] = opened(path, separate=True, max_line=8)
    assert isinstance(bad, Rejected)
    assert bad.reason == "longer than 8 bytes"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(gzip.compress(GOOD * 50_000)[:-20]),
        lambda path: path.write_bytes(b"\xff\xfea\0"),
    ],
)
def test_an_unreadable_file_is_told_alike(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    here, there = (opened(path, separate=separate) for separate in (False, True))
    damage(path)
    items = list(there)
    assert there.read_errors
    assert (items, there.read_errors) == (list(here), here.read_errors)


GOOD = b'{"id": "1", "text": "one"}\n'


@pytest.mark.parametrize("separate", [False, True])
def test_a_file_that_has_become_a_pipe_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separate: bool
) -> None:
    """Also with a writer, which would make it wait, or give it half a row."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    [listed] = CorpusFiles([str(path)]).walk()
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    try:
        monkeypatch.setattr(CorpusFiles, "walk", lambda _: iter([listed]))
        corpus = opened(path, separate=separate)
        assert list(corpus) == []
        [error] = corpus.read_errors
        assert error.reason == "it is not a regular file any more"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_json_file_that_is_no_corpus_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"port": 1}', "utf-8")
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    corpus = opened(tmp_path, separate=True)
    assert [item.doc_id for item in corpus] == ["1"]
    assert corpus.complete
    assert sum(corpus.skip_counts.values()) == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
metadata_objects = st.dictionaries(st.sampled_from(["a", "ü", "x y"]), json_values, max_size=3)


@given(st.lists(metadata_objects, min_size=1, max_size=30))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_metadata_arrives_as_it_is(tmp_path: Path, metadata: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"id": str(i), "text": "t", "metadata": each}) for i, each in enumerate(metadata)]
    path.write_text("\n".join(rows), "utf-8")
    found, expected = ([*opened(path, separate=separate)] for separate in (True, False))
    assert len(found) == len(metadata)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Document)
        assert isinstance(other, Document)
        assert repr(one.metadata) == repr(other.metadata)
        assert doc_hash(one, SIZE) == doc_hash(other, SIZE)


def test_digests_are_of_the_document_itself(tmp_path: Path) -> None:
    """A copy with another text must not keep the digests of the first."""
    document, *_ = opened(write(tmp_path, "a.json"), separate=True)
    assert isinstance(document, Document)
    assert document.digests is not None
    other = replace(document, text="other")
    assert other.digests is None
    assert doc_hash(other, SIZE) == doc_hash(
        Document("9", "other", document.title, dict(document.metadata)), SIZE
    )


def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    started: list[int] = []

    class Watched(apart.Process):
        def __init__(self, *names: str) -> None:
            super().__init__(*names)
            started.append(self.pid)

    monkeypatch.setattr(apart, "Process", Watched)
    return started


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def many(folder: Path) -> Path:
    path = folder / "many.jsonl"
    path.write_text("".join(f'{{"id": "{i}", "text": "{"x" * 500}"}}\n' for i in range(5_000)), "utf-8")
    return path


def test_one_process_reads_all_files_and_ends_with_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = processes(monkeypatch)
    write(tmp_path, "a.json")
    many(tmp_path)
    corpus = opened(tmp_path, separate=True)
    assert len(list(corpus)) == 5_003
    assert len(started) == 1
    assert not runs(started[0])


def test_a_pass_that_is_given_up_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = processes(monkeypatch)
    items: Iterator[Any] = iter(opened(many(tmp_path), separate=True))
    next(items)
    assert runs(started[0])
    items.close()  # type: ignore[attr-defined]
    assert not runs(started[0])


def test_a_pass_that_is_given_up_does_not_wait_for_what_the_process_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it finds no document it writes nothing, and does not notice that its pipe is closed."""
    statuses: list[int] = []

    class Watched(apart.Process):
        def close(self) -> int:
            statuses.append(super().close())
            return statuses[-1]

    monkeypatch.setattr(apart, "Process", Watched)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 256 + b"\n" * 20_000_000))
    items: Iterator[Any] = iter(opened(path, separate=True))
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert statuses == [-signal.SIGKILL]


def test_two_passes_at_once_have_a_process_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = (f'{{"id": "{name}{i}", "text": "{"x" * 500}"}}\n' for i in range(1_000))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows), "utf-8")
    corpus = opened(tmp_path, separate=True)
    one, two = iter(corpus), iter(corpus)
    found = [[next(one)], [next(two)]]
    found[0] += one
    found[1] += two
    expected = [f"{name}{i}" for name in ("a", "b") for i in range(1_000)]
    assert [[item.doc_id for item in items] for items in found] == [expected, expected]


def test_a_process_that_is_killed_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = processes(monkeypatch)
    items = iter(opened(many(tmp_path), separate=True))
    next(items)
    os.kill(started[0], signal.SIGKILL)
    with pytest.raises(
        M3IndexError, match=r"A process that reads the corpus ended .exit status -9.*--workers 0"
    ):
        list(items)


def test_small_files_and_pipes_are_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = processes(monkeypatch)
    monkeypatch.setattr(apart, "LEAST", 4_096)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    assert len(list(opened(path, separate=True))) == 1
    with many(tmp_path).open("rb") as file:
        corpus = read(["-"], stdin=file)
        corpus.apart = lambda: True
        assert len(list(corpus)) == 5_000
    assert not started


def test_a_descriptor_of_this_process_is_read_here(tmp_path: Path) -> None:
    """In another process, `/dev/fd/3` is another file, and `/dev/stdin` the pipe that brings its orders."""
    with many(tmp_path).open("rb") as file:
        assert len(list(opened(Path(f"/dev/fd/{file.fileno()}"), separate=True, format="jsonl"))) == 5_000
