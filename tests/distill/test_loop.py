from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m3index.distill.checkpoint import Cursor
from m3index.distill.data import Tokenised
from m3index.distill.loop import Course
from m3index.distill.options import Learning
from m3index.distill.world import World

STAGES = [range(300), range(300, 400)]


@pytest.fixture
def inputs(tmp_path: Path) -> Tokenised:
    """400 inputs of 10 tokens."""
    np.zeros(4000, np.int32).tofile(tmp_path / "inputs.bin")
    np.save(tmp_path / "inputs.npy", np.arange(0, 4001, 10))
    return Tokenised(tmp_path / "inputs.bin")


@pytest.mark.parametrize(("steps", "starts"), [(None, [0, 75]), (20, [0, 15]), (1, [0, 1])])
def test_each_stage_has_its_share_of_the_steps(
    inputs: Tokenised, steps: int | None, starts: list[int]
) -> None:
    course = Course.of(inputs, STAGES, Learning(steps=steps, batch_tokens=40), World())
    assert course.starts == starts
    assert course.steps == (steps or 100)


@pytest.mark.parametrize(("step", "stage", "place"), [(0, 0, 0), (14, 0, 14), (15, 1, 0), (16, 1, 1)])
def test_a_stage_begins_with_its_first_batch_whatever_came_before(
    inputs: Tokenised, step: int, stage: int, place: int
) -> None:
    course = Course.of(inputs, STAGES, Learning(steps=20, batch_tokens=40), World())
    cursor = Cursor(step=step, epoch=0, place=15 if step == 15 else place)
    epoch, after, batch = next(course.from_(cursor))
    assert (epoch, after) == (0, place + 1)
    assert np.array_equal(batch, course.stages[stage].epoch(0)[place])
    assert set(batch) <= set(STAGES[stage])
