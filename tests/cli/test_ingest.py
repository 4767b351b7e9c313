"""`m3index ingest`: every format, only what changed, bad rows, declared fields."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import samples
from jsonschema import Draft202012Validator
from terminal import ROWS, Command, write_jsonl

from m3index import schema
from m3index.documents.kinds import is_installed


def as_jsonl(folder: Path) -> list[str]:
    return [str(write_jsonl(folder / "a.jsonl", ROWS))]


def as_gzip(folder: Path) -> list[str]:
    text = write_jsonl(folder / "plain", ROWS).read_bytes()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(text))
    return ["a.jsonl.gz"]


def as_zstd(folder: Path) -> list[str]:
    text = write_jsonl(folder / "plain", ROWS).read_bytes()
    with pa.CompressedOutputStream(str(folder / "a.jsonl.zst"), "zstd") as out:
        out.write(text)
    return ["a.jsonl.zst"]


def as_parquet(folder: Path) -> list[str]:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in ROWS]), folder / "a.parquet")
    return ["a.parquet"]


def as_csv(folder: Path, delimiter: str = ",") -> list[str]:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "title", "text", "lang", "year"], delimiter=delimiter, restval="")
    writer.writeheader()
    writer.writerows(ROWS)
    name = "a.csv" if delimiter == "," else "a.tsv"
    (folder / name).write_text(out.getvalue(), "utf-8")
    return [name]


def as_tsv(folder: Path) -> list[str]:
    return as_csv(folder, "\t")


def as_text(folder: Path) -> list[str]:
    (folder / "texts").mkdir()
    for row in ROWS:
        (folder / "texts" / f"{row['id']}.txt").write_text(row["text"], "utf-8")
    return ["texts"]


def as_directory(folder: Path) -> list[str]:
    (folder / "corpus" / "inner").mkdir(parents=True)
    write_jsonl(folder / "corpus" / "one.jsonl", ROWS[:3])
    write_jsonl(folder / "corpus" / "inner" / "two.jsonl", ROWS[3:])
    return ["corpus"]


def as_glob_and_path(folder: Path) -> list[str]:
    write_jsonl(folder / "p1.jsonl", ROWS[:2])
    write_jsonl(folder / "p2.jsonl", ROWS[2:4])
    write_jsonl(folder / "other.jsonl", ROWS[4:])
    return ["p?.jsonl", "other.jsonl"]


@pytest.mark.parametrize(
    "make",
    [as_jsonl, as_gzip, as_zstd, as_parquet, as_csv, as_tsv, as_text, as_directory, as_glob_and_path],
    ids=lambda make: make.__name__.removeprefix("as_"),
)
def test_every_format(
    m3index: Command, dense_model: Path, tmp_path: Path, make: Callable[[Path], list[str]]
) -> None:
    paths = make(tmp_path)
    done = m3index("ingest", *paths, "-e", dense_model, "--json")
    assert done.code == 0, done
    assert (done.summary["scanned"], done.summary["added"]) == (len(ROWS), len(ROWS))
    assert done.summary["count_ok"] is True
    found = m3index("search", "quick brown fox", "--mode", "sparse", "-k", 1, "--json").hits[0]
    assert found["text"] == ROWS[0]["text"]
    assert found["doc_id"] == ("fox-en.txt" if make is as_text else "fox-en")
    assert found.get("title", "") == ("fox-en" if make is as_text else "Fox")


@pytest.mark.skipif(not is_installed("pdf"), reason="the extra `documents` is not installed")
def test_documents(m3index: Command, dense_model: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "tides.md").write_text(samples.MARKDOWN)
    (notes / "bread.html").write_text(samples.HTML)
    (notes / "sea.pdf").write_bytes(samples.pdf(["The quick brown fox"]))
    (notes / "scan.pdf").write_bytes(samples.pdf([""]))
    done = m3index("ingest", "notes", "-e", dense_model, "--field", "lang:str", "--field", "year:int")
    assert done.code == 3, done
    assert "quarantined notes/scan.pdf: it has 1 page and no text: a scan?" in done.err
    assert "1 file that cannot be read is listed in" in done.err
    assert "4 documents read, 3 added, 0 unchanged, 1 quarantined." in done.err
    [found] = m3index("search", "moon", "--where", "year=2011", "--json").hits
    assert (found["doc_id"], found["title"], found["metadata"]["tags"]) == (
        "tides.md",
        "Tides",
        ["sea", "moon"],
    )
    [found] = m3index("search", "fox", "--filter", 'lang == "de"', "--json").hits
    assert (found["doc_id"], found["metadata"]["url"]) == ("bread.html", "https://example.org/brot")
    (notes / "sea.pdf").write_bytes(b"%PDF-1.4 broken")
    again = m3index("sync", "notes", "-e", dense_model, "--json")
    assert (again.code, again.summary["quarantined"], again.summary["deleted"]) == (3, 2, 0)
    [found, *_] = m3index("search", "fox", "--mode", "sparse", "--json").hits
    assert found["doc_id"] == "sea.pdf", "what cannot be read today stays"


def test_what_is_not_read_is_counted_and_listed(
    m3index: Command, dense_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    for name in ("a.txt", "b.exe", "c.exe", "d.exe", "e.exe", "draft/f.txt", ".git/g.txt"):
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text("a fox")
    (notes / "empty.txt").touch()
    counts = {"hidden": 1, "unknown type": 4, "excluded": 1, "empty": 1}
    quiet = m3index("ingest", "notes", "-e", dense_model, "--exclude", "draft/", "--json")
    assert (quiet.code, quiet.summary["skipped"], quiet.summary["added"]) == (0, counts, 1)
    assert [line for line in quiet.lines if line["type"] == "skipped"] == []
    listed = m3index("sync", "notes", "-e", dense_model, "--exclude", "draft/", "--json", "-v")
    assert [
        (line["path"], line["reason"]) for line in listed.lines if line["type"] == "skipped"
    ] == [
        ("notes/.git", "hidden"), ("notes/b.exe", "unknown type"), ("notes/c.exe", "unknown type"),
        ("notes/d.exe", "unknown type"), ("notes/draft", "excluded"), ("notes/e.exe", "unknown type"),
        ("notes/empty.txt", "empty"),
    ]  # fmt: skip
    people = m3index("verify", "notes", "--exclude", "draft/", "--verbose")
    assert people.code == 0, people
    assert "7 entries were skipped: " in people.err
    assert "--verbose lists them all." in people.err
    assert "skipped notes/draft: excluded\n" in people.err
    everything = [str(path) for path in notes.iterdir()]
    same = m3index("sync", *everything, "--root", "notes", "-e", dense_model, "--exclude", "draft/", "--json")
    assert (same.code, same.summary["unchanged"]) == (0, 1), same


def test_stdin(m3index: Command, dense_model: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    done = m3index("ingest", "-", "-e", dense_model, "--json", stdin=lines)
    assert (done.code, done.summary["added"]) == (0, len(ROWS))


def test_stdin_as_csv(m3index: Command, dense_model: Path) -> None:
    done = m3index(
        "ingest", "-", "--input-format", "csv", "-e", dense_model, "--json", stdin="id,text\n1,a fox\n"
    )
    assert (done.code, done.summary["added"]) == (0, 1)


def test_a_second_ingest_encodes_nothing(m3index: Command, dense_model: Path, corpus: Path) -> None:
    first = m3index("ingest", corpus, "-e", dense_model, "--json").summary
    second = m3index("ingest", corpus, "--json").summary
    assert first["tokens"] > 0
    assert (second["unchanged"], second["added"], second["tokens"], second["passages"]) == (7, 0, 0, 0)
    assert second["store_count"] == first["store_count"] == 7
    assert second["encoder"] == first["encoder"] == str(dense_model)
    told = m3index("ingest", corpus)
    assert "7 unchanged" in told.err
    assert "Nothing was encoded" in told.err


def test_only_what_changed_is_written(m3index: Command, dense_model: Path, corpus: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    rows = [dict(row) for row in ROWS]
    rows[0]["text"] += " twice"
    rows[1]["year"] = 99
    write_jsonl(corpus, [*rows[:5], {"id": "new", "text": "a new one"}])
    summary = m3index("ingest", corpus, "--json").summary
    counts = {name: summary[name] for name in ("added", "updated", "metadata_only", "unchanged", "deleted")}
    assert counts == {"added": 1, "updated": 1, "metadata_only": 1, "unchanged": 3, "deleted": 0}
    assert summary["store_count"] == 8


def test_a_forced_run_encodes_all(m3index: Command, dense_model: Path, corpus: Path) -> None:
    first = m3index("ingest", corpus, "-e", dense_model, "--json").summary
    again = m3index("ingest", corpus, "--force", "--json").summary
    assert again["tokens"] == first["tokens"]


def test_a_dry_run_writes_nothing(m3index: Command, dense_model: Path, corpus: Path) -> None:
    planned = m3index("ingest", corpus, "-e", dense_model, "--dry-run", "--json")
    assert (planned.code, planned.summary["added"]) == (0, 7)
    assert m3index("status").code == 10


def test_fields_are_declared_once_and_filter(m3index: Command, dense_model: Path, corpus: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model, "--field", "lang:str", "--field", "year:int")
    assert m3index("status", "--json").lines[0]["fields"] == {"lang": "str", "year": "int"}
    ids = m3index("search", "fox", "--where", "year>=3", "--where", "lang in de,ru", "--format", "ids").out
    assert sorted(ids.split()) == ["fox-de", "fox-ru"]
    ids = m3index("search", "fox", "--filter", 'lang == "th" or year == 7', "--format", "ids").out
    assert sorted(ids.split()) == ["book-en", "fox-th"]
    again = m3index("ingest", corpus, "--field", "lang:str")
    assert again.code == 0
    other = m3index("ingest", corpus, "--field", "lang:int")
    assert other.code == 13
    assert "lang:str, year:int" in other.err


def test_bad_rows_go_to_the_quarantine_and_the_run_goes_on(
    m3index: Command, dense_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"id": "a", "text": "one", "year": 1}\n'
        '{"id": "b", "text": \n'
        '{"text": "no id"}\n'
        '{"id": "c"}\n'
        '{"id": "a", "text": "again"}\n'
        '{"id": "d", "text": "no number", "year": "x"}\n'
        '{"id": "e", "text": "good", "year": 2}\n'
    )
    options = ("-e", dense_model, "--field", "year:int")
    state = tmp_path / "state"
    done = m3index("ingest", "c.jsonl", *options, XDG_STATE_HOME=str(state))
    assert done.code == 3
    assert "c.jsonl:2" in done.err
    [quarantine] = (state / "m3index" / "quarantine").glob("docs-default-*.jsonl")
    assert f"warning: 5 bad rows are in {quarantine}. Correct them there and ingest the file." in done.err
    held = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert sorted((row["path"], row["line"]) for row in held) == [("c.jsonl", n) for n in (2, 3, 4, 5, 6)]
    assert all(row["reason"] for row in held)
    assert sorted(m3index("search", "one good", "--format", "ids", "--mode", "dense").out.split()) == [
        "a",
        "e",
    ]

    mended = {"id": "d", "text": "no number", "year": 3}
    write_jsonl(tmp_path / "mended.jsonl", [mended])
    assert m3index("ingest", "mended.jsonl", "--json").summary["added"] == 1


def test_a_quarantine_with_a_name(m3index: Command, dense_model: Path, tmp_path: Path) -> None:
    lines = '{"id": "a", "text": "fox"}\n{}\n'
    named = ("--quarantine", "bad/rows.jsonl", "--json")
    done = m3index("ingest", "-", "-e", dense_model, *named, stdin=lines)
    assert (done.code, done.summary["quarantine"]) == (3, "bad/rows.jsonl")
    assert "no id" in (tmp_path / "bad" / "rows.jsonl").read_text()


def test_each_database_has_its_own_quarantine(m3index: Command, dense_model: Path, tmp_path: Path) -> None:
    lines, state = '{"id": "a", "text": "fox"}\n{}\n', str(tmp_path / "state")
    kept = {
        m3index(
            "ingest", "-", "-e", dense_model, "--uri", uri, "--json", stdin=lines, XDG_STATE_HOME=state
        ).summary["quarantine"]
        for uri in ("a.db", "b.db", "./a.db")
    }  # fmt: skip
    assert len(kept) == 2


def test_no_quarantine(m3index: Command, dense_model: Path, tmp_path: Path) -> None:
    lines, state = '{"id": "a", "text": "fox"}\n{}\n', tmp_path / "state"
    none = ("--quarantine", "none", "--json")
    done = m3index("ingest", "-", "-e", dense_model, *none, stdin=lines, XDG_STATE_HOME=str(state))
    assert (done.code, done.summary["quarantined"]) == (3, 1)
    assert "quarantine" not in done.summary
    assert not state.exists()
    assert not (tmp_path / "none").exists()


def test_a_quarantine_that_nobody_named_is_no_reason_to_stop(
    m3index: Command, dense_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    lines = '{"id": "a", "text": "fox"}\n{}\n{}\n'
    state = str(tmp_path / "file" / "state")
    done = m3index("ingest", "-", "-e", dense_model, "--json", stdin=lines, XDG_STATE_HOME=state)
    assert (done.code, done.summary["added"], done.summary["quarantined"]) == (3, 1, 2)
    warnings = [line["message"] for line in done.lines if line["type"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0].endswith("Bad rows are not kept; name a file for them with --quarantine.")
    named = m3index("ingest", "-", "--quarantine", f"{state}/q.jsonl", stdin=lines)
    assert named.code == 2, "a file that the user named is checked before anything is read"


def test_too_many_errors_stop_the_run_and_it_says_so(
    m3index: Command, dense_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.jsonl").write_text("nonsense\n" * 5)
    done = m3index("ingest", "c.jsonl", "-e", dense_model, "--max-errors", 4)
    assert done.code == 17
    assert "--max-errors" in done.err
    (tmp_path / "c.jsonl").write_text("nonsense\n" * 5 + '{"id": "a", "text": "fox"}\n')
    assert m3index("ingest", "c.jsonl", "--max-errors", 5, "-e", dense_model).code == 3


def test_keys_can_be_mapped(m3index: Command, dense_model: Path) -> None:
    row = {"key": 7, "body": "the fox", "head": "T", "more": {"lang": "en"}, "id": "not this"}
    done = m3index(
        "ingest", "-", "-e", dense_model, "--id-field", "key", "--text-field", "body",
        "--title-field", "head", "--metadata-field", "more", stdin=json.dumps(row) + "\n",
    )  # fmt: skip
    assert done.code == 0, done.err
    hit = m3index("search", "fox", "--json").hits[0]
    assert (hit["doc_id"], hit["title"], hit["text"]) == ("7", "T", "the fox")
    assert hit["metadata"] == {"lang": "en", "id": "not this"}


def test_two_sources_may_share_an_id(m3index: Command, dense_model: Path, corpus: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    summary = m3index("ingest", corpus, "--source", "other", "--json").summary
    assert (summary["added"], summary["store_count"]) == (7, 14)
    found = m3index("search", "fox", "--source", "other", "-k", 3, "--json").hits
    assert {hit["source"] for hit in found} == {"other"}


def test_passages_of_long_texts(m3index: Command, dense_model: Path) -> None:
    text = " ".join(f"fox {i}" for i in range(200))
    done = m3index(
        "ingest", "-", "-e", dense_model, "--passage-tokens", 50, "--overlap", 10, "--json",
        stdin=json.dumps({"id": "long", "text": text}) + "\n",
    )  # fmt: skip
    assert done.summary["passages"] > 5
    hits = m3index("search", "fox 150", "--passages", "-k", 100, "--json").hits
    assert len(hits) == done.summary["passages"]
    assert sorted(hit["ordinal"] for hit in hits) == list(range(len(hits)))
    assert all(hit["text"] in text for hit in hits)
    documents = m3index("search", "fox 150", "--json").hits
    assert [hit["doc_id"] for hit in documents] == ["long"]


def test_quiet_says_nothing(m3index: Command, dense_model: Path, corpus: Path) -> None:
    done = m3index("ingest", corpus, "-e", dense_model, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_an_empty_corpus(m3index: Command, dense_model: Path) -> None:
    done = m3index("ingest", "-", "-e", dense_model)
    assert done.code == 0
    assert "The corpus is empty." in done.err


def test_a_user_without_a_name_or_a_home(
    m3index: Command, dense_model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under a bare number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("pwd.getpwuid", lambda _: nobody())
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert m3index("ingest", corpus, "-e", dense_model).code == 0


def test_json_is_only_json_and_follows_the_schema(m3index: Command, dense_model: Path) -> None:
    lines = '{"id": "1", "text": "fox"}\nnonsense\n{"id": "2"}\n{"id": "3\\ud800", "text": "x"}\n'
    done = m3index("ingest", "-", "-e", dense_model, "--json", "--max-errors", "90%", stdin=lines)
    assert done.code == 3
    *rejected, quarantine = done.err.splitlines()
    assert [line[:15] for line in rejected] == [f"quarantined -:{n}" for n in (2, 3, 4)]
    assert quarantine.startswith("warning: 3 bad rows are in ")
    event = Draft202012Validator(schema.load("event.schema.json"))
    for line in done.lines:
        event.validate(line)
    assert [line["line"] for line in done.lines if line["type"] == "error"] == [2, 3, 4]
    assert list(done.summary) == [
        "type", "time", "run", "command", "seconds", "collection", "quarantine", "encoder", "scanned",
        "added", "updated", "metadata_only", "unchanged", "deleted", "quarantined", "deletes_withheld",
        "skipped", "passages", "passages_kept", "tokens", "generation", "store_count", "count_ok", "dry_run",
        "exit",
    ]  # fmt: skip
    assert len({line["run"] for line in done.lines}) == 1
    times = [line["time"] for line in done.lines]
    assert times == sorted(times)
    assert m3index("status", "--json").lines[0]["run"] != done.summary["run"]
