from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from m3index.encoder import recall
from m3index.encoder.recall import Recall, RecallCheck
from m3index.errors import UsageError
from m3index.types import EncodedBatch, IntArray, SparseRows


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, 16)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def batch(
    dense: np.ndarray, tokens: Sequence[int], lexical: list[dict[int, float]] | None = None
) -> EncodedBatch:
    sparse = None
    if lexical is not None:
        sparse = SparseRows(
            np.cumsum([0, *map(len, lexical)]).astype(np.int64),
            np.array([t for row in lexical for t in row], np.int32),
            np.array([w for row in lexical for w in row.values()], np.float32),
        )
    return EncodedBatch(dense.astype(np.float32), sparse, np.array(tokens, np.int32))


class Truth:
    """fp32, whose vectors are known beforehand: an input is its place."""

    def __init__(self, dense: np.ndarray, lexical: list[dict[int, float]] | None = None) -> None:
        self.dense, self.lexical, self.asked, self.closed = dense, lexical, [], 0  # type: ignore[var-annotated]

    def __call__(self, ids: Sequence[IntArray], lexical: bool, skip: int) -> EncodedBatch:
        places = [int(row[0]) for row in ids]
        self.asked += places
        kept = [self.lexical[p] for p in places] if lexical and self.lexical else None
        return batch(self.dense[places], [len(row) for row in ids], kept)

    def close(self) -> None:
        self.closed += 1


def rows(places: Sequence[int], tokens: int = 3) -> list[IntArray]:
    return [np.full(tokens, place, np.int32) for place in places]


def test_the_sample_is_bounded_spread_and_taken_once() -> None:
    dense = vectors(1000)
    truth = Truth(dense)
    check = RecallCheck(truth, truth.close)
    for _ in range(3):
        check.see(rows(range(1000)), batch(dense, [3] * 1000), 0)
    assert len(truth.asked) == recall.SAMPLE_TEXTS
    assert (truth.asked[0], truth.asked[-1]) == (0, 999)
    assert truth.closed == 1
    assert check.recall == Recall(64, pytest.approx(1, abs=1e-6), pytest.approx(1, abs=1e-6), 1, None, None)


def test_the_sample_is_bounded_in_tokens_and_has_one_text_at_least() -> None:
    dense = vectors(9)
    for tokens, most in ((1000, 8), (100_000, 1)):
        truth = Truth(dense)
        check = RecallCheck(truth, truth.close)
        for _ in range(3):
            check.see(rows(range(9), tokens), batch(dense, [tokens] * 9), 0)
        assert len(truth.asked) == most


def test_the_sample_grows_over_several_calls() -> None:
    dense = vectors(100)
    truth = Truth(dense)
    check = RecallCheck(truth, truth.close)
    for place in range(100):
        check.see(rows([place]), batch(dense[[place]], [3]), 0)
        assert check.recall is not None
        assert (check.recall.neighbours is None) == (place < 31)
    assert check.recall.texts == 64


def test_a_mean_cosine_below_the_bar_is_refused_once_there_are_eight() -> None:
    dense = vectors(100)
    off = dense + 0.02 * vectors(100, seed=1) * 3  # cosine about 0.998
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    check = RecallCheck(Truth(dense), lambda: None)
    check.see(rows(range(7)), batch(off[:7], [3] * 7), 0)
    with pytest.raises(UsageError, match=r"cosine 0\.99\d+ \(mean\), 0\.99\d+ \(least\), on 8 of your texts"):
        check.see(rows([7]), batch(off[[7]], [3]), 0)


def test_one_text_that_is_plainly_wrong_is_enough() -> None:
    dense = vectors(2)
    with pytest.raises(UsageError, match="too coarse"):
        RecallCheck(Truth(dense), lambda: None).see(rows([0]), batch(dense[[1]], [3]), 0)


def test_neighbours_that_change_are_refused() -> None:
    near = vectors(1) + 1e-3 * vectors(64, seed=1)  # all alike: a cosine says nothing of who is nearest
    dense = near / np.linalg.norm(near, axis=1, keepdims=True)
    off = near + 1e-3 * vectors(64, seed=2)
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    with pytest.raises(UsageError, match=r"\d\d\.\d% of the ten nearest texts are the same"):
        RecallCheck(Truth(dense), lambda: None).see(rows(range(64)), batch(off, [3] * 64), 0)


def test_lexical_weights_are_compared() -> None:
    dense = vectors(10)
    weights = [{1: 0.5, 2: 0.25, 3: 0.1}] * 9 + [{}]
    check = RecallCheck(Truth(dense, weights), lambda: None)
    check.see(rows(range(10)), batch(dense, [3] * 10, weights), 0)
    assert check.recall is not None
    assert (check.recall.lexical, check.recall.heaviest) == (pytest.approx(1), 1)
    other = [{1: 0.5, 4: 0.25, 5: 0.1}] * 9 + [{}]
    with pytest.raises(UsageError, match=r"lexical cosine 0\.79\d+, 40\.0% of"):
        RecallCheck(Truth(dense, weights), lambda: None).see(
            rows(range(10)), batch(dense, [3] * 10, other), 0
        )
