"""`m3index sync`: its dry run, removals alone, and what no exported variable may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from terminal import ROWS, Command, write_jsonl

from m3index import schema

EVENT = Draft202012Validator(schema.load("event.schema.json"))
FIRST, SECOND, *_ = (row["id"] for row in ROWS)


@pytest.fixture
def indexed(m3index: Command, dense_model: Path, corpus: Path) -> Command:
    """The commands, on a collection whose corpus has then changed: one left, one came, one was rewritten."""
    assert m3index("ingest", corpus, "-e", dense_model, "--field", "lang:str").code == 0
    rewritten = {**ROWS[1], "text": "another text"}
    write_jsonl(corpus, [rewritten, *ROWS[2:], {"id": "new", "text": "a new text"}])
    return m3index


def stored(m3index: Command) -> dict[str, str]:
    """The texts of the collection by id."""
    done = m3index("search", "fox", "--mode", "dense", "-k", 100, "--json")
    assert done.code == 0, done
    assert done.hits
    return {hit["doc_id"]: hit["text"] for hit in done.hits}


def counts(summary: dict[str, Any]) -> tuple[int, ...]:
    return tuple(summary[name] for name in ("scanned", "added", "updated", "unchanged", "deleted"))


def test_a_dry_run_says_what_the_run_then_does(indexed: Command, corpus: Path) -> None:
    before = stored(indexed)
    planned = indexed("sync", corpus, "--dry-run", "--json")
    assert (planned.code, planned.err) == (0, "")
    for line in planned.lines:
        EVENT.validate(line)
    summary = planned.summary
    assert (summary["command"], summary["dry_run"], summary["generation"]) == ("sync", True, 1)
    assert counts(summary) == (len(ROWS), 1, 1, len(ROWS) - 2, 1)
    assert summary["tokens"] > 0
    assert (summary["store_count"], summary["count_ok"]) == (None, None)
    assert stored(indexed) == before

    done = indexed("sync", corpus, "--json").summary
    assert (done["command"], done["dry_run"]) == ("sync", False)
    assert counts(done) == counts(summary)
    after = stored(indexed)
    assert after.keys() == {row["id"] for row in ROWS[1:]} | {"new"}
    assert after[SECOND] == "another text"
    assert counts(indexed("sync", corpus, "--dry-run", "--json").summary) == (len(ROWS), 0, 0, len(ROWS), 0)


def test_a_dry_run_for_people(indexed: Command, corpus: Path) -> None:
    done = indexed("sync", corpus, "--dry-run")
    assert (done.code, done.out) == (0, "")
    first, second = done.err.splitlines()
    assert first == "docs: 7 documents read; this would be: 1 added, 1 updated, 5 unchanged, 1 deleted."
    assert second.startswith("To encode: about ")
    assert "ingest" not in done.err


@pytest.mark.parametrize("command", ["ingest", "sync"])
def test_a_dry_run_of_a_new_collection(
    m3index: Command, dense_model: Path, corpus: Path, command: str
) -> None:
    done = m3index(command, corpus, "-e", dense_model, "--dry-run", "--json")
    EVENT.validate(done.summary)
    assert (done.code, done.summary["command"]) == (0, command)
    assert (done.summary["added"], done.summary["generation"], done.summary["seconds"]) == (7, None, None)
    assert m3index("status").code == 10


def test_a_dry_run_tells_of_deletions_that_would_be_withheld(indexed: Command, corpus: Path) -> None:
    done = indexed("sync", corpus, "--max-delete", 0, "--dry-run", "--json")
    assert (done.code, done.summary["deletes_withheld"], done.summary["deleted"]) == (14, 1, 0)
    assert [line for line in done.lines if line["type"] == "warning"]
    assert FIRST in stored(indexed)


def test_a_dry_run_leaves_no_quarantine(indexed: Command, tmp_path: Path) -> None:
    state = tmp_path / "state"
    lines = '{"id": "a", "text": "fox"}\nnonsense\n'
    done = indexed("ingest", "-", "--dry-run", "--json", stdin=lines, XDG_STATE_HOME=str(state))
    assert (done.code, done.summary["quarantined"]) == (3, 1)
    assert not state.exists()


def test_a_run_without_a_good_row_is_a_failure_that_everybody_sees(
    indexed: Command, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "not.jsonl.gz").write_text("this is no gzip")
    renamed = write_jsonl(
        tmp_path / "renamed.jsonl", ({"id": row["id"], "body": row["text"]} for row in ROWS)
    )
    before = indexed("status", "--json").lines[0]["last_success"]
    metrics = tmp_path / "m.prom"
    for command, path in (("sync", renamed), ("ingest", renamed), ("ingest", "not.jsonl.gz")):
        done = indexed(command, path, "--quiet", "--metrics-file", metrics)
        assert done.code == 17
        assert "warning: Nothing that was read can be indexed. Correct the corpus" in done.err
        assert "last_success" not in metrics.read_text()
        assert indexed("status", "--json").lines[0]["last_success"] == before
        assert indexed(command, path, "--dry-run").code == 17
    assert indexed("ingest", renamed, "--max-errors", "100%").code == 3
    assert indexed("sync", corpus).code == 0


def test_a_run_with_too_large_a_share_of_bad_rows_removes_nothing(indexed: Command, tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "text": "fox"} if i % 3 == 0 else {"id": f"n{i}"} for i in range(120)]
    path = write_jsonl(tmp_path / "bad.jsonl", rows)
    done = indexed("sync", path, "--max-delete", "100%")
    assert done.code == 17
    assert "warning: 80 of 120 rows are bad, and --max-errors allows 50%." in done.err
    assert FIRST in stored(indexed)
    assert indexed("sync", path, "--max-delete", "100%", "--max-errors", "70%").code == 3
    assert FIRST not in stored(indexed)


def test_the_metrics_of_a_run_that_failed_early_name_its_collection(
    m3index: Command, corpus: Path, tmp_path: Path
) -> None:
    metrics = tmp_path / "m.prom"
    for wrong in (("--max-delete", "x"), ("--uri", "http://127.0.0.1:1", "--timeout", 1)):
        metrics.unlink(missing_ok=True)
        done = m3index("sync", corpus, "-c", "news", "--metrics-file", metrics, "--json", *wrong)
        assert done.code in (2, 20)
        assert f'm3index_exit{{collection="news",command="sync"}} {done.code}' in metrics.read_text()
        assert done.summary["collection"] == "news"


def test_removals_only(indexed: Command, corpus: Path) -> None:
    before = stored(indexed)
    planned = indexed("sync", corpus, "--removals-only", "--dry-run", "--json").summary
    assert (planned["deleted"], planned["dry_run"]) == (1, True)
    assert (planned["added"], planned["updated"], planned["tokens"]) == (0, 0, 0)
    assert stored(indexed) == before
    told = indexed("sync", corpus, "--removals-only", "--dry-run").err
    assert told == "docs: 7 documents read; this would be: 1 deleted.\n"

    done = indexed("sync", corpus, "--removals-only", "--json").summary
    assert (done["command"], done["deleted"], done["dry_run"]) == ("sync", 1, False)
    assert (done["added"], done["updated"], done["tokens"], done["passages"]) == (0, 0, 0, 0)
    after = stored(indexed)
    assert after == {key: text for key, text in before.items() if key != FIRST}
    assert indexed("sync", corpus, "--removals-only").err.endswith("docs: 7 documents read, 0 deleted.\n")


def test_removals_only_is_guarded(indexed: Command, corpus: Path) -> None:
    done = indexed("sync", corpus, "--removals-only", "--max-delete", 0)
    assert done.code == 14
    assert "--max-delete 1" in done.err
    assert FIRST in stored(indexed)


@pytest.mark.parametrize("options", [[], ["--force"]], ids=["", "forced"])
def test_removals_only_encodes_nothing(
    indexed: Command, corpus: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def encode(*_: object, **__: object) -> None:
        raise AssertionError("it encodes")

    monkeypatch.setattr("m3index.encoder.engine.Engine.launch", encode)
    assert indexed("sync", corpus, "--removals-only", *options, "--json").summary["deleted"] == 1
    assert "it encodes" in indexed("sync", corpus).err


def test_no_variable_forces_pretends_or_selects(
    indexed: Command, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported by whoever: `env` of a cron job must not decide what is written or removed."""
    exported = {
        "DRY_RUN": "1", "FORCE": "1", "REMOVALS_ONLY": "1", "REPAIR": "1", "YES": "1", "IDS": "new",
        "WHERE": "lang=de", "FILTER": 'lang == "de"', "CHANGES": "feed.jsonl", "FILE": "ids.txt",
        "SOURCE": "other", "SUBSET": "1/64", "MAX_DELETE": "0", "QUERIES": "q.tsv", "OUTPUT": "x.trec",
        "SIMILAR": "new", "EXPLAIN": "1", "FRESH": "1", "WRITE": "1",
    }  # fmt: skip
    for name, value in exported.items():
        monkeypatch.setenv(f"M3INDEX_{name}", value)
    done = indexed("sync", corpus, "--json").summary
    assert (done["dry_run"], counts(done)) == (False, (len(ROWS), 1, 1, len(ROWS) - 2, 1))
    assert stored(indexed).keys() == {row["id"] for row in ROWS[1:]} | {"new"}
    again = indexed("ingest", corpus, "--json").summary
    assert (again["unchanged"], again["tokens"]) == (len(ROWS), 0)

    refused = indexed("delete", "new")
    assert (refused.code, "Confirm with --yes" in refused.err) == (2, True)
    assert indexed("delete", "--yes").code == 2
    assert "new" in stored(indexed)
    assert indexed("delete", "new", "--yes", "--json").summary["deleted"] == 1

    proof = indexed("verify", corpus, "--json")
    assert (proof.code, proof.summary["checked"], proof.summary["repaired"]) == (15, len(ROWS), 0)
    assert "new" not in stored(indexed)
    assert indexed("search", "fox").out.startswith(" 1. ")
    assert not Path("x.trec").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete", "--yes", "--where", ""],
        ["delete", "--yes", "--filter", ""],
        ["delete", FIRST, "--yes", "--tenant", ""],
        ["delete", "--yes", "--where", "lang=en", "--where", ""],
        ["delete", "", "--yes"],
        ["delete", FIRST, "--yes", "--source", ""],
        ["delete", FIRST, "--where", "lang=en", "--yes"],
        ["sync", "corpus.jsonl", "--source", ""],
        ["sync", "corpus.jsonl", "--changes", ""],
        ["sync", "corpus.jsonl", "--max-delete", ""],
        ["verify", "corpus.jsonl", "--repair", "--subset", ""],
        ["reindex", "--source", ""],
        ["shards", "export", "-o", ""],
    ],
    ids=" ".join,
)
def test_an_option_without_a_value_is_refused(indexed: Command, arguments: list[str]) -> None:
    """As from a variable of a shell that was never set: it must not come to mean "everything"."""
    before = stored(indexed)
    done = indexed(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert stored(indexed) == before


def test_deletions_of_a_feed_are_good_rows(indexed: Command, tmp_path: Path) -> None:
    feed = write_jsonl(tmp_path / "feed.jsonl", [{"op": "delete", "id": FIRST}, {"id": "no text"}])
    for more in (["--dry-run"], []):
        done = indexed("sync", "--changes", feed, "--json", *more)
        assert (done.code, done.summary["deleted"], done.summary["quarantined"]) == (3, 1, 1)
    only = write_jsonl(tmp_path / "only.jsonl", [{"id": "no text"}])
    assert [indexed("sync", "--changes", only, *more).code for more in (["--dry-run"], [])] == [17, 17]
