from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from m3index.errors import UsageError
from m3index.evaluate.measures import at_most, check_measures, hits_needed, score_run
from m3index.evaluate.runs import read_run

OURS = ["nDCG@10", "Recall@100", "MRR", "AP", "P@5", "Success@5", "R@10", "nDCG"]
THEIRS = ["ndcg_cut_10", "recall_100", "recip_rank", "map", "P_5", "success_5", "recall_10", "ndcg"]


def example(rng: random.Random, queries: int = 40) -> tuple[dict[str, dict[str, int]], str]:
    """Judgements, and the lines of a run with many equal scores, some queries unanswered or unjudged."""
    documents = [f"d{i:03}" for i in range(150)]
    qrels = {
        f"q{i}": {d: rng.choice([0, 0, 1, 1, 2, 3]) for d in rng.sample(documents, rng.randint(1, 20))}
        for i in range(queries)
    }
    lines = []
    for i in range(5, queries + 5):
        found = rng.sample(documents, 120)
        scores = sorted((rng.choice([0.1, 0.5, rng.random()]) for _ in found), reverse=True)
        lines += [f"q{i} Q0 {d} {r} {s} t" for r, (d, s) in enumerate(zip(found, scores, strict=True), 1)]
    return qrels, "\n".join(lines)


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_pytrec_evals_on_the_same_run_file(tmp_path: Path, seed: int) -> None:
    qrels, lines = example(random.Random(seed))
    (tmp_path / "run.trec").write_text(lines)
    scores = score_run(read_run(tmp_path / "run.trec"), qrels, OURS)
    with (tmp_path / "run.trec").open() as file:
        theirs = pytrec_eval.RelevanceEvaluator(qrels, set(THEIRS)).evaluate(pytrec_eval.parse_run(file))
    for ours, name in zip(OURS, THEIRS, strict=True):
        expected = [theirs[q][name] for q in scores.query_ids]
        assert scores.values[ours] == pytest.approx(expected, abs=1e-9), ours
        assert scores.mean(ours) == pytest.approx(np.mean(expected))
    assert set(scores.query_ids) == set(theirs)  # neither counts a query that only one of the files has


def test_names_in_any_case_and_two_names_of_one_measure() -> None:
    scores = score_run(
        {"q": {"d": 1.0}}, {"q": {"d": 1}}, ["ndcg@10", "nDCG@10", "mrr@10", "RR@10", "ap(rel=2)"]
    )
    assert scores.means() == {"ndcg@10": 1.0, "nDCG@10": 1.0, "mrr@10": 1.0, "RR@10": 1.0, "ap(rel=2)": 0.0}


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@ten", "", "nDCG(@10"])
def test_a_measure_that_there_is_not(name: str) -> None:
    with pytest.raises(UsageError, match="There is no measure"):
        check_measures([name])


def test_run_and_judgements_of_different_queries() -> None:
    with pytest.raises(
        UsageError, match="it has 'a', the judgements 'q0', 'q1', 'q2', 'q3', 'q4' and 1 more"
    ):
        score_run({"a": {"d": 1.0}}, {f"q{i}": {"d": 1} for i in range(6)})


def test_a_query_that_was_not_asked_is_not_in_the_mean() -> None:
    qrels = {q: {"d": 1} for q in ("a", "b", "c")}
    asked = score_run({"a": {"d": 1.0}, "b": {}, "x": {"d": 1.0}}, qrels, ["nDCG@10"])
    assert (asked.query_ids, asked.mean("nDCG@10")) == (("a", "b"), 0.5)
    named = score_run({"a": {"d": 1.0}}, qrels, ["nDCG@10"], ["a", "b", "c"])
    assert (named.query_ids, named.mean("nDCG@10")) == (("a", "b", "c"), pytest.approx(1 / 3))


def test_a_measure_is_named_by_what_it_counts() -> None:
    named = at_most(["AP", "ap(rel=2)", "nDCG@10", "MRR", "Bpref", "AP@50"], 50)
    assert named == ("AP@50", "ap(rel=2)@50", "nDCG@10", "MRR@50", "Bpref")
    with pytest.raises(UsageError, match=r"Recall@100 needs 100 hits for each query, but k is 50\. Raise k"):
        at_most(["Recall@100"], 50)
    assert [hits_needed(name, 100) for name in ("AP", "nDCG@10", "R@1000")] == [100, 100, 1000]


def test_the_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(UsageError, match=r"pip install 'm3index\[eval\]'"):
        check_measures(["nDCG@10"])
