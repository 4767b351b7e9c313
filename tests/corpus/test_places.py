from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from m3index.corpus.places import CorpusFiles, File, Skipped, Unlisted
from m3index.corpus.selection import Selection
from m3index.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")


def files(*paths: str, asked: str | None = None, **choice: Any) -> list[tuple[str, str, str]]:
    places = CorpusFiles(paths, asked, Selection(**choice))
    return [(f.path, f.name, f.format) for f in places.walk() if isinstance(f, File)]


def names(*paths: str, **choice: Any) -> list[str]:
    return [name for _, name, _ in files(*paths, **choice)]


def skipped(*paths: str, asked: str | None = None) -> list[str]:
    return [f.path for f in CorpusFiles(paths, asked).walk() if isinstance(f, Skipped)]


def reasons(*paths: str, **choice: Any) -> dict[str, str]:
    places = CorpusFiles(paths, None, Selection(**choice))
    return {f.name: f.reason for f in places.walk() if isinstance(f, Skipped)}


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
    assert formats == ["jsonl"] * 4 + ["parquet", "csv", "tsv", "markdown", "text"]


def test_a_database_and_a_quarantine_beside_the_corpus_are_no_part_of_it(here: Path) -> None:
    make("d/a.jsonl", "d/m3index.db/collections/docs__g1/data.parquet", "d/m3index-quarantine.jsonl")
    make("d/notes.db/b.jsonl", "d/m3index-quarantine-1.jsonl")
    assert [path for path, _, _ in files("d")] == ["d/a.jsonl", "d/notes.db/b.jsonl"]
    assert skipped("d") == ["d/m3index-quarantine-1.jsonl", "d/m3index-quarantine.jsonl", "d/m3index.db"]
    assert len(files("d/m3index-quarantine.jsonl")) == 1, "where it is named"


def test_directories_are_walked_in_order_and_name_what_they_skip(here: Path) -> None:
    make("d/b.txt", "d/a/z.md", "d/a.txt", "d/x.exe", "d/.hidden/y.txt", "d/_SUCCESS", "d/k.xml")
    assert files("d") == [
        ("d/a/z.md", "a/z.md", "markdown"),
        ("d/a.txt", "a.txt", "text"),
        ("d/b.txt", "b.txt", "text"),
    ]
    assert skipped("d") == ["d/.hidden", "d/_SUCCESS", "d/k.xml", "d/x.exe"]
    assert [name for _, name, _ in files("d/")] == ["a/z.md", "a.txt", "b.txt"]


def test_files_and_globs_are_known_by_the_path_as_given(here: Path) -> None:
    make("n/a.txt", "n/b.txt", "n/c.exe")
    assert files("./n//a.txt") == [("./n//a.txt", "n/a.txt", "text")]
    assert [name for _, name, _ in files("n/*")] == ["n/a.txt", "n/b.txt"]
    assert skipped("n/*") == ["n/c.exe"]
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
        (["x.xyz"], None, "set --input-format jsonl|json|parquet"),
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
    make("a.txt", "x.xyz", "a.parquet.gz", "empty/x.exe")
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


def test_a_shell_expands_a_pattern_to_files_of_all_kinds(here: Path) -> None:
    """`ingest notes/*` reads what it can."""
    make("n/a.txt", "n/b.exe", "n/img/c.exe", "n/sub/d.txt", "n/LICENSE")
    Path("n/gone.txt").symlink_to("nowhere")
    os.mkfifo("n/pipe.txt")
    given = sorted(str(path) for path in Path("n").iterdir())
    assert names(*given) == ["n/a.txt", "d.txt"]
    assert names(*given, root="n") == ["a.txt", "sub/d.txt"]
    assert reasons(*given, root="n") == {
        "LICENSE": "unknown type",
        "b.exe": "unknown type",
        "gone.txt": "a broken link",
        "img/c.exe": "unknown type",
        "pipe.txt": "not a regular file",
    }


def test_a_directory_that_is_empty_beside_others_may_not_be_mounted(here: Path) -> None:
    make("a.txt")
    Path("disk").mkdir()
    [_, entry] = CorpusFiles(["a.txt", "disk"]).walk()
    assert entry == Unlisted("disk", "the directory is empty")


@pytest.mark.parametrize(
    "path",
    ["n/s/é.txt", "./n//s/é.txt", "n/../n/s/é.txt", "{here}/n/s/é.txt", "n/s", "n", "n/*/*.txt", "n/**"],
)
def test_a_file_has_one_name_within_a_root(here: Path, path: str) -> None:
    make("n/s/e\u0301.txt")
    path = path.format(here=here).replace("é", "e\u0301")
    for root in ("n", "./n/", f"{here}/n"):
        assert names(path, root=root) == ["s/é.txt"]


