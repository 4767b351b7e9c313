"""`m3index collections list`, `drop` and `unlock`, and their messages for missing collections."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from servers import lite_server
from terminal import ROWS, Command, Done, configure, write_jsonl

from m3index import schema
from m3index.index.lock import Holder
from m3index.store.open import open_store
from m3index.store.options import Connection

EVENT = Draft202012Validator(schema.load("event.schema.json"))
NAMES = ("docs", "notes")


@pytest.fixture
def two(m3index: Command, dense_model: Path, corpus: Path) -> Command:
    """The commands, on a store of two collections; `docs` has two generations."""
    for name in NAMES:
        assert m3index("ingest", corpus, "-e", dense_model, "-c", name).code == 0
    assert m3index("reindex").code == 0
    return m3index


def names(m3index: Command) -> list[str]:
    return [line["name"] for line in m3index("collections", "list", "--json").lines[:-1]]


def one_line(done: Done) -> str:
    assert done.out == ""
    [line] = done.err.splitlines()
    return line


# -- list


def test_list_as_json_follows_the_schema(two: Command, dense_model: Path) -> None:
    done = two("collections", "list", "--json")
    assert (done.code, done.err) == (0, "")
    for line in done.lines:
        EVENT.validate(line)
    docs, notes, summary = done.lines
    assert (docs["name"], docs["serving"], docs["generations"]) == ("docs", 2, 2)
    assert (notes["name"], notes["serving"], notes["generations"]) == ("notes", 1, 1)
    for line in (docs, notes):
        assert (line["type"], line["rows"], line["sparse"]) == ("collection", len(ROWS), "bm25")
        assert line["encoder"] == str(dense_model)
        assert line["last_success"] is not None
    assert (summary["command"], summary["collections"], summary["exit"]) == ("collections list", 2, 0)


def test_list_for_people_loses_nothing_at_80_columns(two: Command, dense_model: Path) -> None:
    out = two("collections", "list").out
    lines = out.splitlines()
    assert lines[0].split() == [
        *("collection", "encoder", "sparse", "rows", "generations", "last", "success"),
    ]
    assert "\x1b" not in out
    assert all(cell_len(line) <= 80 and line == line.rstrip() for line in lines)
    for name in NAMES:
        assert [line for line in lines if line.startswith(f"{name} ")]
    start = lines[0].index("encoder")
    end = lines[0].index("sparse")
    folded = [line[start:end].strip() for line in lines[1:]]
    assert "".join(folded) == str(dense_model) * 2


def test_list_is_for_every_collection(two: Command) -> None:
    """The default collection does not matter, so there is no option for it."""
    for name in ("notes", "nothing"):
        assert len(two("collections", "list", "--json", M3INDEX_COLLECTION=name).lines) == 3
    assert two("collections", "list", "-c", "notes").code == 2


def test_a_store_without_collections(two: Command) -> None:
    for name in NAMES:
        assert two("collections", "drop", name, "--yes").code == 0
    done = two("collections", "list")
    assert (done.code, done.out) == (0, "")
    assert done.err == "There are no collections at m3index.db.\n"
    assert "collections: none" in one_line(two("status"))


def test_a_store_that_is_not_there(m3index: Command, tmp_path: Path) -> None:
    done = m3index("collections", "list", "--uri", "nothing.db")
    assert done.code == 10
    assert "m3index ingest" in one_line(done)
    assert not (tmp_path / "nothing.db").exists()


# -- drop


def test_drop_asks_and_nobody_is_there(two: Command) -> None:
    done = two("collections", "drop", "docs")
    assert done.code == 2
    assert one_line(done) == (
        f"error: Remove the collection 'docs', with 2 generations, {2 * len(ROWS)} rows? Confirm with --yes."
    )
    assert names(two) == [*NAMES]
    as_json = two("collections", "drop", "docs", "--json")
    assert (as_json.code, as_json.err) == (2, done.err)
    assert [line["type"] for line in as_json.lines] == ["error", "summary"]
    assert names(two) == [*NAMES]


@pytest.mark.parametrize(("answer", "left"), [("y", ["docs"]), ("n", [*NAMES]), ("", [*NAMES])])
def test_drop_does_what_is_answered(
    two: Command, monkeypatch: pytest.MonkeyPatch, answer: str, left: list[str]
) -> None:
    monkeypatch.setattr("m3index.cli.session.is_interactive", lambda: True)
    done = two("collections", "drop", "notes", stdin=f"{answer}\n")
    assert f"Remove the collection 'notes', with 1 generation, {len(ROWS)} rows?" in done.err
    assert (done.code, "Nothing was removed." in done.err) == (0, answer != "y")
    assert names(two) == left


def test_a_no_is_not_an_error(two: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3index.cli.session.is_interactive", lambda: True)
    declined = two("collections", "drop", "notes", "--json", stdin="n\n")
    assert declined.code == 0
    summary = json.loads(declined.out.splitlines()[-1])  # typer's test runner echoes the answer
    assert summary.keys() == {"type", "time", "run", "command", "seconds", "exit"}
    assert (summary["type"], summary["command"], summary["exit"]) == ("summary", "collections drop", 0)
    document = ROWS[0]["id"]
    declined = two("delete", document, "-c", "notes", stdin="n\n")
    assert (declined.code, declined.err.endswith("Nothing was removed.\n")) == (0, True)
    assert two("search", "--similar", document, "-c", "notes").code == 0


def test_no_answer_is_an_interruption(two: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C and the end of the input are the same for typer."""
    monkeypatch.setattr("m3index.cli.session.is_interactive", lambda: True)
    ended = two("collections", "drop", "notes", stdin="")
    assert (ended.code, "error: interrupted" in ended.err) == (130, True)
    assert names(two) == [*NAMES]


