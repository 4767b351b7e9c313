"""Checks on the first texts that a user encodes whether a coarser precision finds what fp32 finds.

The cost of int8 depends on the model and the texts, so a figure measured elsewhere does not predict it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.types import EncodedBatch, FloatArray, IntArray, SparseRows

SAMPLE_TEXTS, SAMPLE_TOKENS = 64, 8_192
COSINE, NEIGHBOURS, LEXICAL = 0.999, 0.9, 0.99
"""The minimums for `Recall.cosine`, `Recall.neighbours` and `Recall.lexical`."""

_FEW_TEXTS, _FEW_COSINE = 8, 0.99
_TOP, _TOP_TEXTS = 10, 32


@dataclass(frozen=True, slots=True)
class Recall:
    """int8 compared with fp32 on a sample of `texts`.

    cosine, cosine_least: mean and lowest cosine of the dense vectors. neighbours: mean share of a text's ten
    nearest texts in the sample that are the same, None for fewer than 32 texts. lexical: mean cosine of the
    lexical weights. heaviest: mean share of a text's ten heaviest tokens that are the same. Both are None if
    lexical weights were not requested.
    """

    texts: int
    cosine: float
    cosine_least: float
    neighbours: float | None
    lexical: float | None
    heaviest: float | None

    def __str__(self) -> str:
        parts = [f"cosine {self.cosine:.5f} (mean), {self.cosine_least:.5f} (least)"]
        if self.neighbours is not None:
            parts.append(f"{self.neighbours:.1%} of the ten nearest texts are the same")
        if self.lexical is not None:
            parts.append(
                f"lexical cosine {self.lexical:.5f}, "
                f"{self.heaviest:.1%} of the ten heaviest tokens are the same"
            )
        return f"{', '.join(parts)}, on {self.texts} of your texts"

    @property
    def enough(self) -> bool:
        """Whether int8 reaches the minimums. With fewer than 8 texts only clear errors count, because the
        cosine of one text says little about the mean."""
        return (
            self.cosine >= (COSINE if self.texts >= _FEW_TEXTS else _FEW_COSINE)
            and (self.neighbours is None or self.neighbours >= NEIGHBOURS)
            and (self.lexical is None or self.texts < _FEW_TEXTS or self.lexical >= LEXICAL)
        )


class RecallCheck:
    """Compares the first encoded texts, up to 64 texts and 8,192 tokens, with the output of `reference`.

    reference: (ids, lexical, skip) -> vectors in fp32. done: called once when the sample is full.
    Thread-safe.
    """

    def __init__(
        self,
        reference: Callable[[Sequence[IntArray], bool, int], EncodedBatch],
        done: Callable[[], None],
    ) -> None:
        self._reference, self._done = reference, done
        self._lock = threading.Lock()
        self._texts, self._tokens = SAMPLE_TEXTS, SAMPLE_TOKENS
        self._mine: list[FloatArray] = []
        self._truth: list[FloatArray] = []
        self._lexical: list[tuple[float, float]] = []
        self.recall: Recall | None = None

    def see(self, ids: Sequence[IntArray], encoded: EncodedBatch, skip: int) -> None:
        """ids, encoded: the inputs of a call and their vectors. Raises UsageError, on this and every later
        call, if the sample does not reach the minimums."""
        with self._lock:
            sampling = self._texts > 0
            places = self._sample(encoded.tokens) if sampling else []
            if places:
                truth = self._reference([ids[i] for i in places], encoded.lexical is not None, skip)
                self._compare(encoded, truth, places)
            if sampling and not self._texts:
                self._done()
            if self.recall is not None and not self.recall.enough:
                raise UsageError(
                    f"--precision int8 is too coarse for this model and these texts. Compared with fp32: "
                    f"{self.recall}. The minimums are a mean cosine of {COSINE}, {NEIGHBOURS:.0%} of the "
                    f"nearest texts and a lexical cosine of {LEXICAL}. Use --precision auto."
                )

    def _sample(self, tokens: IntArray) -> list[int]:
        """The indices of inputs spread evenly over the call, as many as the sample has room for."""
        spread = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), self._texts)).astype(int))
        places: list[int] = []
        for place in spread.tolist():
            fits = int(tokens[place]) <= self._tokens
            if not fits and (places or self._mine):
                self._texts = 0  # the sample is full
                break
            places.append(place)
            self._tokens -= int(tokens[place])
            self._texts -= 1
        return places

    def _compare(self, encoded: EncodedBatch, truth: EncodedBatch, places: Sequence[int]) -> None:
        self._mine.append(encoded.dense[places])
        self._truth.append(truth.dense)
        if encoded.lexical is not None and truth.lexical is not None:
            self._lexical += [
                _lexical(encoded.lexical, place, truth.lexical, i) for i, place in enumerate(places)
            ]
        mine, exact = np.concatenate(self._mine), np.concatenate(self._truth)
        cosines = (mine * exact).sum(1)
        lexical, heaviest = np.mean(self._lexical, axis=0) if self._lexical else (None, None)
        self.recall = Recall(
            texts=len(mine),
            cosine=float(cosines.mean()),
            cosine_least=float(cosines.min()),
            neighbours=_shared_neighbours(mine, exact) if len(mine) >= _TOP_TEXTS else None,
            lexical=None if lexical is None else float(lexical),
            heaviest=None if heaviest is None else float(heaviest),
        )


def _lexical(mine: SparseRows, i: int, truth: SparseRows, j: int) -> tuple[float, float]:
    """The cosine of row i of `mine` and row j of `truth`, and their share of common ten heaviest tokens."""
    a, b = mine.row(i), truth.row(j)
    left, right = (dict(zip(x.indices.tolist(), x.values.tolist(), strict=True)) for x in (a, b))
    if not left or not right:
        return (1.0, 1.0) if len(left) == len(right) else (0.0, 0.0)
    dot = sum(weight * right.get(token, 0.0) for token, weight in left.items())
    norms = float(np.linalg.norm(a.values) * np.linalg.norm(b.values))
    heavy, heaviest = (set(sorted(x, key=lambda token: -x[token])[:_TOP]) for x in (left, right))
    return dot / norms, len(heavy & heaviest) / len(heaviest)


def _shared_neighbours(mine: FloatArray, exact: FloatArray) -> float:
    nearest = [_nearest(vectors) for vectors in (mine, exact)]
    shared = [len(set(a) & set(b)) for a, b in zip(*(n.tolist() for n in nearest), strict=True)]
    return float(np.mean(shared)) / _TOP


def _nearest(vectors: FloatArray) -> NDArray[np.int64]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :_TOP]
