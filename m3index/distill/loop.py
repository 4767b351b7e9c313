"""The training loop."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from m3index.distill import losses
from m3index.distill.checkpoint import Checkpoint, Cursor
from m3index.distill.data import Batches, Tokenised
from m3index.distill.network import Batch, Network
from m3index.distill.options import Learning, Objective
from m3index.distill.teachers import Pending, Teacher
from m3index.distill.world import World
from m3index.encoder import hardware
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
    model = _parallel(network, world)
    autocast = _autocast(network.device, learning.train_precision)
    on_cuda = network.device.type == "cuda"
    figures = _Figures(cursor, total, report)
    work = _ahead(_work(course, cursor, network, teacher, inputs, learning, world), 1 if on_cuda else 0)
    while cursor.step < total:
        rate = _rate(learning, cursor.step, total)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=network.device))
        tokens = 0
        for micro in range(learning.accumulate):
            item = next(work)
            cursor.epoch, cursor.place = item.epoch, item.place
            target = item.target()
            with _unsynchronised(model, micro < learning.accumulate - 1):
                with autocast():
                    outputs = model(item.batch)
                values = losses.terms(objective, outputs, target, item.batch.spoken)
                loss = losses.total(objective, values)
                (loss / learning.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, term in {"loss": loss, **values}.items():
                sums[name] += term.detach() / learning.accumulate
            tokens += item.batch.tokens * world.size
        norm = nn.utils.clip_grad_norm_((p for _, p in network.trained()), learning.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        cursor.step += 1
        cursor.tokens += tokens
        figures.add({**sums, "norm": norm}, rate, tokens)
        saving = cursor.step % learning.save_every == 0 or cursor.step == total
        reading = saving or cursor.step % _steps_per_reading(network.device) == 0
        asked = (reading or world.size == 1) and stop()  # several processes ask each other, which waits too
        if not (reading or asked):
            continue
        figures.read()
        stopping = world.any(asked)
        if world.first and (saving or stopping):
            checkpoint.save(cursor, network, optimizers)
        if stopping and cursor.step < total:
            raise Stopped(f"Stopped after step {cursor.step} of {total}. Use --resume to continue.")
        figures.resume()
    return cursor


def _steps_per_reading(device: torch.device) -> int:
    """Reading a figure waits until a CUDA device has done all that it was given, and then it has nothing to
    do. Other devices compute while the host waits anyway."""
    return 10 if device.type == "cuda" else 1


class _Figures:
    """The loss, its terms and the norm of the gradient of each step, left on the device until `read`."""

    def __init__(self, cursor: Cursor, total: int, report: Callable[[Step], None]) -> None:
        self._cursor, self._total, self._report = cursor, total, report
        self._steps: list[Step] = []
        self._values: list[dict[str, torch.Tensor]] = []
        self._tokens = 0
        self._began = time.perf_counter()

    def add(self, values: dict[str, torch.Tensor], rate: float, tokens: int) -> None:
        self._steps.append(
            {"step": float(self._cursor.step), "rate": rate, "tokens": float(self._cursor.tokens)}
        )
        self._values.append(values)
        self._tokens += tokens

    def read(self) -> None:
        """Adds the steps since the last time to the history and reports them. Raises M3IndexError for a loss
        that is not finite."""
        rows = torch.stack([torch.stack(list(values.values())) for values in self._values]).tolist()
        seconds = time.perf_counter() - self._began
        self._cursor.seconds += seconds
        for step, names, row in zip(self._steps, self._values, rows, strict=True):
            values = dict(zip(names, row, strict=True))
            if not math.isfinite(norm := values.pop("norm")):
                number = round(step["step"])
                raise M3IndexError(f"The loss is not finite at step {number}. Lower --learning-rate.")
            whole = {"step": step["step"], **values}
            whole |= {"rate": step["rate"], "norm": norm, "tokens": step["tokens"]}
            self._cursor.history.append(whole)
            speed = self._tokens / seconds
            self._report({**whole, "total_steps": float(self._total), "tokens_per_second": speed})
        self._steps, self._values, self._tokens = [], [], 0

    def resume(self) -> None:
        """Leaves the time since `read`, of reports and checkpoints, out of the next steps."""
        self._began = time.perf_counter()


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch of this process and its targets. epoch, place: the position in the order after it."""

    epoch: int
    place: int
    batch: Batch
    target: Pending


def _work(
    course: Course,
    cursor: Cursor,
    network: Network,
    teacher: Teacher,
    inputs: Tokenised,
    learning: Learning,
    world: World,
) -> Iterator[_Work]:
    """The batches from the cursor on, whose targets a teacher begins to compute."""
    at = Cursor(cursor.step, cursor.epoch, cursor.place)
    stream = course.from_(at)
    while at.step < course.steps:
        if at.step in course.starts:
            stream = course.from_(at)
        for _ in range(learning.accumulate):
            places = _own_batch(stream, at, world)
            batch, target = network.batch(inputs.rows(places)), teacher.begin(places)
            yield _Work(at.epoch, at.place, batch, target)
        at.step += 1


def _ahead(items: Iterator[_Work], depth: int) -> Iterator[_Work]:
    """The same items, with the next `depth` begun. So a device has work while the host waits for a teacher's
    outputs to be found finite."""
    waiting = deque(islice(items, depth))
    for item in items:
        waiting.append(item)
        yield waiting.popleft()
    yield from waiting


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
        fused = network.device.type == "cuda"
        optimizers.append(
            torch.optim.AdamW(filled, lr=learning.learning_rate, betas=(0.9, 0.98), fused=fused or None)
        )
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
    if precision == "auto":
        precision = "bf16" if hardware.computes_bf16(device) else "fp32"
    bf16 = hardware.precision(precision, device) == "bf16"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=bf16)
