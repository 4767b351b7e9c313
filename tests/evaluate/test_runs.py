from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from m3index import schema
from m3index.errors import UsageError
from m3index.evaluate.runs import RunFormat, RunWriter, as_run, falling, read_run
from m3index.types import Hit, LegRank, document_key


def hit(rank: int, doc_id: str, score: float, rerank: float | None = None) -> Hit:
    return Hit(
        rank=rank,
        doc_id=doc_id,
        passage_id=document_key("default", doc_id) + "-0",
        ordinal=0,
        source="default",
        score=score,
        title="",
        text="",
        metadata={},
        legs={"dense": LegRank(rank, score, score)},
        rerank_score=rerank,
        fused_rank=rank,
    )


HITS_BY_BOOST = [(1, "a", 0.5, 2.0), (2, "b", 0.75, 1.5), (3, "c", 1.0, 1.0)]
HITS = {"q1": [hit(1, "a", 0.5), hit(2, "b", 0.5), hit(3, "c", 0.25)], "q2": [hit(1, "b", 1.0)], "q3": []}


@pytest.mark.parametrize("name", ["run.trec", "run.jsonl", "run.parquet"])
def test_what_is_written_is_read_in_the_same_order(tmp_path: Path, name: str) -> None:
    with RunWriter(tmp_path / name) as writer:
        for query_id, hits in HITS.items():
            writer.write(query_id, hits)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    run = read_run(tmp_path / name)
    assert {q: list(r) for q, r in run.items()} == {"q1": ["a", "b", "c"], "q2": ["b"]}
    assert run["q1"]["c"] == 0.25


@pytest.mark.parametrize("name", ["run.trec", "run.jsonl", "run.parquet"])
def test_hits_that_do_not_go_by_score_are_read_in_their_order(tmp_path: Path, name: str) -> None:
    """As of a search with a sort, with diversity, or with boosts."""
    hits = [replace(hit(i, d, s), boosted_score=b) for i, d, s, b in HITS_BY_BOOST]
    with RunWriter(tmp_path / name) as writer:
        writer.write("q1", [hit(1, "a", 0.25), hit(2, "b", 0.5), hit(3, "c", 0.125)])
        writer.write("q2", hits)
    run = read_run(tmp_path / name)
    assert run["q1"]["a"] == 0.25 > run["q1"]["b"] > run["q1"]["c"] == 0.125
    assert run["q2"] == {"a": 2.0, "b": 1.5, "c": 1.0}
    assert as_run({"q2": hits})["q2"] == {"a": 2.0, "b": 1.5, "c": 1.0}


