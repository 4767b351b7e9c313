from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import TIDES, collection

from m3index.errors import UsageError
from m3index.evaluate.held import HeldQuery, hold, positions, silver_qrels
from m3index.evaluate.positional import positional_measure
from m3index.evaluate.runs import falling
from m3index.evaluate.tune import Setting, table, tune, tuning_json
from m3index.search.fusion import Ranking, fuse
from m3index.search.options import SearchOptions
from m3index.search.rerank import ColbertReranker
from m3index.search.result import SearchResult
from m3index.search.searcher import Searcher
from m3index.types import Query, document_key

DOCUMENTS = [f"d{i:02}" for i in range(40)]
KEYS = {document_key("default", d): d for d in DOCUMENTS}
MEASURES = {
    "nDCG@10": "ndcg_cut_10",
    "ndcg": "ndcg",
    "Recall@10": "recall_10",
    "R@100": "recall_100",
    "MRR": "recip_rank",
    "AP": "map",
    "Success@5": "success_5",
}


def ranking(documents: list[str]) -> Ranking:
    keys = [document_key("default", d) for d in documents]
    return Ranking(keys, [1.0 - i / 100 for i in range(len(keys))], [f"{k}-0" for k in keys])


def result(query_id: str, dense: list[str], sparse: list[str]) -> SearchResult:
    legs = {"dense": ranking(dense), "sparse": ranking(sparse)}
    return SearchResult(Query(query_id, "text"), legs=legs)


def random_result(rng: random.Random, query_id: str) -> SearchResult:
    return result(
        query_id, rng.sample(DOCUMENTS, rng.randint(0, 25)), rng.sample(DOCUMENTS, rng.randint(1, 25))
    )


def random_qrels(rng: random.Random, queries: list[str]) -> dict[str, dict[str, int]]:
    return {
        q: {d: rng.choice([1, 1, 2, 3]) for d in rng.sample(DOCUMENTS, rng.randint(1, 6))}
        | dict.fromkeys(rng.sample(DOCUMENTS, 2), 0)
        | {rng.choice(DOCUMENTS): 1, "not in the index": 1}
        for q in queries
    }


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([3, 10, 100]))
def test_positions_are_those_of_fusing_anew(rng: random.Random, depth: int) -> None:
    found = random_result(rng, "q")
    [query] = hold([found], random_qrels(rng, ["q"]))
    shares, ks = [0.0, 0.3, 0.5, 1.0], [0.0, 1.0, 60.0]
    places = positions(query, shares, ks, depth)
    ids = sorted({id_ for leg in found.legs.values() for id_ in leg.ids})
    for s, share in enumerate(shares):
        for n, k in enumerate(ks):
            legs = {name: Ranking(leg.ids[:depth], leg.scores[:depth]) for name, leg in found.legs.items()}
            fused = fuse(legs, {"dense": 1 - share, "sparse": share}, k=k)
            order = [f.id for f in fused]
            for row, number in enumerate(query.relevant):
                id_ = ids[number]
                expected = order.index(id_) + 1 if id_ in order else np.inf
                assert places[row, s, n] == expected


@pytest.mark.parametrize("measure", list(MEASURES))
def test_measures_from_positions_are_pytrec_evals(measure: str) -> None:
    rng = random.Random(measure)
    queries = [f"q{i}" for i in range(40)]
    results = [random_result(rng, q) for q in queries]
    qrels = random_qrels(rng, queries)
    held = hold(results, qrels)
    settings_ = [Setting(0.35, 10, 20), Setting(0.5, 60, 100), Setting(0.0, 60, 5)]
    for setting in settings_:
        values = table(held, measure, [setting.share], [setting.k], [setting.depth])[:, 0, 0, 0]
        run = {}
        for r in results:
            legs = {n: Ranking(x.ids[: setting.depth], x.scores[: setting.depth]) for n, x in r.legs.items()}
            fused = fuse(legs, setting.weights, k=setting.k)
            scores = falling([f.score for f in fused])
            run[r.query.query_id] = {KEYS[f.id]: s for f, s in zip(fused, scores, strict=True)}
        name = MEASURES[measure]
        theirs = pytrec_eval.RelevanceEvaluator(qrels, {name}).evaluate(run)
        assert values == pytest.approx([theirs[q.query_id][name] for q in held], abs=1e-9)


def known_items(
    rng: random.Random, n: int, good: str
) -> tuple[list[SearchResult], dict[str, dict[str, int]]]:
    """Queries with one relevant document, which the good leg has near the top and the other far down
    (`both`: as often the one as the other)."""
    results, qrels = [], {}
    for i in range(n):
        target = rng.choice(DOCUMENTS)
        others = [d for d in DOCUMENTS if d != target]
        top, far = rng.sample(others, 39), rng.sample(others, 39)
        top.insert(rng.randint(0, 2), target)
        far.insert(rng.randint(15, 39), target)
        dense_is_good = good == "dense" if good != "both" else rng.random() < 0.5
        results.append(result(f"q{i}", *((top, far) if dense_is_good else (far, top))))
        qrels[f"q{i}"] = {target: 1}
    return results, qrels


