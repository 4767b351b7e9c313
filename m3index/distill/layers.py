"""Which layers of the teacher a student keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import nn

from m3index.errors import UsageError

_MOST_CANDIDATES = 40


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """How many layers, or exactly which, or the best of several sets of that number (`auto`)."""

    count: int | None = None
    layers: tuple[int, ...] = ()
    auto: bool = False

    @classmethod
    def parse(cls, text: str) -> LayerChoice:
        """`8`, `0,3,7`, `auto` or `auto:8`. Raises UsageError."""
        kind, colon, number = text.strip().partition(":")
        try:
            if kind == "auto":
                return cls(int(number) if colon else None, auto=True)
            numbers = tuple(int(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"--layers {text}: give a number, a list such as 0,3,7, or auto.") from None
        return cls(numbers[0]) if len(numbers) == 1 else cls(layers=numbers)

    def sets(self, total: int) -> list[tuple[int, ...]]:
        """The sets of layers to choose from: one, or with `auto` several. Raises UsageError."""
        if self.layers:
            ordered = tuple(sorted(set(self.layers)))
            if ordered != self.layers or ordered[0] < 0 or ordered[-1] >= total:
                raise UsageError(
                    f"--layers: ascending numbers from 0 to {total - 1}; this model has {total}."
                )
            return [ordered]
        count = max(2, round(total / 3)) if self.count is None else self.count
        if not 1 <= count <= total:
            raise UsageError(f"--layers {count}: this model has {total} layers.")
        return candidates(total, count) if self.auto else [spread(total, count)]


def spread(total: int, count: int) -> tuple[int, ...]:
    """round(linspace(0, total - 1, count)): the first and the last are kept; one alone is the last."""
    if count == 1:
        return (total - 1,)
    return tuple(round(i * (total - 1) / (count - 1)) for i in range(count))


def candidates(total: int, count: int) -> list[tuple[int, ...]]:
    """Sets to try untrained: all that keep first and last where these are few; else the even spread,
    spreads that are denser towards one end, the first and the last `count`."""
    if count >= 2 and math.comb(total - 2, count - 2) <= _MOST_CANDIDATES:
        return [(0, *middle, total - 1) for middle in combinations(range(1, total - 1), count - 2)]
    sets = [spread(total, count), tuple(range(count)), tuple(range(total - count, total))]
    for power in (0.6, 0.75, 0.9, 1.1, 1.35, 1.7):
        bent = [round((i / max(count - 1, 1)) ** power * (total - 1)) for i in range(count)]
        if len(set(bent)) == count:
            sets.append(tuple(bent))
    return list(dict.fromkeys(sets))


def stack(model: Any) -> tuple[nn.Module, str]:
    """Where the transformer's layers are: the module that holds the list, and the list's name in it."""
    total = model.config.num_hidden_layers
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return module, name
    raise UsageError(f"The layers of a {type(model).__name__} are not to be told apart; name a --student.")


def keep(model: Any, layers: Sequence[int]) -> None:
    """Leaves only these layers in the model, in this order; config.json will say so."""
    total = model.config.num_hidden_layers
    holder, name = stack(model)
    every = getattr(holder, name)
    setattr(holder, name, nn.ModuleList(every[i] for i in layers))
    model.config.num_hidden_layers = len(layers)
    kinds = getattr(model.config, "layer_types", None)
    if isinstance(kinds, list) and len(kinds) == total:
        model.config.layer_types = [kinds[i] for i in layers]
