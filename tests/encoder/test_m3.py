"""BGE-M3's numerics against a padded reference."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest

from encoder import reference
from m3index.encoder.load import load

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "",
    "the the the the book the book",
    "敏捷的棕色狐狸跳过懒狗并阅读一本关于搜索的书",
    " ".join(models.LINES[:3]),
    "</s><s><pad>",
    "☃ unknown ☃",
    "a",
]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 24},
        {"num_hidden_layers": 3, "num_attention_heads": 8, "hidden_size": 64, "intermediate_size": 96},
        {"hidden_act": "gelu_new", "limit": 512},
    ],
)
def test_every_output_equals_the_padded_reference(tmp_path: Path, shape: dict[str, object]) -> None:
    path = models.write_m3(tmp_path, **shape)
    texts = [*TEXTS, " ".join(models.LINES * 3)] if shape.get("limit") else TEXTS
    expected = reference.encode(path, texts)
    got = load(str(path), precision="fp32").encode_documents(texts, multi_vector=True)
    assert got.lexical is not None
    assert got.multi_vector is not None
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-5)
    assert expected.lexical is not None
    assert sum(len(r) for r in expected.lexical) > 10
    for i, row in enumerate(expected.lexical):
        assert got.lexical.row(i).to_dict() == pytest.approx(row, abs=1e-5)
    assert expected.multi_vector is not None
    for mine, theirs in zip(got.multi_vector, expected.multi_vector, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert got.multi_vector[1].shape == (1, path_width(path))


def path_width(path: Path) -> int:
    return int(load(str(path)).info.dim)


def test_alone_equals_in_a_batch_whatever_the_budget(m3: Path) -> None:
    alone = load(str(m3), precision="fp32")
    for budget in (1, 16, 64, 10_000):
        batch = load(str(m3), precision="fp32", batch_tokens=budget).encode_documents(
            TEXTS, multi_vector=True
        )
        assert batch.lexical is not None
        assert batch.multi_vector is not None
        for i, text in enumerate(TEXTS):
            one = alone.encode_documents([text], multi_vector=True)
            assert one.lexical is not None
            assert one.multi_vector is not None
            np.testing.assert_allclose(batch.dense[i], one.dense[0], atol=1e-5)
            assert batch.lexical.row(i).to_dict() == pytest.approx(one.lexical.row(0).to_dict(), abs=1e-5)
            np.testing.assert_allclose(batch.multi_vector[i], one.multi_vector[0], atol=1e-5)
