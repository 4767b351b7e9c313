from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from m3index.distill.data import Tokenised
from m3index.distill.fit import LeastSquares
from m3index.distill.teachers import BM25_B, BM25_K1, Bm25


@pytest.fixture
def inputs(tmp_path: Path) -> Tokenised:
    rows = [[0, 5, 6, 2], [0, 5, 5, 7, 2], [0, 8, 2]]
    np.concatenate(rows).astype(np.int32).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ids.npy", np.cumsum([0, *map(len, rows)]))
    return Tokenised(tmp_path / "ids.bin")


def test_products_of_the_weights_are_bm25(inputs: Tokenised) -> None:
    teacher = Bm25(inputs, 10, np.array([0, 1, 2, 3], np.int32), torch.device("cpu"))
    weights = teacher.outputs(np.array([1])).weights
    assert weights is not None
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    norm = BM25_K1 * (1 - BM25_B + BM25_B * 5 / 4)
    expected = math.sqrt(idf) * 2 * (BM25_K1 + 1) / (2 + norm)
    assert weights.tolist() == pytest.approx([0, expected, expected, weights[3].item(), 0], rel=1e-5)
    assert weights[3] > 0


def test_rarer_tokens_weigh_more(inputs: Tokenised) -> None:
    teacher = Bm25(inputs, 10, np.array([0, 2], np.int32), torch.device("cpu"))
    weights = teacher.weights(np.array([0, 5, 6, 9, 2], np.int32))
    assert 0 == weights[0] < weights[1] < weights[2] < weights[3]


def test_least_squares_finds_the_line_in_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator)
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    fit = LeastSquares()
    for part in x.split(64):
        fit.add(part, part @ weight.T + bias)
    head = fit.solve()
    assert torch.allclose(head.weight, weight, atol=0.01)
    assert torch.allclose(head.bias, bias, atol=0.01)
    assert not head.weight.requires_grad
