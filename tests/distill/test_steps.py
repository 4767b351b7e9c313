"""What a step of the training waits for. On a CPU nothing is waited for, so what would be is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from m3index.distill import loop
from m3index.distill.checkpoint import Checkpoint
from m3index.distill.data import Tokenised
from m3index.distill.loop import Step, train
from m3index.distill.network import Network, keep, trainable
from m3index.distill.options import RECIPES, Learning
from m3index.distill.teachers import FrozenModel, Online
from m3index.encoder import hardware, layout
from m3index.errors import M3IndexError, UsageError

CPU = torch.device("cpu")
# What makes the host wait for a CUDA device: a value or a size that only the device knows.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "bincount")


class Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if masked or name.startswith(WAITS):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_m3(tmp_path_factory.mktemp("teacher"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Tokenised:
    folder, draw = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    rows = [np.array([0, *draw.integers(4, 200, n), 2], np.int32) for n in draw.integers(2, 30, 200)]
    np.concatenate(rows).tofile(folder / "ids.bin")
    np.save(folder / "ids.npy", np.cumsum([0, *map(len, rows)]))
    return Tokenised(folder / "ids.bin")


@pytest.fixture
def like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as on CUDA: figures are read every five, and a teacher is one batch ahead."""
    ahead = loop._ahead
    monkeypatch.setattr(loop, "_steps_per_reading", lambda _: 5)
    monkeypatch.setattr(loop, "_ahead", lambda items, depth: ahead(items, 1))


def run(
    teacher: Path, inputs: Tokenised, folder: Path, report: Callable[[Step], None],
    watched: AbstractContextManager[Any] | None = None, **changes: Any,
) -> Network:  # fmt: skip
    found = layout.read(teacher)
    network = trainable(found)
    keep(network.model, [0, 2])
    network.watch([0])
    network.requires_grad_(True)
    model = FrozenModel(found, CPU, "fp32", modules=True)
    model.watch([1])
    options = {"steps": 12, "batch_tokens": 200, "save_every": 10**6, "learning_rate": 1e-3} | changes
    objective = RECIPES["m3"].without()
    for name in ("mse", "hidden", "layers"):
        objective = type(objective)(**{**_fields(objective), name: 1.0})
    with watched or nullcontext():
        train(
            network, Online(model, inputs), inputs, [range(len(inputs))], objective, Learning(**options),
            checkpoint=Checkpoint(folder / "checkpoint.pt", {}), report=report,
        )  # fmt: skip
    return network


def _fields(objective: Any) -> dict[str, Any]:
    return {**objective.weights(), "matryoshka": (8,)}


@pytest.mark.usefixtures("like_cuda")
def test_steps_wait_only_when_the_figures_are_read(
    teacher: Path, inputs: Tokenised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    plain, adamw = torch.Tensor.tolist, torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: adamw(*a, **{**k, "fused": True}))

    def tolist(self: torch.Tensor) -> Any:
        read.append(tuple(self.shape))
        return plain(self)

    reported: list[int] = []
    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    waits = Waits()
    run(teacher, inputs, tmp_path, lambda step: reported.append(round(step["step"])), waits)
    assert waits.seen == []
    assert [shape[0] for shape in read] == [5, 5, 2]
    assert reported == list(range(1, 13))


def test_steps_as_on_cuda_give_the_same_losses(
    teacher: Path, inputs: Tokenised, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one: list[Step] = []
    run(teacher, inputs, tmp_path, one.append, accumulate=2)
    request.getfixturevalue("like_cuda")
    other: list[Step] = []
    run(teacher, inputs, tmp_path, other.append, accumulate=2)
    assert len(one) == len(other) == 12
    for a, b in zip(one, other, strict=True):
        del a["tokens_per_second"], b["tokens_per_second"]
        assert a == pytest.approx(b, rel=1e-6)


@pytest.mark.usefixtures("like_cuda")
def test_a_loss_that_is_not_finite_is_found_with_its_step(
    teacher: Path, inputs: Tokenised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = loop.losses.total, iter(range(100))

    def total(*args: Any) -> torch.Tensor:
        return plain(*args) * (float("nan") if next(calls) == 6 else 1.0)

    monkeypatch.setattr(loop.losses, "total", total)
    reported: list[int] = []
    with pytest.raises(M3IndexError, match="not finite at step 7"):
        run(teacher, inputs, tmp_path, lambda step: reported.append(round(step["step"])))
    assert reported == list(range(1, 7))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_cuda_device_has_the_next_batch_while_the_host_waits_for_one() -> None:
    begun: list[int] = []

    def items() -> Iterator[Any]:
        for i in range(4):
            begun.append(i)
            yield i

    seen = [(item, len(begun)) for item in loop._ahead(items(), 1)]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    begun.clear()
    assert [(item, len(begun)) for item in loop._ahead(items(), 0)] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_adamw_is_fused_on_cuda_alone(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.optim, "AdamW", lambda *_, fused, **__: asked.append(fused))
    network = trainable(layout.read(teacher)).requires_grad_(True)
    for device in (CPU, torch.device("cuda", 0)):
        network.device = device
        loop._optimizers(network, Learning())
    assert asked == [None, True]


@pytest.mark.parametrize(
    ("card", "asked", "expected"),
    [((7, 5), "auto", False), ((7, 0), "auto", False), ((8, 0), "auto", True), ((9, 0), "auto", True),
     ((8, 0), "fp32", False), ((8, 0), "bf16", True), ((7, 5), "fp32", False)],
)  # fmt: skip
def test_training_is_in_bf16_where_the_card_computes_it(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], asked: str, expected: bool
) -> None:
    """torch.cuda.is_bf16_supported() is true for emulation too."""
    seen: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(hardware, "capability", lambda _: card)
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, *, enabled: seen.append(enabled))
    loop._autocast(torch.device("cuda", 0), asked)()
    assert seen == [expected]


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "capability", lambda _: (7, 5))
    with pytest.raises(UsageError, match="bf16 needs a card"):
        loop._autocast(torch.device("cuda", 0), "bf16")
