from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from m3index.errors import UsageError
from m3index.evaluate.measures import Scores
from m3index.evaluate.plots import plot_report, plot_tuning
from m3index.evaluate.report import query_differences, report, report_json
from m3index.evaluate.statistics import holm

RNG = np.random.default_rng(6)
BASE = RNG.beta(4, 3, 120)
IDS = tuple(f"q{i:03}" for i in range(120))


def scores(shift: float) -> Scores:
    noise = np.clip(BASE + shift + RNG.normal(0, 0.05, 120), 0, 1)
    return Scores(IDS, {"nDCG@10": noise, "AP": noise**2})


RUNS = {"dense": scores(0.0), "sparse": scores(0.0), "hybrid": scores(0.06)}


def test_side_by_side() -> None:
    found = report(RUNS)
    assert (found.queries, found.measures) == (120, ("nDCG@10", "AP"))
    assert list(found.estimates) == ["dense", "sparse", "hybrid"]
    estimate = found.estimates["hybrid"]["nDCG@10"]
    assert estimate.low < RUNS["hybrid"].mean("nDCG@10") == estimate.mean < estimate.high
    pairs = [(c.a, c.b) for c in found.comparisons if c.measure == "AP"]
    assert pairs == [("dense", "sparse"), ("dense", "hybrid"), ("sparse", "hybrid")]
    by_pair = {(c.a, c.b): c for c in found.comparisons if c.measure == "nDCG@10"}
    assert by_pair["dense", "hybrid"].p_holm < 0.01 < by_pair["dense", "sparse"].p_holm
    assert holm([c.difference.p for c in by_pair.values()]) == [c.p_holm for c in by_pair.values()]


def test_one_run_has_nothing_to_be_compared_with() -> None:
    assert report({"dense": RUNS["dense"]}, test="t").comparisons == ()


def test_json() -> None:
    line = json.loads(json.dumps(report_json(report(RUNS, test="t"))))
    assert line["runs"]["dense"]["AP"]["low"] < line["runs"]["dense"]["AP"]["high"]
    assert len(line["comparisons"]) == 6
    assert {"measure", "a", "b", "mean", "p", "p_holm", "wins"} <= set(line["comparisons"][0])


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="same queries"):
        report({"a": RUNS["dense"], "b": Scores(("x",), {"nDCG@10": np.ones(1), "AP": np.ones(1)})})
    with pytest.raises(UsageError, match="no run"):
        report({})


def test_who_won_and_who_lost() -> None:
    a = Scores(("q1", "q2", "q3", "q4"), {"AP": np.array([0.5, 0.2, 0.2, 1.0])})
    b = Scores(("q1", "q2", "q3", "q4"), {"AP": np.array([0.5, 0.7, 0.7, 0.0])})
    rows = query_differences(a, b, "AP")
    assert [(r.query_id, r.a, r.b, r.gain) for r in rows] == [
        ("q2", 0.2, 0.7, pytest.approx(0.5)),
        ("q3", 0.2, 0.7, pytest.approx(0.5)),
        ("q4", 1.0, 0.0, -1.0),
    ]


@pytest.mark.parametrize(("name", "begins"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")])
def test_pictures(tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    from evaluate.test_tune import known_items

    from m3index.evaluate.held import hold
    from m3index.evaluate.tune import tune

    plot_report(report(RUNS), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    results, qrels = known_items(random.Random(5), 20, "dense")
    plot_tuning(tune(hold(results, qrels)), tmp_path / f"heat-{name}")
    assert (tmp_path / f"heat-{name}").read_bytes().startswith(begins)
    with pytest.raises(UsageError, match="cannot be written"):
        plot_report(report(RUNS), tmp_path / "nowhere" / name)


def test_a_picture_of_another_kind() -> None:
    with pytest.raises(UsageError, match="the name of a plot must end in"):
        plot_report(report(RUNS), "plot.txt")


def test_matplotlib_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'm3index\[eval\]'"):
        plot_report(report(RUNS), tmp_path / "plot.png")