def test_drop_only_says_what_it_would_do(two: Command) -> None:
    done = two("collections", "drop", "docs", "--dry-run")
    rows = 2 * len(ROWS)
    assert (done.code, one_line(done)) == (0, f"docs: would be removed, with 2 generations, {rows} rows.")
    summary = two("collections", "drop", "docs", "--dry-run", "--yes", "--json").summary
    EVENT.validate(summary)
    assert (summary["dry_run"], summary["collection"], summary["rows"]) == (True, "docs", rows)
    assert summary["generations"] == 2
    assert names(two) == [*NAMES]


def test_drop_removes_every_generation_and_no_other_collection(two: Command) -> None:
    before = two("search", "fox", "-c", "notes", "--json").hits
    done = two("collections", "drop", "docs", "--yes", "--json")
    EVENT.validate(done.summary)
    assert (done.code, done.err, done.summary["dry_run"], done.summary["generations"]) == (0, "", False, 2)
    assert names(two) == ["notes"]
    with closing(open_store(Connection(uri="m3index.db"))) as store:
        assert list(store.collections()) == ["notes__g1"]
    assert two("search", "fox", "-c", "notes", "--json").hits == before
    assert two("generations", "list").code == 10
    said = one_line(two("collections", "drop", "notes", "--yes"))
    assert said == f"notes: removed, with 1 generation, {len(ROWS)} rows."


def test_drop_goes_by_its_argument_alone(two: Command) -> None:
    """Not by the variable, the file or -c: what is removed is written out."""
    configure('collection = "docs"\n')
    for arguments in (["--yes"], ["-c", "docs", "--yes"]):
        assert two("collections", "drop", *arguments, M3INDEX_COLLECTION="docs").code == 2
    assert two("collections", "drop", "notes", "--yes", M3INDEX_COLLECTION="docs").code == 0
    assert names(two) == ["docs"]


def test_yes_and_a_dry_run_are_no_variables(two: Command) -> None:
    assert two("collections", "drop", "docs", M3INDEX_YES="1").code == 2
    assert two("collections", "drop", "docs", "--yes", M3INDEX_DRY_RUN="1").code == 0
    assert names(two) == ["notes"]


