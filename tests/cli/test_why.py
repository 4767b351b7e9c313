"""`m3index why`: what it prints, for people and for programs, and where it looks for missing rows."""

from __future__ import annotations

from pathlib import Path

from jsonschema import Draft202012Validator
from terminal import ROWS, Command, configure, write_jsonl

from m3index import schema

WHY = Draft202012Validator(schema.load("why.schema.json"))


def test_each_kind_of_answer(m3index: Command, m3_model: Path, tmp_path: Path) -> None:
    rows = [*ROWS, {"id": "bare", "title": "no text"}]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows)
    ingested = m3index("ingest", corpus, "-e", m3_model, "--field", "lang", "--source", "notes")
    assert ingested.code == 3, ingested.err

    query = ["the", "quick", "brown", "fox"]
    done = m3index("why", *query, "fox-en", "--json")
    assert (done.code, done.err) == (0, "")
    answer, summary = done.lines
    WHY.validate(answer)
    assert (answer["query"], answer["doc_id"], answer["rank"]) == ("the quick brown fox", "fox-en", 1)
    assert (summary["stage"], summary["collection"], summary["exit"]) == ("found", "docs", 0)

    done = m3index("why", *query, "bare")
    assert done.code == 0
    assert done.out.startswith("quarantined")
    assert "Correct the row there, and ingest that file." in " ".join(done.out.split())
    assert m3index("why", *query, "bare", "--quarantine", "none").out.startswith("absent")

    done = m3index("why", *query, "fox-en", "--where", "lang=de")
    assert done.out.startswith("filtered  None of its passages meets lang=de.")
    assert "Search without this condition: then it is at rank 1." in done.out
    configure("[search]\nk = 1\n")  # it is about the search that the user has
    done = m3index("why", *query, "book-en")
    assert done.out.splitlines()[0].split()[0] in ("fusion", "outranked")
    assert {line.split()[0] for line in done.out.splitlines()} >= {"dense", "sparse", "fused", "remedy"}


def test_wrong_usage(m3index: Command) -> None:
    assert m3index("why", "sea").code == 2
    assert m3index("why", "sea", "d1").code == 10
    assert "k takes a whole number" in m3index("why", "sea", "d1", "-k", "0").err
    assert "no such option" in m3index("why", "sea", "d1", "--explain").err.lower()
