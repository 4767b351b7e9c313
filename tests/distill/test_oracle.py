"""A student's directory, read by sentence-transformers and by FlagEmbedding."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from distill.conftest import distill

from m3index.encoder.load import load

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

TEXTS = ["the quick brown fox reads a book", "le chien paresseux", "敏捷的棕色狐狸跳过懒狗"]


@pytest.mark.parametrize("projected", [False, True])
def test_sentence_transformers_gives_the_dense_vectors(
    teacher: Path, small: Path, tmp_path: Path, projected: bool
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    changes: dict[str, Any] = {"steps": 5}
    if projected:
        bert = models.write_sentence_bert(tmp_path / "bert")
        changes |= {"student": str(bert), "recipe": "mse"}
    done = distill(teacher, small, tmp_path / "s", **changes)
    theirs = sentence_transformers.SentenceTransformer(str(done.out), device="cpu").encode(TEXTS)
    ours = load(str(done.out), device="cpu", precision="fp32").encode_documents(TEXTS).dense
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_flag_embedding_gives_all_three_outputs(teacher: Path, small: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flag = pytest.importorskip("FlagEmbedding", reason="tests/oracle/requirements.txt is not installed")
    done = distill(teacher, small, tmp_path / "s", steps=5)
    model = flag.BGEM3FlagModel(str(done.out), use_fp16=False, devices="cpu")
    theirs = model.encode(TEXTS, return_dense=True, return_sparse=True, return_colbert_vecs=True)
    encoder = load(str(done.out), device="cpu", precision="fp32")
    ours = encoder.encode_documents(TEXTS, lexical=True, multi_vector=True)
    np.testing.assert_allclose(ours.dense, theirs["dense_vecs"], atol=2e-5)
    assert ours.lexical is not None
    assert ours.multi_vector is not None
    for i, weights in enumerate(theirs["lexical_weights"]):
        positive = {int(token): float(weight) for token, weight in weights.items() if weight > 0}
        assert ours.lexical.row(i).to_dict() == pytest.approx(positive, abs=2e-5)
        np.testing.assert_allclose(ours.multi_vector[i], theirs["colbert_vecs"][i], atol=2e-5)
