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
from m3index.distill.losses import Objective
from m3index.distill.network import Network
from m3index.distill.teachers import Teacher
from m3index.distill.world import World
from m3index.encoder.hardware import cpu_computes_bf16
from m3index.errors import M3IndexError, UsageError

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True, slots=True)
class Training:
    """steps: of the optimiser; None: as many as `epochs` passes take. rate: the peak learning rate, after
    a linear warm-up over the `warmup` share of the steps; it falls linearly to zero. batch_tokens: of one
    forward pass; `accumulate` of them make a step. optimizer: `adamw`, or `muon` for the matrices of the
    layers and AdamW for all else. clip: greatest norm of the gradient. precision: `auto` (bf16 where the
    device computes in it, else fp32), `fp32`, `bf16`. save_every: steps between checkpoints.
    """

    steps: int | None = None
    epochs: float = 1.0
    rate: float = 2e-4
    warmup: float = 0.06
    decay: float = 0.01
    clip: float = 1.0
    batch_tokens: int = 8192
    accumulate: int = 1
    optimizer: str = "adamw"
    precision: str = "auto"
    seed: int = 0
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UsageError(f"--precision {self.precision}: training takes auto, fp32 or bf16.")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer {self.optimizer}: use one of {', '.join(OPTIMIZERS)}.")
        least = min(self.epochs, self.rate, self.clip, self.batch_tokens, self.accumulate, self.save_every)
        if least <= 0 or (self.steps is not None and self.steps < 1):
            raise UsageError("Steps, epochs, rate, clip, batch tokens and accumulation are greater than 0.")

    def rate_at(self, step: int, total: int) -> float:
        warm = max(1, round(self.warmup * total))
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (total - step) / max(1, total - warm)


Step = dict[str, float]
"""One step, for people and curves: step, loss, each term, rate, norm, tokens (so far), tokens_per_second."""


class Stopped(M3IndexError):
    """Told to stop; the checkpoint has all of it."""


@dataclass(frozen=True, slots=True)
class Course:
    """The stages of a training: batches of one, then those of the next, from step `starts[i]` on."""

    stages: Sequence[Batches]
    starts: Sequence[int]
    steps: int

    @classmethod
    def of(cls, inputs: Tokenised, stages: Sequence[range], settings: Training, world: World) -> Course:
        """Each stage takes the share of the steps that it has of an epoch's batches."""
        batches = [Batches(inputs.lengths, s, settings.batch_tokens, settings.seed) for s in stages]
        before = [0, *accumulate(len(b.epoch(0)) for b in batches)]
        steps = settings.steps
        if steps is None:
            steps = max(1, math.ceil(settings.epochs * before[-1] / (settings.accumulate * world.size)))
        return cls(batches, [round(steps * n / before[-1]) for n in before[:-1]], steps)

    def from_(self, cursor: Cursor) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """The batches of the stage that the cursor is in, beginning at it."""
        stage = bisect_right(self.starts, cursor.step) - 1
        begins = cursor.step == self.starts[stage]
        return self.stages[stage].from_(*((0, 0) if begins else (cursor.epoch, cursor.place)))


def train(
    network: Network,
    teacher: Teacher,
    inputs: Tokenised,
    stages: Sequence[range],
    objective: Objective,
    settings: Training,
    *,
    checkpoint: Checkpoint,
    resume: bool = False,
    world: World = World(),  # noqa: B008  frozen
    report: Callable[[Step], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Cursor:
    """Trains the parameters of `network` that require gradients, on the inputs of each stage after the other.
    Raises Stopped after a checkpoint where `stop` says so, M3IndexError where the loss is not finite."""
    torch.manual_seed(settings.seed)
    course = Course.of(inputs, stages, settings, world)
    total = course.steps
    optimizers = _optimizers(network, settings)
    cursor = checkpoint.restore(network, optimizers) if resume else Cursor()
    stream = course.from_(cursor)
    model = _parallel(network, world)
    autocast = _autocast(network.device, settings.precision)
    while cursor.step < total:
        began = time.perf_counter()
        if cursor.step in course.starts:
            stream = course.from_(cursor)
        rate = settings.rate_at(cursor.step, total)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=network.device))
        tokens = 0
        for micro in range(settings.accumulate):
            places = _own_batch(stream, cursor, world)
            batch = network.batch(inputs.rows(places))
            target = teacher.outputs(places)
            with _unsynchronised(model, micro < settings.accumulate - 1):
                with autocast():
                    outputs = model(batch)
                found = losses.terms(objective, outputs, target, batch.spoken)
                loss = losses.total(objective, found)
                (loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, term in {"loss": loss, **found}.items():
                sums[name] += term.detach() / settings.accumulate
            tokens += batch.tokens * world.size
        norm = nn.utils.clip_grad_norm_((p for _, p in network.trained()), settings.clip)
        if not math.isfinite(float(norm)):
            raise M3IndexError(f"The loss is not finite at step {cursor.step + 1}; lower --learning-rate.")
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
        if world.first and (stopping or cursor.step % settings.save_every == 0 or cursor.step == total):
            checkpoint.save(cursor, network, optimizers)
        if stopping and cursor.step < total:
            raise Stopped(f"Stopped after step {cursor.step} of {total}; --resume goes on from there.")
    return cursor


def _own_batch(
    stream: Iterator[tuple[int, int, NDArray[np.int64]]], cursor: Cursor, world: World
) -> NDArray[np.int64]:
    """Every process walks the same order; each takes one of the next `world.size` batches."""
    taken = [next(stream) for _ in range(world.size)]
    cursor.epoch, cursor.place, _ = taken[-1]
    return taken[world.rank][2]


def _optimizers(network: Network, settings: Training) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019) without decay of norms and biases; or Muon (Jordan et al. 2024, with
    steps of AdamW's size by Liu et al. 2025, arXiv:2502.16982) for the matrices, embeddings apart."""
    inner = [p for name, p in network.trained() if p.dim() == 2 and min(p.shape) > 1 and "embed" not in name]
    matrices = inner if settings.optimizer == "muon" else []
    taken = {id(p) for p in matrices}
    others = [p for _, p in network.trained() if id(p) not in taken]
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": settings.decay},
        {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
    ]
    made: list[torch.optim.Optimizer] = []
    if filled := [group for group in groups if group["params"]]:
        made.append(torch.optim.AdamW(filled, lr=settings.rate, betas=(0.9, 0.98)))
    if matrices:
        made.append(
            torch.optim.Muon(
                matrices,
                lr=settings.rate,
                weight_decay=settings.decay,
                momentum=0.9,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return made


def _parallel(network: Network, world: World) -> nn.Module:
    if world.size == 1:
        return network
    device_ids = [world.local] if network.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=device_ids)


def _unsynchronised(model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """Gradients are exchanged once a step, at its last batch."""
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
