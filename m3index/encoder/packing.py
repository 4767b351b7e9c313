"""Texts of any length -> packs under a token budget, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3index.types import IntArray


@dataclass(frozen=True, slots=True)
class Pack:
    """Several inputs end to end.

    ids, positions: (t,) int32, positions counted within each input. bounds: (n + 1,) int32,
    input i is ids[bounds[i]:bounds[i + 1]]. types: (t,) int32 token type ids, None for all zero.
    """

    ids: IntArray
    positions: IntArray
    bounds: IntArray
    types: IntArray | None = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.bounds)

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))


def plan(lengths: IntArray, budget: int) -> list[NDArray[np.int64]]:
    """Indices of the inputs of each pack, longest first, each pack of at most `budget` tokens.

    An input longer than the budget is a pack of its own. Neighbours in length travel together: they
    share attention calls, and a pack of the longest comes first, so that memory is short early or never.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    packs: list[NDArray[np.int64]] = []
    start = total = 0
    for place, i in enumerate(order):
        n = int(lengths[i])
        if total and total + n > budget:
            packs.append(order[start:place])
            start, total = place, 0
        total += n
    if start < len(order):
        packs.append(order[start:])
    return packs


def pack(
    rows: Sequence[IntArray], padding: int | None = None, types: Sequence[IntArray] | None = None
) -> Pack:
    """Joins rows end to end. padding: the padding id of a model that counts positions from it, else None."""
    lengths = np.fromiter((len(r) for r in rows), np.int32, len(rows))
    bounds = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(lengths, out=bounds[1:])
    ids = np.concatenate(rows).astype(np.int32, copy=False)
    places = _positions(ids, lengths, bounds, padding)
    return Pack(ids, places, bounds, None if types is None else np.concatenate(types).astype(np.int32))


def _positions(ids: IntArray, lengths: IntArray, bounds: IntArray, padding: int | None) -> IntArray:
    """0, 1, 2 ... within each input; in the RoBERTa family padding + 1, padding + 2 ..., where a padding
    token inside a text ("<pad>" can be typed) stays at `padding` and is not counted."""
    if padding is None:
        return np.arange(len(ids), dtype=np.int32) - np.repeat(bounds[:-1], lengths)
    real = ids != padding
    counted = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(real, out=counted[1:])
    within = counted[1:] - np.repeat(counted[bounds[:-1]], lengths)
    return np.where(real, within, 0).astype(np.int32) + np.int32(padding)
