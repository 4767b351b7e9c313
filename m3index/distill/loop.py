"""The training loop."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from m3index.distill import losses
from m3index.distill.checkpoint import Checkpoint, Cursor
from m3index.distill.data import Batches, Tokenised
from m3index.distill.network import Network
from m3index.distill.options import Learning, Objective
from m3index.distill.teachers import Teacher
from m3index.distill.world import World
from m3index.encoder.hardware import cpu_computes_bf16
from m3index.errors import M3IndexError

Step = dict[str, float]
"""One step, for display and curves: step, loss, each term, rate, norm, tokens (so far), tokens_per_second."""


class Stopped(M3IndexError):
    """The run was asked to stop. The checkpoint holds all of its progress."""


@dataclass(frozen=True, slots=True)
class Course:
    """The stages of a training run. The batches of stage i begin at step `starts[i]`."""

    stages: Sequence[Batches]
    starts: Sequence[int]
    steps: int

    @classmethod
    def of(cls, inputs: Tokenised, stages: Sequence[range], learning: Learning, world: World) -> Course:
        """Gives each stage a share of the steps equal to its share of an epoch's batches."""
        batches = [Batches(inputs.lengths, s, learning.batch_tokens, learning.seed) for s in stages]
        before = [0, *accumulate(len(b.epoch(0)) for b in batches)]
        steps = learning.steps
        if steps is None:
            steps = max(1, math.ceil(learning.epochs * before[-1] / (learning.accumulate * world.size)))
        return cls(batches, [round(steps * n / before[-1]) for n in before[:-1]], steps)

    def from_(self, cursor: Cursor) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """The batches of the cursor's current stage, starting at the cursor."""
        stage = bisect_right(self.starts, cursor.step) - 1
        begins = cursor.step == self.starts[stage]
        return self.stages[stage].from_(*((0, 0) if begins else (cursor.epoch, cursor.place)))


def train(
    network: Network,
    teacher: Teacher,
    inputs: Tokenised,
    stages: Sequence[range],
    objective: Objective,
    learning: Learning,
    *,
    checkpoint: Checkpoint,
    world: World = World(),  # noqa: B008  frozen
    report: Callable[[Step], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Cursor:
    """Trains the parameters of `network` that require gradients, on one stage of inputs after the other.
    Raises Stopped, after a checkpoint, if `stop` returns true, M3IndexError if the loss is not finite."""
    torch.manual_seed(learning.seed)
    course = Course.of(inputs, stages, learning, world)
    total = course.steps
    optimizers = _optimizers(network, learning)
    cursor = checkpoint.restore(network, optimizers) if learning.resume else Cursor()
    stream = course.from_(cursor)
    model = _parallel(network, world)
    autocast = _autocast(network.device, learning.train_precision)
    while cursor.step < total:
        began = time.perf_counter()
        if cursor.step in course.starts:
            stream = course.from_(cursor)
        rate = _rate(learning, cursor.step, total)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=network.device))
        tokens = 0
        for micro in range(learning.accumulate):
            places = _own_batch(stream, cursor, world)
            batch = network.batch(inputs.rows(places))
            target = teacher.outputs(places)
            with _unsynchronised(model, micro < learning.accumulate - 1):
                with autocast():
                    outputs = model(batch)
                values = losses.terms(objective, outputs, target, batch.spoken)
                loss = losses.total(objective, values)
                (loss / learning.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, term in {"loss": loss, **values}.items():
                sums[name] += term.detach() / learning.accumulate
            tokens += batch.tokens * world.size
        norm = nn.utils.clip_grad_norm_((p for _, p in network.trained()), learning.clip)
        if not math.isfinite(float(norm)):
            raise M3IndexError(f"The loss is not finite at step {cursor.step + 1}. Lower --learning-rate.")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        cursor.step += 1
        cursor.tokens += tokens
        seconds = time.perf_counter() - began
        cursor.seconds += seconds
        step = {"step": float(cursor.step), **{name: float(v) for name, v in sums.items()}}
        step |= {"rate": rate, "norm": float(norm), "tokens": float(cursor.tokens)}
        cursor.history.append(step)
        report({**step, "total_steps": float(total), "tokens_per_second": tokens / seconds})
        stopping = world.any(stop())
        if world.first and (stopping or cursor.step % learning.save_every == 0 or cursor.step == total):
            checkpoint.save(cursor, network, optimizers)
        if stopping and cursor.step < total:
            raise Stopped(f"Stopped after step {cursor.step} of {total}. Use --resume to continue.")
    return cursor


def _rate(learning: Learning, step: int, total: int) -> float:
    """Rises linearly over the `warmup` share of the steps, then falls linearly to zero."""
    warm = max(1, round(learning.warmup * total))
    if step < warm:
        return learning.learning_rate * (step + 1) / warm
    return learning.learning_rate * (total - step) / max(1, total - warm)


def _own_batch(
    stream: Iterator[tuple[int, int, NDArray[np.int64]]], cursor: Cursor, world: World
) -> NDArray[np.int64]:
    """All processes follow the same order, and each takes one of the next `world.size` batches."""
    batches = [next(stream) for _ in range(world.size)]
    cursor.epoch, cursor.place, _ = batches[-1]
    return batches[world.rank][2]


def _optimizers(network: Network, learning: Learning) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019) without decay of norms and biases, or Muon (Jordan et al. 2024, with
    steps of AdamW's size by Liu et al. 2025, arXiv:2502.16982) for the matrices except embeddings."""
    inner = [p for name, p in network.trained() if p.dim() == 2 and min(p.shape) > 1 and "embed" not in name]
    matrices = inner if learning.optimizer == "muon" else []
    matrix_ids = {id(p) for p in matrices}
    others = [p for _, p in network.trained() if id(p) not in matrix_ids]
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": learning.weight_decay},
        {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if filled := [group for group in groups if group["params"]]:
        optimizers.append(torch.optim.AdamW(filled, lr=learning.learning_rate, betas=(0.9, 0.98)))
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=learning.learning_rate,
                weight_decay=learning.weight_decay,
                momentum=0.9,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _parallel(network: Network, world: World) -> nn.Module:
    if world.size == 1:
        return network
    device_ids = [world.local] if network.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=device_ids)


def _unsynchronised(model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """Skips the exchange of gradients, which happens once per step, at its last batch."""
    if skip and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def _autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    bf16 = precision == "bf16" or (precision == "auto" and _computes_bf16(device))
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and cpu_computes_bf16()
