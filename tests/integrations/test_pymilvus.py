from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from m3index.encoder.model import ModelEncoder
from m3index.errors import UsageError
from m3index.integrations.pymilvus import M3EmbeddingFunction

TEXTS = ["the sea rises", "Ebbe und Flut", "tides"]


@pytest.fixture(scope="module")
def function(m3_path: Path) -> M3EmbeddingFunction:
    return M3EmbeddingFunction(
        model_name=str(m3_path), device="cpu", use_fp16=False, batch_size=4, return_colbert_vecs=True
    )


def test_shapes_are_those_of_pymilvus_model(function: M3EmbeddingFunction) -> None:
    found = function.encode_documents(TEXTS)
    assert set(found) == {"dense", "sparse", "colbert_vecs"}
    assert isinstance(found["dense"], list)
    assert [v.shape for v in found["dense"]] == [(function.dim["dense"],)] * 3
    assert isinstance(found["sparse"], csr_array)
    assert found["sparse"].shape == (3, function.dim["sparse"])
    assert all(v.shape[1] == function.dim["colbert_vecs"] for v in found["colbert_vecs"])
    np.testing.assert_allclose(np.linalg.norm(found["dense"], axis=1), 1, atol=1e-6)


def test_values_are_the_encoder_s(function: M3EmbeddingFunction, model: ModelEncoder) -> None:
    found, expected = function(TEXTS), model.encode_documents(TEXTS, lexical=True, multi_vector=True)
    np.testing.assert_array_equal(np.array(found["dense"]), expected.dense)
    assert expected.lexical is not None
    for i in range(len(TEXTS)):
        row = found["sparse"][[i]].tocoo()
        assert (
            dict(zip(row.coords[1].tolist(), row.data.tolist(), strict=True))
            == expected.lexical.row(i).to_dict()
        )


def test_only_what_was_asked_for(m3_path: Path) -> None:
    function = M3EmbeddingFunction(str(m3_path), device="cpu", return_sparse=False)
    assert set(function.encode_queries(["tides"])) == {"dense"}


def test_what_is_not_offered_is_refused(m3_path: Path, function: M3EmbeddingFunction) -> None:
    with pytest.raises(UsageError, match="unit norm"):
        M3EmbeddingFunction(str(m3_path), normalize_embeddings=False)
    with pytest.raises(UsageError, match="tokens"):
        function.encode_documents(["sea " * 10_000])


def test_no_text_at_all(function: M3EmbeddingFunction) -> None:
    found = function.encode_documents([])
    assert found["dense"] == []
    assert found["sparse"].shape == (0, function.dim["sparse"])
