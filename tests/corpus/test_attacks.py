"""Files of strangers: what is small on the disk stays small in memory, and every listing ends."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sinks import sink

from m3index import files
from m3index.corpus.decoded import decoded_sizes, parts
from m3index.corpus.places import CorpusFiles, File
from m3index.corpus.readers import read as open_corpus
from m3index.errors import UnreachableError
from m3index.types import Document, Rejected

MIB = 1 << 20
MEASURE = """
import resource, sys
from m3index.corpus.readers import read as open_corpus
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = rejected = 0
for item in open_corpus([sys.argv[1]]):
    if hasattr(item, "text"): kept += 1
    else: rejected += 1
print(kept, rejected, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read(path: Path) -> tuple[int, int, int]:
    """Documents, rejected rows and MiB of memory of a process that reads a corpus."""
    limit = 8 << 30  # if all fails, the process fails, not the machine
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True, text=True, timeout=200, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    kept, rejected, grown = map(int, done.stdout.split())
    return kept, rejected, grown


def test_a_small_dictionary_does_not_become_gigabytes(tmp_path: Path) -> None:
    """1,000 rows refer to one value of 2 MiB."""
    path = tmp_path / "a.parquet"
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["fox " * (MIB // 2)]))
    ids = pa.array([str(i) for i in range(1000)])
    pq.write_table(pa.table({"id": ids, "text": values}), path, compression="zstd")
    assert path.stat().st_size < MIB
    kept, rejected, grown = read(path)
    assert (kept, rejected) == (1000, 0)
    assert grown < 300, f"{grown} MiB; decoded at once they are 2 GB"


def test_lists_of_references_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * MIB]))
    tags = pa.ListArray.from_arrays(pa.array([0, 2000, 4000], pa.int32()), one)
    pq.write_table(
        pa.table({"id": ["1", "2"], "text": ["fox", "fox"], "tags": tags}), path, compression="zstd"
    )
    kept, rejected, grown = read(path)
    assert (kept, rejected) == (0, 2)
    assert grown < 300


def test_a_cell_that_is_too_long_is_rejected_with_its_id(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"id": ["1", "2", "3"], "text": ["fox", "x" * 3_000_000, "fox"], "n": [1, 2, 3]}), path
    )
    found = list(open_corpus([path], max_line=2_000_000))
    assert [item.doc_id for item in found] == ["1", "2", "3"]
    assert isinstance(found[1], Rejected)
    assert found[1].reason == "longer than 2,000,000 bytes"
    assert len(found[1].raw) < 1000


def test_prefixes_of_prefixes(tmp_path: Path) -> None:
    """DELTA_BYTE_ARRAY stores of each value what is new: 2,000 values of 1 MiB in 1 MiB."""
    path = tmp_path / "a.parquet"
    text = "fox " * (MIB // 4)
    rows = {"id": [str(i) for i in range(300)], "text": [f"{text}{i:04}" for i in range(300)]}
    encoding = {"text": "DELTA_BYTE_ARRAY", "id": "PLAIN"}
    pq.write_table(pa.table(rows), path, use_dictionary=False, column_encoding=encoding, compression="zstd")
    kept, rejected, grown = read(path)
    assert (kept, rejected) == (300, 0)
    assert grown < 200, f"{grown} MiB; decoded at once they are 300 MB, twice"


cells = st.one_of(st.none(), st.text(max_size=20))


@given(
    st.lists(
        st.tuples(cells, st.one_of(st.none(), st.lists(cells, max_size=4)), st.integers(0, 9)), min_size=1
    )
)
def test_sizes_of_rows_are_those_of_their_values(
    rows: list[tuple[str | None, list[str | None] | None, int]],
) -> None:
    texts = pa.array([row[0] for row in rows], pa.string())
    tags = pa.array([row[1] for row in rows], pa.list_(pa.string()))
    size = [len((row[0] or "").encode()) for row in rows]
    assert decoded_sizes(texts).tolist() == size
    assert decoded_sizes(texts.dictionary_encode()).tolist() == size
    listed = [sum(8 + len((tag or "").encode()) for tag in row[1] or []) for row in rows]
    assert decoded_sizes(tags).tolist() == listed
    assert decoded_sizes(tags.slice(1)).tolist() == listed[1:]
    struct = pa.StructArray.from_arrays([texts, tags], ["a", "b"])
    assert decoded_sizes(struct).tolist() == [a + b for a, b in zip(size, listed, strict=True)]
    batch = pa.RecordBatch.from_arrays([texts, tags], names=["a", "b"])
    cut = [part for part, _ in parts(batch, 40)]
    assert sum(part.num_rows for part in cut) == len(rows)
    assert all(part.num_rows == 1 or int(sizes.sum()) <= 40 for part, sizes in parts(batch, 40))


# -- listings


def names(*paths: object) -> list[str]:
    return [
        entry.name for entry in CorpusFiles([str(path) for path in paths]).walk() if isinstance(entry, File)
    ]


def test_a_glob_follows_no_links_into_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("d", "d/e", "d/e/f"):
        Path(folder).mkdir()
        (Path(folder) / "a.jsonl").write_text('{"id": "1", "text": "fox"}\n')
    for name in ("one", "two"):
        (tmp_path / "d" / name).symlink_to(tmp_path / "d", target_is_directory=True)
    start = time.perf_counter()
    expected = ["d/a.jsonl", "d/e/a.jsonl", "d/e/f/a.jsonl"]
    for pattern in (
        "d/**/*.jsonl",
        "**/*.jsonl",
        "d/**",
        "**",
        "d/**/**/a.jsonl",
        f"{tmp_path}/d/**/*.jsonl",
    ):
        found = [name.removeprefix(f"{tmp_path}/") for name in names(pattern)]
        assert sorted(found) == expected, pattern
    assert sorted(names("d/**/*")) == ["a.jsonl", "d/a.jsonl", "f/a.jsonl"], "the directory d/e, once"
    assert names("d/**/e") == ["a.jsonl", "f/a.jsonl"], "as the directory d/e"
    assert names("d/**/e/*.jsonl") == ["d/e/a.jsonl"]
    assert time.perf_counter() - start < 20


def test_directories_can_be_deeper_than_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    depth = 1_500
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("a.jsonl").write_text('{"id": "1", "text": "fox"}\n')
    os.chdir(tmp_path)
    try:
        top = os.path.relpath(tmp_path / "d")
        assert names(top) == ["d/" * (depth - 1) + "a.jsonl"]
        [document] = open_corpus([top])
        assert isinstance(document, Document)
        assert names("**/*.jsonl") == ["d/" * depth + "a.jsonl"]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


# -- object stores


def test_a_store_from_which_hardly_anything_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\nx: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)

    monkeypatch.setattr(files, "PATIENCE", 1.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with sink(drip) as store:
        options = f"?endpoint_override=127.0.0.1%3A{store.port}&scheme=http&region=us-east-1"
        start = time.perf_counter()
        with pytest.raises(UnreachableError, match="did not answer within 1 s"):
            CorpusFiles([f"s3://bucket/a.jsonl{options}"])
        assert time.perf_counter() - start < 20
