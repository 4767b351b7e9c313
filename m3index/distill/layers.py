"""Chooses the layers of the teacher that a student keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

from m3index.errors import UsageError

_MOST_CANDIDATES = 40


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """A number of layers, an exact list, or the best of several sets of that size (`auto`)."""

    count: int | None = None
    layers: tuple[int, ...] = ()
    auto: bool = False

    @classmethod
    def parse(cls, text: str) -> LayerChoice:
        """`8`, `0,3,7`, `auto` or `auto:8`. Raises ValueError."""
        kind, colon, number = text.strip().partition(":")
        if kind == "auto":
            return cls(int(number) if colon else None, auto=True)
        numbers = tuple(int(part) for part in text.split(","))
        return cls(numbers[0]) if len(numbers) == 1 else cls(layers=numbers)

    def sets(self, total: int) -> list[tuple[int, ...]]:
        """The sets of layers to choose from: one, or several with `auto`. Raises UsageError."""
        if self.layers:
            ordered = tuple(sorted(set(self.layers)))
            if ordered != self.layers or ordered[0] < 0 or ordered[-1] >= total:
                raise UsageError(
                    f"--layers: use ascending numbers from 0 to {total - 1}. This model has {total} layers."
                )
            return [ordered]
        count = max(2, round(total / 3)) if self.count is None else self.count
        if not 1 <= count <= total:
            raise UsageError(f"--layers {count}: this model has {total} layers.")
        return candidates(total, count) if self.auto else [spread(total, count)]


def spread(total: int, count: int) -> tuple[int, ...]:
    """round(linspace(0, total - 1, count)): keeps the first and the last, or only the last if count is 1."""
    if count == 1:
        return (total - 1,)
    return tuple(round(i * (total - 1) / (count - 1)) for i in range(count))


def candidates(total: int, count: int) -> list[tuple[int, ...]]:
    """The sets to score untrained: all sets that keep the first and the last layer if they are few, otherwise
    the even spread, spreads that are denser towards one end, and the first and the last `count` layers."""
    if count >= 2 and math.comb(total - 2, count - 2) <= _MOST_CANDIDATES:
        return [(0, *middle, total - 1) for middle in combinations(range(1, total - 1), count - 2)]
    sets = [spread(total, count), tuple(range(count)), tuple(range(total - count, total))]
    for power in (0.6, 0.75, 0.9, 1.1, 1.35, 1.7):
        bent = [round((i / max(count - 1, 1)) ** power * (total - 1)) for i in range(count)]
        if len(set(bent)) == count:
            sets.append(tuple(bent))
    return list(dict.fromkeys(sets))