@pytest.mark.parametrize("good", ["dense", "sparse"])
def test_a_leg_that_is_better_gets_the_weight(good: str) -> None:
    results, qrels = known_items(random.Random(1), 120, good)
    found = tune(hold(results, qrels))
    assert found.significant
    assert found.recommended == found.best != found.baseline
    assert (found.best.share < 0.5) == (good == "dense")
    assert found.gain.mean > 0.1
    assert found.gain.p < 0.001
    assert found.best_value >= found.baseline_value + found.gain.mean - 0.05
    assert sum(f.queries for f in found.folds) == 120


def test_where_neither_leg_is_better_equal_weights_are_recommended() -> None:
    results, qrels = known_items(random.Random(2), 60, "both")
    found = tune(hold(results, qrels), shares=[0.3, 0.4, 0.5, 0.6, 0.7], ks=[60], depths=[100])
    assert not found.significant
    assert found.recommended is None
    assert found.baseline == Setting(0.5, 60.0, 100)
    assert found.best_value >= found.baseline_value


def test_the_held_out_gain_is_counted_on_queries_that_had_no_say() -> None:
    results, qrels = known_items(random.Random(3), 40, "dense")
    held = hold(results, qrels)
    found = tune(held, folds=4)
    values = {q.query_id: table([q], "nDCG@10")[0] for q in held}
    weighed = sum(f.queries * (f.value - f.default) for f in found.folds) / 40
    assert weighed == pytest.approx(found.gain.mean)
    assert found.best_value == pytest.approx(max(np.mean([values[q] for q in values], axis=0).ravel()))
    assert tune(held, folds=4).folds == found.folds


def test_the_surface_is_the_heat_map_of_the_best_depth() -> None:
    results, qrels = known_items(random.Random(4), 30, "sparse")
    found = tune(hold(results, qrels))
    assert found.surface.shape == (len(found.shares), len(found.ks))
    best = found.surface[found.shares.index(found.best.share), found.ks.index(found.best.k)]
    assert best == pytest.approx(found.best_value) == pytest.approx(found.surface.max())


def test_json() -> None:
    results, qrels = known_items(random.Random(4), 30, "sparse")
    found = replace(tune(hold(results, qrels)), labels="silver")
    line = json.loads(json.dumps(tuning_json(found)))
    assert line["labels"] == "silver"
    assert line["recommended"]["weights"]["dense"] + line["recommended"]["weights"]["sparse"] == 1
    assert len(line["heat_map"]["values"]) == len(line["heat_map"]["shares"])


def test_queries_without_relevant_documents_are_left_out() -> None:
    results = [result("a", ["d01"], ["d02"]), result("b", ["d01"], ["d02"]), result("c", ["d01"], ["d02"])]
    held = hold(results, {"a": {"d01": 1}, "b": {"d01": 0}})
    assert [q.query_id for q in held] == ["a"]
    with pytest.raises(UsageError, match="nothing to tune on"):
        hold(results, {"z": {"d01": 1}})
    with pytest.raises(UsageError, match="needs at least 10 judged queries; there are 1"):
        tune(held)


def test_both_legs_are_needed() -> None:
    one = SearchResult(Query("a", "x"), legs={"dense": ranking(["d01"])})
    with pytest.raises(UsageError, match="the searches must be hybrid"):
        hold([one], {"a": {"d01": 1}})


def test_a_relevant_document_that_no_leg_found_counts_against_recall() -> None:
    [query] = hold([result("a", ["d01"], ["d02"])], {"a": {"d01": 1, "d30": 1}})
    assert table([query], "Recall@10", [0.5], [60], [100])[0, 0, 0, 0] == 0.5


def test_nothing_relevant_found() -> None:
    query = HeldQuery(
        "q", np.zeros((0, 2), np.int64), np.array([], np.int64), np.array([]), np.array([1.0]), np.array([])
    )
    for name in MEASURES:
        assert (table([query], name, [0.5], [60], [10]) == 0).all()


@pytest.mark.parametrize("name", ["P@5", "nDCG@0", "nDCG@x", "", "AP(rel=2)"])
def test_measures_that_tuning_has_not(name: str) -> None:
    with pytest.raises(UsageError, match="Tuning supports nDCG"):
        positional_measure(name)


def test_from_searches_to_silver_labels_to_a_tuning() -> None:
    encoder = FakeEncoder()
    searcher = Searcher(collection(TIDES, encoder=encoder))
    texts = ["moon", "sea", "salt water", "yeast", "leek", "fish", "ships", "earth", "air", "flour"]
    options = SearchOptions(k=3, rerank=ColbertReranker(encoder), rerank_depth=5)
    results = list(searcher.run([Query(t, t) for t in texts], options))
    silver = silver_qrels(results)
    assert silver["yeast"] == {r.doc_id: 3 - i for i, r in enumerate(results[3].hits)}
    assert silver["yeast"]["bread"] == 3
    found = tune(hold(results, silver), labels="silver")
    assert (found.queries, found.labels) == (10, "silver")
    with pytest.raises(UsageError, match="come from a reranker"):
        silver_qrels(searcher.run([Query("q", "sea")]))
