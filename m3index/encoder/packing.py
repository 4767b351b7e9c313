"""Packs inputs of any length under a token budget, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from m3index.types import IntArray


@dataclass(frozen=True, slots=True)
class Pack:
    """Several inputs, concatenated.

    ids, positions: (t,) int32, with positions counted within each input. bounds: (n + 1,) int32;
    input i is ids[bounds[i]:bounds[i + 1]]. types: (t,) int32 token type ids, None means all zero.
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


def plan(lengths: IntArray, budget: int, *, evenly: bool = False) -> list[NDArray[np.int64]]:
    """The input indices of each pack, longest first, with at most `budget` tokens per pack.

    An input longer than the budget gets its own pack. Inputs of similar length are packed together, so that
    they share attention calls. The longest come first, so that memory runs out early or never.

    evenly: makes the packs equally large instead of leaving a small remainder for the last one, which takes
    a GPU as long as a much larger pack.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    bounds = _full(ends, budget)
    if evenly:
        bounds = _even(ends, budget, at_least=len(bounds) - 1)
    return [order[start:stop] for start, stop in pairwise(bounds)]


def _full(ends: NDArray[np.int64], budget: int) -> list[int]:
    """The bounds of packs that take inputs while they have room. ends: the tokens up to each input's end."""
    bounds, done = [0], 0
    while bounds[-1] < len(ends):
        stop = max(int(np.searchsorted(ends, done + budget, "right")), bounds[-1] + 1)
        bounds.append(stop)
        done = int(ends[stop - 1])
    return bounds


def _even(ends: NDArray[np.int64], budget: int, *, at_least: int) -> list[int]:
    """The bounds of as few equal packs as fit. Each bound is the nearest one to an equal share, so that no
    pack differs from the mean by more than the longest input."""
    sums = np.concatenate([[0], ends])
    for count in range(at_least, len(ends)):
        shares = np.arange(1, count) / count * ends[-1]
        above = np.searchsorted(sums, shares)
        nearest = above - (shares - sums[above - 1] < sums[above] - shares)
        bounds = np.unique(np.concatenate([[0], nearest, [len(ends)]]))
        if ((np.diff(sums[bounds]) <= budget) | (np.diff(bounds) == 1)).all():
            found: list[int] = bounds.tolist()
            return found
    return list(range(len(ends) + 1))


def pack(
    rows: Sequence[IntArray], padding: int | None = None, types: Sequence[IntArray] | None = None
) -> Pack:
    """Concatenates rows. padding: the padding id if the model counts positions from it, otherwise None."""
    lengths = np.fromiter((len(r) for r in rows), np.int32, len(rows))
    bounds = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(lengths, out=bounds[1:])
    ids = np.concatenate(rows).astype(np.int32, copy=False)
    positions = _positions(ids, lengths, bounds, padding)
    return Pack(ids, positions, bounds, None if types is None else np.concatenate(types).astype(np.int32))


def _positions(ids: IntArray, lengths: IntArray, bounds: IntArray, padding: int | None) -> IntArray:
    """0, 1, 2 ... within each input. In the RoBERTa family padding + 1, padding + 2 ..., where a padding
    token inside a text (a user can type "<pad>") stays at `padding` and is not counted."""
    if padding is None:
        return np.arange(len(ids), dtype=np.int32) - np.repeat(bounds[:-1], lengths)
    real = ids != padding
    counted = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(real, out=counted[1:])
    within = counted[1:] - np.repeat(counted[bounds[:-1]], lengths)
    return np.where(real, within, 0).astype(np.int32) + np.int32(padding)