@pytest.mark.parametrize("path", ["n/a.txt", "./n//a.txt", "n/../n/a.txt", "{here}/n/a.txt", "n/*.txt"])
def test_a_file_has_one_name_within_the_working_directory(here: Path, path: str) -> None:
    make("n/a.txt")
    assert names(path.format(here=here)) == ["n/a.txt"]


def test_a_file_outside_the_working_directory_has_its_whole_path(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("n/a.txt", "m/b.txt")
    monkeypatch.chdir("m")
    assert names("../n/a.txt") == [f"{here}/n/a.txt"]
    with pytest.raises(UsageError, match=r"is not inside --root \."):
        files("../n/a.txt", root=".")


TREE = ["a.txt", "b.txt", "guide/c.txt", "guide/old/d.txt", "guide/old/e.txt", "build/f.txt", ".git/g.txt"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"exclude": ["/a.txt", "build/"]}, ["b.txt", "guide/c.txt", "guide/old/d.txt", "guide/old/e.txt"]),
        (
            {"exclude": ["d.*", "/guide/old/*", "!e.txt"]},
            ["a.txt", "b.txt", "build/f.txt", "guide/c.txt", "guide/old/e.txt"],
        ),
        ({"exclude": ["d.txt", "/build"]}, ["a.txt", "b.txt", "guide/c.txt", "guide/old/e.txt"]),
        ({"exclude": ["*", "!/guide", "!c.txt"]}, ["guide/c.txt"]),
        ({"include": ["guide/**"]}, ["guide/c.txt", "guide/old/d.txt", "guide/old/e.txt"]),
        ({"include": ["guide/"], "exclude": ["old"]}, ["guide/c.txt"]),
        ({"include": ["[ab].txt"]}, ["a.txt", "b.txt"]),
        ({"hidden": True, "include": ["g.txt"]}, [".git/g.txt"]),
    ],
)
def test_patterns(here: Path, choice: dict[str, Any], expected: list[str]) -> None:
    make(*(f"d/{name}" for name in TREE))
    assert names("d", **choice) == expected
    given = reasons("d", **choice)
    assert all(any(name.startswith(skip) for skip in given) for name in {*TREE} - {*expected})
    assert {*given.values()} <= {"excluded", "not included", "hidden"}


def test_patterns_are_those_of_git(here: Path) -> None:
    patterns = ["*.log", "!keep.log", "/top.txt", "sub/", "a/**/z.txt", "x?y.txt", "[!a-m].md", "#no"]
    tree = [
        "top.txt", "d/top.txt", "q.log", "keep.log", "d/keep.log", "sub/q.txt", "d/sub/q.txt", "f/sub",
        "a/z.txt", "a/b/z.txt", "a/b/c/z.txt", "b/z.txt", "x1y.txt", "xy.txt", "b.md", "n.md", "#no",
    ]  # fmt: skip
    make(*(f"d/{name}" for name in tree))
    Path("d/.gitignore").write_text("\n".join(patterns) + "\n")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", "d"], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd="d", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kept = {name for name in listed.split("\0") if name and name != ".gitignore"}
    given = reasons("d", exclude=patterns)
    assert {name for name in tree if not any(name.startswith(skip) for skip in refused(given))} == kept


def refused(given: dict[str, str]) -> list[str]:
    return [name for name, reason in given.items() if reason == "excluded"]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"root": "nowhere"}, "--root: there is no folder 'nowhere'"),
        ({"exclude": ["!"]}, "--exclude takes patterns as in a .gitignore"),
        ({"include": ["[z-a]"]}, "--include takes patterns as in a .gitignore"),
    ],
)
def test_a_wrong_selection(choice: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Selection(**choice)


def test_a_file_that_is_excluded_and_alone_is_an_error(here: Path) -> None:
    make("a.txt")
    with pytest.raises(UsageError, match=r"'a\.txt' is excluded"):
        files("a.txt", exclude=["*.txt"])


def test_empty_files_are_skipped_in_directories(here: Path) -> None:
    make("d/a.txt")
    Path("d/b.jsonl").touch()
    assert reasons("d") == {"b.jsonl": "empty"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_listed(here: Path) -> None:
    make("d/a.txt", "d/closed/b.txt")
    Path("d/closed").chmod(0)
    try:
        assert [type(e) for e in CorpusFiles(["d"]).walk()] == [File, Unlisted]
    finally:
        Path("d/closed").chmod(0o700)
