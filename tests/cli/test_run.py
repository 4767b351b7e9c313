"""`m3index search --queries`: queries in, a run file out."""

from __future__ import annotations

import json
from pathlib import Path

import ir_measures
import pytest
from terminal import Command, write_jsonl


@pytest.fixture
def indexed(m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path) -> Path:
    assert m3index("ingest", corpus, "-e", dense_model).code == 0
    queries = [
        {"_id": "q1", "text": "the quick brown fox"},
        {"_id": "q2", "text": "a book about search", "metadata": {}},
        {"_id": "q3", "text": "懒狗"},
    ]
    return write_jsonl(tmp_path / "queries.jsonl", queries)


def test_a_trec_run_that_ir_measures_reads(m3index: Command, indexed: Path, tmp_path: Path) -> None:
    done = m3index("search", "--queries", indexed, "-o", "out.trec", "--mode", "sparse", "--tag", "mine")
    assert (done.code, done.out) == (0, "")
    assert "3 queries" in done.err
    run = list(ir_measures.read_trec_run(str(tmp_path / "out.trec")))
    assert {line.query_id for line in run} == {"q1", "q2", "q3"}
    qrels = [
        ir_measures.Qrel("q1", "fox-en", 1),
        ir_measures.Qrel("q2", "book-en", 1),
        ir_measures.Qrel("q3", "fox-zh", 1),
    ]
    assert ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10] == 1.0
    assert all(line.split()[5] == "mine" for line in (tmp_path / "out.trec").read_text().splitlines())


def test_a_run_agrees_with_search(m3index: Command, indexed: Path, tmp_path: Path) -> None:
    m3index("search", "--queries", indexed, "-o", "out.trec", "-k", 5)
    lines = [line.split() for line in (tmp_path / "out.trec").read_text().splitlines()]
    ids = [line[2] for line in lines if line[0] == "q1"]
    assert ids == m3index("search", "the quick brown fox", "-k", 5, "--format", "ids").out.split()


def test_a_run_has_100_hits_for_a_query_by_default(
    m3index: Command, dense_model: Path, tmp_path: Path
) -> None:
    rows = [{"id": str(i), "text": f"the fox number {i}"} for i in range(120)]
    assert m3index("ingest", write_jsonl(tmp_path / "many.jsonl", rows), "-e", dense_model).code == 0
    (tmp_path / "queries.tsv").write_text("q1\tthe fox\nq2\ta number\n")

    def hits(*options: object) -> list[int]:
        done = m3index("search", "--queries", "queries.tsv", "-o", "out.trec", *options, "--json")
        assert done.code == 0, done
        lines = [line.split() for line in (tmp_path / "out.trec").read_text().splitlines()]
        assert done.summary["hits"] == len(lines)
        assert done.summary["output"] == "out.trec"
        return [sum(line[0] == query for line in lines) for query in ("q1", "q2")]

    assert hits() == [100, 100]
    assert hits("-k", 7) == [7, 7]
    assert hits("-k", 110) == [110, 110]
    assert len(m3index("search", "the fox", "--json").hits) == 10


def test_a_run_of_a_filter(m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model, "--field", "lang:str")
    (tmp_path / "queries.tsv").write_text("q1\tthe fox\n")
    asked = ["search", "--queries", "queries.tsv", "-o", "out.trec"]
    assert m3index(*asked, "--where", "lang=de").code == 0
    assert [line.split()[2] for line in (tmp_path / "out.trec").read_text().splitlines()] == ["fox-de"]
    done = m3index(*asked, "--where", "lang=xx")
    assert done.code == 0
    assert "query q1: no hits" in done.err


def test_other_forms(m3index: Command, indexed: Path, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        done = m3index("search", "--queries", indexed, "-o", name, "--json")
        assert done.code == 0
        assert done.summary["queries"] == 3
        assert (tmp_path / name).stat().st_size > 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert {row["query_id"] for row in rows} == {"q1", "q2", "q3"}


def test_a_failed_run_leaves_the_old_file(m3index: Command, indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "out.trec").write_text("before\n")
    assert m3index("search", "--queries", indexed, "-o", "out.trec", "--filter", "nonsense ==").code == 2
    assert (tmp_path / "out.trec").read_text() == "before\n"
