from __future__ import annotations

import json
from pathlib import Path

import pytest

from m3index.distill.curves import Curves, picture


def steps(first: int, last: int) -> list[dict[str, float]]:
    return [
        {"step": float(n), "loss": 1 / n, "cosine": 0.5 / n, "rate": 1e-4} for n in range(first, last + 1)
    ]


def test_a_run_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for step in steps(1, 7):
        curves(step)
    # Killed after step 7, the checkpoint is of step 4; the last row is half written.
    with (tmp_path / "training.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 8')
    again = Curves(tmp_path, resume=True)
    for step in steps(5, 9):
        again(step)
    again.draw(steps(1, 9))
    rows = (tmp_path / "training.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 10))


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture(steps(1, 20), tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