def test_trec_lines(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run.trec", tag="mine") as writer:
        writer.write("q1", HITS["q1"])
    lines = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    assert [line[:4] + line[5:] for line in lines] == [
        ["q1", "Q0", "a", "1", "mine"],
        ["q1", "Q0", "b", "2", "mine"],
        ["q1", "Q0", "c", "3", "mine"],
    ]
    scores = [float(line[4]) for line in lines]
    assert scores[0] == 0.5 > scores[1] > 0.4999999 > scores[2]


def test_jsonl_lines_are_hits(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "out", "jsonl") as writer:
        writer.write("q1", HITS["q1"])
    validator = Draft202012Validator(schema.load("hit.schema.json"))
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    for line in lines:
        validator.validate(line)
    assert [line["query_id"] for line in lines] == ["q1"] * 3


def test_parquet_has_the_legs(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run.parquet") as writer:
        writer.write("q1", HITS["q1"])
    rows = pq.read_table(tmp_path / "run.parquet").to_pylist()
    assert rows[1]["legs"] == [("dense", {"rank": 2, "score": 0.5})]
    assert (rows[1]["rank"], rows[1]["source"]) == (2, "default")


def test_an_empty_run_is_a_file(tmp_path: Path) -> None:
    for name in ("run.trec", "run.parquet", "run.jsonl"):
        with RunWriter(tmp_path / name):
            pass
        assert read_run(tmp_path / name) == {}


def breaks_off(writer: RunWriter) -> None:
    writer.write("q1", HITS["q1"])
    raise UsageError("no")


@pytest.mark.parametrize("form", ["trec", "jsonl", "parquet"])
def test_a_run_that_breaks_off_leaves_no_file(tmp_path: Path, form: RunFormat) -> None:
    (tmp_path / "run").write_text("the old one")
    with pytest.raises(UsageError), RunWriter(tmp_path / "run", form) as writer:
        breaks_off(writer)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run").read_text() == "the old one"


@pytest.mark.parametrize("bad", ["a b", "a\tb", "", "a\u00a0b"])
def test_white_space_in_an_id_does_not_go_into_a_trec_run(tmp_path: Path, bad: str) -> None:
    with (
        pytest.raises(UsageError, match="white space or is empty, which a TREC run does not allow"),
        RunWriter(tmp_path / "run.trec") as writer,
    ):
        writer.write("q1", [hit(1, bad, 1.0)])
    assert list(tmp_path.iterdir()) == []
    with RunWriter(tmp_path / "run.jsonl") as writer:
        writer.write("q 1", [hit(1, bad, 1.0)])
    assert read_run(tmp_path / "run.jsonl") == {"q 1": {bad: 1.0}}


def test_where_a_run_cannot_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the name of a run must end in"):
        RunWriter(tmp_path / "run.csv")
    for name in ("run.trec", "run.parquet"):
        with pytest.raises(UsageError, match="cannot be written"):
            RunWriter(tmp_path / "nowhere" / name)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("q1 Q0 d1 1 0.5\n", "run.trec:1 is not a line of a run"),
        ("q1 Q0 d1 1 high tag\n", "run.trec:1 is not a line of a run"),
        ('{"query_id": "q1"}\n', "run.trec:1 is not a line of a run"),
        ("q1 Q0 d1 1 0.5 t\nq1 Q0 d1 2 0.4 t\n", "query 'q1' has the document 'd1' twice"),
    ],
)
def test_runs_that_cannot_be_read(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "run.trec").write_text(content)
    with pytest.raises(UsageError, match=says):
        read_run(tmp_path / "run.trec")


def test_parquet_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match="is not a Parquet run"):
        read_run(tmp_path / "run.parquet")
    with pytest.raises(UsageError, match="There is no file"):
        read_run(tmp_path / "none.parquet")


def test_a_summary_line_is_no_hit(tmp_path: Path) -> None:
    lines = [
        {"type": "hit", "query_id": "q", "doc_id": "d", "score": 1.0},
        {"type": "summary", "seconds": 1.0},
    ]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_run(tmp_path / "run.jsonl") == {"q": {"d": 1.0}}


def test_a_measured_run_goes_by_the_order_of_its_hits() -> None:
    reranked = [hit(1, "b", 0.1, rerank=9.0), hit(2, "a", 0.9, rerank=9.0), hit(3, "b", 0.2, rerank=1.0)]
    run = as_run({"q": reranked, "none": []})
    assert list(run["q"]) == ["b", "a"]
    assert run["q"]["b"] > run["q"]["a"]
    assert run["none"] == {}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_falling_scores_fall_in_single_precision(scores: list[float]) -> None:
    lowered = np.array(falling(sorted(scores, reverse=True)), np.float32)
    assert (np.diff(lowered) < 0).all()
    assert lowered == pytest.approx(sorted(scores, reverse=True), rel=1e-5, abs=1e-30)


def test_a_run_in_parquet_is_bounded_by_what_it_decodes_to(tmp_path: Path) -> None:
    """A dictionary holds an id of 2 MB once, for any number of rows."""
    path, count = tmp_path / "run.parquet", 20_000
    ids = pa.DictionaryArray.from_arrays(pa.array(np.arange(count) % 2, pa.int8()), ["x" * 2_000_000, "y"])
    columns = {"query_id": pa.array(["q"] * count), "doc_id": ids, "score": pa.array(np.ones(count))}
    pq.write_table(pa.table(columns), path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UsageError, match="has a row of more than 1,048,576 bytes"):
        read_run(path)


def test_a_run_in_parquet_with_dictionaries_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3index.evaluate.runs._BATCH_BYTES", 4_000)
    path, names = tmp_path / "run.parquet", [f"d{number}" for number in range(900)]
    columns = {"query_id": ["q"] * 900, "doc_id": names, "score": [float(900 - n) for n in range(900)]}
    pq.write_table(pa.table(columns), path, row_group_size=400)
    assert list(read_run(path)["q"]) == names
