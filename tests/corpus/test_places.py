from __future__ import annotations

import os
from pathlib import Path

import pytest

from m3index.corpus.places import CorpusFiles, File, Skipped, Unlisted
from m3index.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")


def files(*paths: str, asked: str | None = None) -> list[tuple[str, str, str]]:
    return [(f.path, f.name, f.format) for f in CorpusFiles(paths, asked).walk() if isinstance(f, File)]


def skipped(*paths: str, asked: str | None = None) -> list[str]:
    return [f.path for f in CorpusFiles(paths, asked).walk() if isinstance(f, Skipped)]


def test_suffixes(here: Path) -> None:
    names = [
        "a.jsonl",
        "b.ndjson",
        "c.JSONL.GZ",
        "d.jsonl.zst",
        "e.parquet",
        "f.csv.gz",
        "g.tsv",
        "h.md",
        "i.txt.gz",
    ]
    make(*names)
    formats = [form for _, _, form in files(*names)]
    assert formats == ["jsonl"] * 4 + ["parquet", "csv", "tsv", "text", "text"]


def test_a_database_and_a_quarantine_beside_the_corpus_are_no_part_of_it(here: Path) -> None:
    make("d/a.jsonl", "d/m3index.db/collections/docs__g1/data.parquet", "d/m3index-quarantine.jsonl")
    make("d/notes.db/b.jsonl", "d/m3index-quarantine-1.jsonl")
    assert [path for path, _, _ in files("d")] == ["d/a.jsonl", "d/notes.db/b.jsonl"]
    assert skipped("d") == ["d/m3index-quarantine-1.jsonl", "d/m3index-quarantine.jsonl", "d/m3index.db"]
    assert len(files("d/m3index-quarantine.jsonl")) == 1, "where it is named"


def test_directories_are_walked_in_order_and_name_what_they_skip(here: Path) -> None:
    make("d/b.txt", "d/a/z.md", "d/a.txt", "d/x.pdf", "d/.hidden/y.txt", "d/_SUCCESS", "d/k.json")
    assert files("d") == [
        ("d/a/z.md", "a/z.md", "text"),
        ("d/a.txt", "a.txt", "text"),
        ("d/b.txt", "b.txt", "text"),
    ]
    assert skipped("d") == ["d/.hidden", "d/_SUCCESS", "d/k.json", "d/x.pdf"]
    assert [name for _, name, _ in files("d/")] == ["a/z.md", "a.txt", "b.txt"]


def test_files_and_globs_are_known_by_the_path_as_given(here: Path) -> None:
    make("n/a.txt", "n/b.txt", "n/c.pdf")
    assert files("./n//a.txt") == [("./n//a.txt", "n/a.txt", "text")]
    assert [name for _, name, _ in files("n/*")] == ["n/a.txt", "n/b.txt"]
    assert skipped("n/*") == ["n/c.pdf"]
    assert [name for _, name, _ in files("n/b.txt", "n/a.txt")] == ["n/b.txt", "n/a.txt"]
    assert [name for _, name, _ in files("**/*.txt")] == ["n/a.txt", "n/b.txt"]


def test_a_file_whose_name_looks_like_a_glob(here: Path) -> None:
    make("a[1].txt", "a1.txt")
    assert files("a[1].txt") == [("a[1].txt", "a[1].txt", "text")]


def test_a_format_that_is_asked_for(here: Path) -> None:
    make("d/part-0", "d/part-1.gz", "d/x.jsonl", "d/readme.md", "d/b.bin", "odd.name")
    assert [f[0] for f in files("d", asked="jsonl")] == ["d/part-0", "d/part-1.gz", "d/x.jsonl"]
    assert skipped("d", asked="jsonl") == ["d/b.bin", "d/readme.md"]
    assert files("odd.name", asked="csv") == [("odd.name", "odd.name", "csv")]


@pytest.mark.parametrize(
    ("paths", "form", "says"),
    [
        (["gone.jsonl"], None, "no file, directory or match for 'gone.jsonl'"),
        (["a.txt", "*.nope"], None, r"'\*.nope'"),
        (["x.json"], None, "set --input-format jsonl|parquet"),
        (["a.parquet.gz"], None, "set --input-format"),
        (["empty"], None, "holds no file to read"),
        (["link"], None, "is a broken link"),
        (["a.txt"], "xml", "no format 'xml'"),
        ([], None, "Nothing to read"),
        (["-", "-"], None, "only once"),
        (["-"], "parquet", "cannot be read from stdin"),
        (["-"], "text", "cannot be read from stdin"),
    ],
)
def test_what_cannot_be_is_said_at_once(here: Path, paths: list[str], form: str | None, says: str) -> None:
    make("a.txt", "x.json", "a.parquet.gz", "empty/x.pdf")
    Path("link").symlink_to("nowhere")
    with pytest.raises(UsageError, match=says.replace("|", r"\|")):
        CorpusFiles(paths, form)


def test_links_to_directories_are_not_followed(here: Path) -> None:
    make("d/a.txt")
    Path("d/loop").symlink_to("..")
    assert [f[1] for f in files("d")] == ["a.txt"]
    assert skipped("d") == ["d/loop"]


def test_pipes_are_jsonl_of_unknown_size(here: Path) -> None:
    os.mkfifo("pipe")
    [entry] = CorpusFiles(["pipe"]).walk()
    assert entry == File("pipe", "pipe", "jsonl", "", None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_listed(here: Path) -> None:
    make("d/a.txt", "d/closed/b.txt")
    Path("d/closed").chmod(0)
    try:
        assert [type(e) for e in CorpusFiles(["d"]).walk()] == [File, Unlisted]
    finally:
        Path("d/closed").chmod(0o700)
