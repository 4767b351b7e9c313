"""Corpora in an object store: moto's S3 server, over a real socket."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3index.corpus.places import CorpusFiles, File, Skipped, Unlisted
from m3index.corpus.readers import read
from m3index.corpus.remote import Remote, is_remote
from m3index.corpus.selection import Selection
from m3index.errors import NotAuthorisedError, UnreachableError, UsageError
from m3index.files import mapped
from m3index.types import Document

Put = Callable[[dict[str, bytes]], str]
_numbers = count(1)


@pytest.fixture
def put(s3: str) -> Iterator[Put]:
    """Puts objects below a prefix of this test; gives the prefix."""
    import boto3

    client = boto3.client("s3")
    bucket, prefix = s3.removeprefix("s3://"), f"remote-{next(_numbers)}"

    def objects(contents: dict[str, bytes]) -> str:
        for name, data in contents.items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
        return f"{s3}/{prefix}"

    yield objects
    client.close()


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "gs://?anonymous=true"])
def test_a_name_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="does not name a bucket"):
        CorpusFiles([uri])


def lines(*numbers: int) -> bytes:
    rows = ({"id": f"d{n}", "text": f"text {n}", "year": n} for n in numbers)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(*numbers: int) -> bytes:
    sink = io.BytesIO()
    rows = [{"id": f"d{n}", "text": f"text {n}", "year": n} for n in numbers]
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


EVERY = {
    "a.jsonl": lines(0, 1),
    "b.jsonl.gz": gzip.compress(lines(2, 3)),
    "c.parquet": table(4, 5, 6),
    "d.csv": b"id,text,year\nd7,text 7,7\n",
    "e.tsv.gz": gzip.compress(b"id\ttext\tyear\nd8\ttext 8\t8\n"),
    "f.ndjson.zst": zstd(lines(9)),
}
ALL = [f"d{n}" for n in range(10)]


def ids(*paths: str, **options: Any) -> list[str]:
    corpus = read(paths, **options)
    found = [item.doc_id for item in corpus if isinstance(item, Document)]
    assert corpus.complete
    assert corpus.bytes_read == corpus.total_bytes
    return found


@pytest.mark.parametrize("name", EVERY)
def test_every_format_as_it_is_read_here(put: Put, tmp_path: Path, name: str) -> None:
    prefix = put({name: EVERY[name]})
    (tmp_path / name).write_bytes(EVERY[name])
    fields = {"year": "int"}
    there = list(read([f"{prefix}/{name}"], fields=fields))  # type: ignore[arg-type]
    here = list(read([tmp_path / name], fields=fields))  # type: ignore[arg-type]
    assert there
    for a, b in zip(there, here, strict=True):
        assert isinstance(a, Document)
        assert isinstance(b, Document)
        assert (a.doc_id, a.text, a.title, a.metadata) == (b.doc_id, b.text, b.title, b.metadata)
        assert a.place is not None
        assert b.place is not None
        assert (a.place.path, a.place.line) == (f"{prefix}/{name}", b.place.line)


def test_a_folder_is_read_in_order_and_says_what_it_skips(put: Put) -> None:
    prefix = put(
        EVERY | {".hidden.jsonl": b"{}", "x.exe": b"-", "deep/er/note.txt": b"some text", "_SUCCESS": b""}
    )
    assert ids(prefix) == ids(f"{prefix}/") == [*ALL[:8], "deep/er/note.txt", *ALL[8:]]
    skipped = [entry for entry in CorpusFiles([prefix]).walk() if isinstance(entry, Skipped)]
    assert [(e.path.removeprefix(f"{prefix}/"), e.reason) for e in skipped] == [
        (".hidden.jsonl", "hidden"), ("_SUCCESS", "unknown type"), ("x.exe", "unknown type"),
    ]  # fmt: skip
    [text] = [item for item in read([f"{prefix}/deep/er/note.txt"]) if isinstance(item, Document)]
    assert (text.doc_id, text.title, text.text) == (f"{prefix}/deep/er/note.txt", "note", "some text")
    assert text.metadata["modified"] > "2026"
    for path in (f"{prefix}/deep/er/note.txt", f"{prefix}/deep", f"{prefix}/deep/*/note.txt", prefix):
        [text] = read([path], selection=Selection(root=prefix, include=["*.txt"]))
        assert text.doc_id == "deep/er/note.txt", path
    with pytest.raises(UsageError, match="is not inside --root"):
        CorpusFiles([f"{prefix}/deep"], None, Selection(root=f"{prefix}/other"))


def test_globs(put: Put) -> None:
    prefix = put({
        "2026-01/a.jsonl": lines(0), "2026-02/b.jsonl": lines(1),
        "2026-02/deep/c.jsonl.gz": gzip.compress(lines(2)),
        "2027-01/d.jsonl": lines(3), "2026-02/.e.jsonl": lines(4), "2026-02/readme.exe": b"-",
    })  # fmt: skip
    assert ids(f"{prefix}/2026-*/*.jsonl") == ["d0", "d1"]
    assert ids(f"{prefix}/**/*.jsonl*") == ["d0", "d1", "d2", "d3"]
    assert ids(f"{prefix}/202[7]-01") == ["d3"]
    assert ids(f"{prefix}/2026-02/**") == ["d1", "d2"]
    assert ids(f"{prefix}/2026-*") == ["d0", "d1", "d2"], "folders that match are read whole"
    for nothing in ("*.csv", "2028-*/*.jsonl", "nowhere/*"):
        with pytest.raises(UsageError, match="no file, directory or match"):
            CorpusFiles([f"{prefix}/{nothing}"])


def test_names_are_taken_as_they_are_written(put: Put) -> None:
    odd = ["a b.jsonl", "ü 界.jsonl", "100%25.jsonl", "a+b&c=d#e.jsonl"]
    prefix = put({name: lines(n) for n, name in enumerate(odd)})
    for n, name in enumerate(odd):
        assert ids(f"{prefix}/{name}") == [f"d{n}"]
    assert len(ids(prefix)) == len(odd)


def test_here_and_there_in_one_run(put: Put, tmp_path: Path) -> None:
    prefix = put({"a.jsonl": lines(0, 1)})
    (tmp_path / "b.jsonl").write_bytes(lines(2))
    assert ids(str(tmp_path / "b.jsonl"), f"{prefix}/a.jsonl") == ["d2", "d0", "d1"]


def test_a_format_that_is_asked_for(put: Put) -> None:
    prefix = put({"part-00000": lines(0), "part-00001": lines(1), "x.csv": b"id,text\na,b\n"})
    assert ids(prefix, format="jsonl") == ["d0", "d1"]
    assert ids(f"{prefix}/part-00001", format="jsonl") == ["d1"]
    with pytest.raises(UsageError, match="does not show its format"):
        CorpusFiles([f"{prefix}/part-00000"])
    with pytest.raises(UsageError, match="holds no file to read"):
        CorpusFiles([put({"only/x.csv": b"id,text"}) + "/only"], "parquet")


def test_large_files_are_streamed(put: Put) -> None:
    """Beyond the buffer of one request, and lines across its end."""
    rows = b"".join(
        json.dumps({"id": f"d{n}", "text": f"{n} " + "long text " * 1000}).encode() + b"\n"
        for n in range(1_200)
    )
    assert len(rows) > 10_000_000
    prefix = put({"a.jsonl": rows, "b.jsonl.gz": gzip.compress(rows.replace(b'"d', b'"e'))})
    assert len(ids(prefix)) == 2_400


def test_damaged_files_are_told_and_the_others_read(put: Put) -> None:
    whole = gzip.compress(lines(*range(500)))
    prefix = put({"a.jsonl.gz": whole[: len(whole) // 2], "b.parquet": b"PAR1 no", "c.jsonl": lines(1)})
    corpus = read([prefix])
    assert [item.doc_id for item in corpus if isinstance(item, Document)][-1] == "d1"
    assert [(e.place.path.rpartition("/")[2], e.reason[:24]) for e in corpus.read_errors] == [
        ("a.jsonl.gz", "the gzip data ends too e"), ("b.parquet", "cannot be read as Parque"),
    ]  # fmt: skip
    assert not corpus.complete


def test_a_file_that_goes_away_is_a_read_error(put: Put, s3: str) -> None:
    import boto3

    prefix = put({"a.jsonl": lines(0), "b.jsonl": lines(1)})
    places = read([f"{prefix}/a.jsonl", f"{prefix}/b.jsonl"])
    client = boto3.client("s3")
    client.delete_object(Bucket=s3.removeprefix("s3://"), Key=f"{prefix.removeprefix(s3)[1:]}/a.jsonl")
    client.close()
    assert [item.doc_id for item in places if isinstance(item, Document)] == ["d1"]
    [error] = places.read_errors
    assert error.place.path == f"{prefix}/a.jsonl"
    assert not places.complete, "so that a sync removes nothing"


def test_what_cannot_be_read_is_said_at_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no file, directory or match"):
        CorpusFiles([f"{s3}/nowhere/a.jsonl"])
    with pytest.raises(UsageError, match="Access keys do not belong in the name"):
        CorpusFiles(["s3://key:secret@bucket/a.jsonl"])
    with pytest.raises(UsageError, match="no folder that can be opened"):
        CorpusFiles(["nonsense://bucket/a.jsonl"])
    options = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(UnreachableError, match=r"s3://corpus/a\.jsonl"):
        CorpusFiles([f"s3://corpus/a.jsonl?{options}"])
    with pytest.raises(NotAuthorisedError), mapped("s3://x", local=False):
        raise OSError("AWS Error ACCESS_DENIED during HeadObject")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(put: Put) -> None:
    prefix = put({"a/b.jsonl": lines(0)})
    places = CorpusFiles([prefix])

    class Away:
        def get_file_info(self, _: Any) -> Any:
            raise OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2")

    folder = Remote.of(prefix)
    object.__setattr__(folder, "fs", Away())
    with pytest.raises(UnreachableError):
        folder.listing()
    [entry] = places._remote_folder(folder)
    assert isinstance(entry, Unlisted)
    assert any(isinstance(e, File) for e in places.walk())


def test_the_options_of_a_store_stay_with_its_files(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    prefix = put({"a.jsonl": lines(0)})
    address = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = f"?endpoint_override={address}&scheme=http"
    [entry] = CorpusFiles([prefix + options]).walk()
    assert isinstance(entry, File)
    assert (entry.path, entry.name) == (f"{prefix}/a.jsonl{options}", "a.jsonl")
    assert ids(entry.path) == ["d0"]


def test_what_fsspec_opens() -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name, data in {"m3index/a.jsonl": lines(0), "m3index/deep/b.parquet": table(1, 2)}.items():
        system.pipe(f"/{name}", data)
    assert ids("memory://m3index") == ["d0", "d1", "d2"]
    assert ids("memory://m3index/**/*.parquet") == ["d1", "d2"]
    system.rm("/m3index", recursive=True)


def test_what_is_remote() -> None:
    assert is_remote("s3://bucket/key")
    assert not is_remote("file:///tmp/a.jsonl")
    assert not is_remote("a/b.jsonl")
