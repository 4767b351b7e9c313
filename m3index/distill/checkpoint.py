"""The state that lets a run resume exactly where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from m3index.errors import MismatchError, UsageError


@dataclass(slots=True)
class Cursor:
    """The progress of a run: completed optimiser steps, and the position in the endless order of batches."""

    step: int = 0
    epoch: int = 0
    place: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file that is replaced atomically. settings: those that must match for a run to resume."""

    path: Path
    settings: Mapping[str, Any]

    def save(self, cursor: Cursor, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        trained = {name: p.detach().cpu() for name, p in network.named_parameters() if p.requires_grad}
        state = {
            "settings": self._digest(),
            "cursor": {name: getattr(cursor, name) for name in Cursor.__slots__},
            "parameters": trained,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "rng": _rng(),
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def restore(self, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Cursor:
        """Restores the whole state. Raises UsageError if there is no checkpoint, MismatchError if it belongs
        to a different run."""
        if not self.path.is_file():
            raise UsageError(f"--resume: there is no checkpoint {self.path}. Start without --resume.")
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["settings"] != self._digest():
            raise MismatchError(
                f"--resume: {self.path} is from a run with another teacher, student, corpus or settings. "
                "Repeat the original command, or start without --resume."
            )
        own = dict(network.named_parameters())
        with torch.no_grad():
            for name, value in state["parameters"].items():
                own[name].copy_(value)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        _set_rng(state["rng"])
        return Cursor(**state["cursor"])

    def _digest(self) -> str:
        text = json.dumps(dict(self.settings), sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _rng() -> dict[str, Any]:
    """The random state. The order of the batches is not part of it: (seed, epoch) alone determines that."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_rng(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
