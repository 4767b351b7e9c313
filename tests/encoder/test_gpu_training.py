"""Training on CUDA against the CPU. Beside the encoder's, because it needs no more than those do."""

from __future__ import annotations

import linecache
import warnings
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from m3index.distill import cache
from m3index.distill.checkpoint import Checkpoint
from m3index.distill.data import Tokenised
from m3index.distill.loop import Step, train
from m3index.distill.network import keep, trainable
from m3index.distill.options import RECIPES, Learning
from m3index.distill.teachers import FrozenModel, Online
from m3index.encoder import hardware, layout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture
def inputs(tmp_path: Path) -> Tokenised:
    draw = np.random.default_rng(0)
    rows = [np.array([0, *draw.integers(4, 200, n), 2], np.int32) for n in draw.integers(2, 60, 300)]
    np.concatenate(rows).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ids.npy", np.cumsum([0, *map(len, rows)]))
    return Tokenised(tmp_path / "ids.bin")


def steps(path: Path, inputs: Tokenised, device: torch.device, folder: Path, precision: str) -> list[Step]:
    found = layout.read(path)
    network = trainable(found)
    keep(network.model, [0, 2])
    network.to_device(device).requires_grad_(True)
    teacher = FrozenModel(found, device, hardware.precision("auto", device))
    reported: list[Step] = []
    train(
        network, Online(teacher, inputs), inputs, [range(len(inputs))], RECIPES["m3"],
        Learning(steps=25, batch_tokens=1024, train_precision=precision, learning_rate=1e-3),
        checkpoint=Checkpoint(folder / f"{device.type}-{precision}.pt", {}), report=reported.append,
    )  # fmt: skip
    return reported


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_student_learns_as_on_the_cpu_and_a_step_waits_for_nothing(
    tmp_path: Path, inputs: Tokenised, precision: str
) -> None:
    path = models.write_m3(tmp_path / "model", num_hidden_layers=3, hidden_size=128, num_attention_heads=2)
    expected = steps(path, inputs, torch.device("cpu"), tmp_path, "fp32")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            got = steps(path, inputs, torch.device("cuda", 0), tmp_path, precision)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [step["step"] for step in got] == [step["step"] for step in expected]
    for a, b in zip(got[:3], expected[:3], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.05)
    assert got[-1]["loss"] < got[0]["loss"]
    rooms = ("loop.py", "network.py", "losses.py", "teachers.py", "attention.py", "heads.py")
    waits = [
        linecache.getline(w.filename, w.lineno).strip()
        for w in said
        if "synchroniz" in str(w.message) and "m3index" in w.filename and w.filename.endswith(rooms)
    ]
    assert [line for line in waits if "tolist" not in line and "bool(" not in line] == []


def test_the_cache_of_a_teacher_that_overflows(tmp_path: Path, inputs: Tokenised) -> None:
    path = models.overflow(models.write_m3(tmp_path / "model", hidden_act="relu"))
    found = layout.read(path)
    stated = cache.manifest("teacher", "data", inputs, True, "fp16")
    teacher = FrozenModel(found, torch.device("cuda", 0), "fp16")
    cached = cache.build(tmp_path / "cache", stated, teacher, inputs, budget=4096)
    everything = np.arange(len(inputs))
    expected = Online(FrozenModel(found, torch.device("cpu"), "fp32"), inputs).outputs(everything)
    got = cached.outputs(everything)
    assert got.dense is not None
    assert (got.dense.cpu() * expected.dense).sum(-1).min() > 0.99
