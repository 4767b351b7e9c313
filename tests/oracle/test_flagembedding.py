"""BGE-M3's outputs equal FlagEmbedding's `BGEM3FlagModel` in fp32 to 1e-4."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from m3index.encoder.load import load
from m3index.search.rerank import M3Reranker

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "",
    "the the the the book the book",
    "敏捷的棕色狐狸跳过懒狗并阅读一本关于搜索的书",
    " ".join(models.LINES[:4]),
    "</s><s><pad>",
    "</s>",
    "<pad>",
    "☃ unknown ☃",
    " ".join(models.LINES) * 4,
]
SHAPES: list[dict[str, Any]] = [
    {"limit": 2048},
    {"limit": 2048, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 24},
    {"limit": 2048, "num_hidden_layers": 5, "num_attention_heads": 8, "hidden_size": 64},
    {"limit": 2048, "num_hidden_layers": 3, "hidden_size": 128, "intermediate_size": 512},
]


@pytest.fixture(params=SHAPES, ids=str)
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return models.write_m3(tmp_path, seed=7, **request.param)


@pytest.fixture
def theirs(directory: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flag = pytest.importorskip("FlagEmbedding", reason="tests/oracle/requirements.txt is not installed")
    return flag.BGEM3FlagModel(str(directory), use_fp16=False, devices="cpu")


@pytest.mark.parametrize("batch_size", [1, 256])
def test_the_three_outputs(directory: Path, theirs: Any, batch_size: int) -> None:
    expected = theirs.encode(
        TEXTS, return_dense=True, return_sparse=True, return_colbert_vecs=True, max_length=2048,
        batch_size=batch_size,
    )  # fmt: skip
    got = load(str(directory), precision="fp32").encode_documents(TEXTS, multi_vector=True)
    assert got.lexical is not None
    assert got.multi_vector is not None
    np.testing.assert_allclose(got.dense, expected["dense_vecs"], atol=1e-4)
    for i, weights in enumerate(expected["lexical_weights"]):
        row = {int(token): float(weight) for token, weight in weights.items()}
        assert got.lexical.row(i).to_dict() == pytest.approx(row, abs=1e-4)
        np.testing.assert_allclose(got.multi_vector[i], expected["colbert_vecs"][i], atol=1e-4)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.4, 0.2, 0.4), (1.0, 0.3, 0.0)])
def test_the_reranker_scores_as_compute_score(
    directory: Path, theirs: Any, weights: tuple[float, float, float]
) -> None:
    pairs = [(query, text) for query in TEXTS[:4] for text in TEXTS]
    expected = theirs.compute_score(
        pairs, batch_size=1, max_query_length=2048, max_passage_length=2048,
        weights_for_different_modes=list(weights),
    )["colbert+sparse+dense"]  # fmt: skip
    names = dict(zip(("dense", "sparse", "colbert"), weights, strict=True))
    reranker = M3Reranker(load(str(directory), precision="fp32"), names)
    scores = np.concatenate([reranker.score(query, TEXTS) for query in TEXTS[:4]])
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=1e-5)
