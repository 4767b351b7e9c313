"""What people read at the end of `delete` and `sync --removals-only`: only what these can do, and whether
it was done."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from terminal import ROWS, Command, write_jsonl

from m3index.cli.sentences import sentences
from m3index.errors import Exit
from m3index.index.summary import Tally
from m3index.index.verify import Verification


def said(command: str, *, planned: bool = False, exit_code: Exit | None = None, **counts: Any) -> list[str]:
    tally = Tally(**counts)
    summary = tally.summary(
        command, "docs", "fake", 1, 5, count_ok=True, exit_code=exit_code, dry_run=planned
    )
    return list(sentences(asdict(summary)))


@pytest.mark.parametrize(
    ("counts", "planned", "sentence"),
    [
        ({"scanned": 2, "deleted": 2}, False, "docs: 2 documents removed."),
        ({"scanned": 2, "deleted": 1}, False, "docs: 1 document removed; 1 not found."),
        ({"scanned": 2, "deleted": 1}, True, "docs: 1 document would be removed; 1 not found."),
        ({"scanned": 0, "deleted": 0}, False, "docs: 0 documents removed."),
    ],
)
def test_delete(counts: dict[str, int], planned: bool, sentence: str) -> None:
    assert said("delete", planned=planned, **counts) == [sentence]


def test_a_delete_that_was_stopped_says_so() -> None:
    assert said("delete", scanned=9, deleted=5, exit_code=Exit.INTERRUPTED) == [
        "docs: 5 documents removed.",
        "Stopped early. The next run continues from here.",
    ]


def test_prune() -> None:
    assert said("prune", scanned=9, unchanged=9, deleted=2) == ["docs: 9 documents read, 2 deleted."]
    assert said("prune", scanned=9, deletes_withheld=40) == [
        "docs: 9 documents read, 0 deleted.",
        "40 deletions withheld; see the warning above.",
    ]


def test_by_the_commands(m3index: Command, dense_model: Path, corpus: Path) -> None:
    assert m3index("ingest", corpus, "-e", dense_model, "--field", "lang:str").code == 0
    first, second = ROWS[0]["id"], ROWS[1]["id"]
    assert m3index("delete", first, "--dry-run", "--json").lines[-1]["dry_run"] is True
    assert m3index("delete", first, "--dry-run").err == "docs: 1 document would be removed.\n"
    assert m3index("delete", first, "x", "--yes").err == "docs: 1 document removed; 1 not found.\n"
    assert m3index("delete", "--where", "lang=xx", "--yes").err == "docs: 0 documents removed.\n"
    assert m3index("delete", ROWS[2]["id"], "--yes", "--json").lines[-1]["dry_run"] is False
    write_jsonl(corpus, [row for row in ROWS if row["id"] != second])
    told = m3index("sync", corpus, "--removals-only").err
    assert told.endswith(f"docs: {len(ROWS) - 1} documents read, 1 deleted.\n")


@pytest.mark.parametrize(
    ("repaired", "says"),
    [(0, "(2 ghost). If the corpus is correct, repair them with --repair."), (2, "(2 ghost). Repaired: 2.")],
)
def test_verify_says_what_to_do(repaired: int, says: str) -> None:
    proof = Verification("docs", "fake", "1/1", 1, differing=2, repaired=repaired, by_kind={"ghost": 2})
    assert list(sentences(proof.to_json()))[-1] == f"2 documents differ {says}"