def test_a_dropped_name_is_free_again(two: Command, m3_model: Path, corpus: Path) -> None:
    """Also for an encoder whose vectors could not have been put beside the old ones."""
    assert two("ingest", corpus, "-e", m3_model, "-c", "notes").code == 13
    assert two("collections", "drop", "notes", "--yes").code == 0
    assert two("ingest", corpus, "-e", m3_model, "-c", "notes").code == 0


# -- a wrong name


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "-c", "nope"],
        ["search", "fox", "-c", "nope"],
        ["search", "--similar", "fox-en", "-c", "nope"],
        ["search", "--queries", "q.tsv", "-o", "run.trec", "-c", "nope"],
        ["verify", "corpus.jsonl", "-c", "nope"],
        ["delete", "fox-en", "--yes", "-c", "nope"],
        ["reindex", "-c", "nope"],
        ["generations", "list", "-c", "nope"],
        ["generations", "rollback", "-c", "nope"],
        ["collections", "drop", "nope", "--yes"],
        ["collections", "drop", "nope", "--dry-run"],
        ["collections", "unlock", "-c", "nope"],
        ["collections", "unlock", "-c", "nope", "--dry-run"],
        ["shards", "export", "-o", "out", "-c", "nope"],
        ["models", "drift", "-c", "nope"],
        ["eval", "--queries", "q.tsv", "--qrels", "qrels.tsv", "-c", "nope"],
        ["tune", "--queries", "q.tsv", "--qrels", "qrels.tsv", "-c", "nope"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_wrong_name_lists_the_collections_there_are(shared: Command, arguments: list[str]) -> None:
    Path("q.tsv").write_text("1\tfox\n")
    Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tfox-en\t1\n")
    write_jsonl(Path("corpus.jsonl"), ROWS)
    done = shared(*arguments)
    assert done.code == 10, done
    assert "There is no collection 'nope' at " in one_line(done)
    assert "docs, notes" in done.err
    assert not Path("run.trec").exists()


@pytest.fixture(scope="module")
def shared_database(tmp_path_factory: pytest.TempPathFactory, dense_model: Path) -> Path:
    from m3index import Document, Index

    path = tmp_path_factory.mktemp("collections") / "shared.db"
    for name in NAMES:
        with Index(name, uri=str(path), encoder=str(dense_model)) as index:
            index.ingest([Document("fox-en", "the quick brown fox")])
    return path


@pytest.fixture
def shared(m3index: Command, shared_database: Path) -> Command:
    return lambda *arguments, **more: m3index(*arguments, "--uri", shared_database, **more)


# -- unlock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lite_server(tmp_path_factory.mktemp("server") / "data") as uri:
        yield uri


def test_unlock_frees_the_lease_of_a_dead_host(
    m3index: Command, dense_model: Path, corpus: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3index.index.lock.SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("M3INDEX_URI", server)
    assert m3index("ingest", corpus, "-e", dense_model).code == 0
    assert one_line(m3index("collections", "unlock")) == "'docs' is not locked."

    holder = Holder("x", "another machine", "node7", 4242, "ann", "m3index sync", "2026-01-01T00:00:00+00:00")
    with closing(open_store(Connection(uri=server))) as store:
        lease = replace(holder, expires=time.time() + 1000).to_json()
        store.set_properties("docs__g1", {"lease": lease})
    locked = m3index("sync", corpus)
    assert locked.code == 11
    assert str(holder) in locked.err

    planned = m3index("collections", "unlock", "--dry-run")
    assert (planned.code, one_line(planned)) == (0, f"The lease of {holder} would be freed.")
    summary = m3index("collections", "unlock", "--dry-run", "--json").summary
    EVENT.validate(summary)
    assert (summary["freed"], summary["dry_run"]) == (str(holder), True)
    assert m3index("sync", corpus).code == 11

    done = m3index("collections", "unlock", "--json")
    EVENT.validate(done.summary)
    assert (done.code, done.summary["freed"], done.summary["dry_run"]) == (0, str(holder), False)
    assert m3index("collections", "unlock", "--json").summary["freed"] is None
    assert m3index("sync", corpus).code == 0
