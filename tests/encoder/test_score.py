from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m3index.encoder import score
from m3index.encoder.load import load
from m3index.errors import UsageError
from m3index.types import EncodedBatch, SparseRows, SparseVector


def sparse(**weights: float) -> SparseVector:
    ids = sorted(int(k[1:]) for k in weights)
    return SparseVector(np.array(ids, np.int32), np.array([weights[f"t{i}"] for i in ids], np.float32))


def batch(dense: list[float], lexical: SparseVector, vectors: list[list[float]]) -> EncodedBatch:
    rows = SparseRows(np.array([0, len(lexical)], np.int64), lexical.indices, lexical.values)
    return EncodedBatch(
        np.array([dense], np.float32), rows, np.array([3], np.int32), [np.array(vectors, np.float32)]
    )


def test_by_hand() -> None:
    query = batch([1.0, 0.0], sparse(t5=0.5, t7=2.0, t9=1.0), [[1.0, 0.0], [0.0, 1.0]])
    text = batch([0.6, 0.8], sparse(t4=3.0, t5=4.0, t9=0.5), [[0.6, 0.8], [-1.0, 0.0]])
    got = score.compute_score(query, text, (0.4, 0.2, 0.4))
    assert {k: round(float(v[0]), 6) for k, v in got.items()} == {
        "dense": 0.6,
        "sparse": 2.5,
        "colbert": 0.7,
        "sparse+dense": round((0.4 * 0.6 + 0.2 * 2.5) / 0.6, 6),
        "colbert+sparse+dense": round(0.4 * 0.6 + 0.2 * 2.5 + 0.4 * 0.7, 6),
    }


def test_no_common_token_and_no_vector() -> None:
    assert score.lexical_score(sparse(t5=1.0), sparse()) == 0.0
    assert score.colbert_score(np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32)) == 0.0


def test_what_cannot_be_scored(m3: Path) -> None:
    encoder = load(str(m3))
    full = encoder.encode_documents(["a", "b"], multi_vector=True)
    with pytest.raises(UsageError, match="pairs"):
        score.compute_score(full, encoder.encode_documents(["a"], multi_vector=True))
    with pytest.raises(UsageError, match="multi-vectors"):
        score.compute_score(full, encoder.encode_documents(["a", "b"]))
    for weights in [(0.0, 0.0, 1.0), (1.0, -1.0, 1.0)]:
        with pytest.raises(UsageError, match="Weights"):
            score.compute_score(full, full, weights)
