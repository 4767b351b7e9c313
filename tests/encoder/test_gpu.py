"""The CUDA path against the CPU's fp32: `make test-gpu` on a machine that has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from m3index.encoder.backbone import FusedBackbone, PackedBackbone
from m3index.encoder.cross import CrossEncoder
from m3index.encoder.load import load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
TEXTS = [*models.LINES, "", "a", *(f"{line} {line}" for line in models.LINES)]


@pytest.mark.parametrize(
    ("write", "way"),
    [
        (models.write_m3, FusedBackbone),
        (models.write_sentence_bert, FusedBackbone),
        (models.write_sentence_mistral, PackedBackbone),
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_cuda_is_close_to_the_cpu(
    tmp_path: Path, write: Callable[..., Path], way: type, precision: str
) -> None:
    path = write(tmp_path, limit=256)
    expected = load(str(path), device="cpu", precision="fp32").encode_documents(TEXTS)
    encoder = load(str(path), device="cuda", precision=precision, batch_tokens=96)
    got = encoder.encode_documents(TEXTS)
    cosine = (got.dense * expected.dense).sum(1)
    assert cosine.min() > {"fp16": 0.9999, "bf16": 0.99, "fp32": 0.99999}[precision]
    assert encoder._engines is not None
    assert isinstance(next(iter(encoder._engines[0]._backbones.values())), way)  # packed, not one by one
    if expected.lexical is not None and precision != "bf16":
        assert got.lexical is not None
        for i in range(len(TEXTS)):
            mine, theirs = got.lexical.row(i).to_dict(), expected.lexical.row(i).to_dict()
            for token in mine.keys() | theirs.keys():
                assert mine.get(token, 0.0) == pytest.approx(theirs.get(token, 0.0), abs=0.02)


def test_a_text_alone_equals_the_same_text_in_a_batch(m3: Path) -> None:
    encoder = load(str(m3), device="cuda", precision="fp16")
    batch = encoder.encode_documents(TEXTS).dense
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode_documents([text]).dense[0], batch[i], atol=5e-3)


def test_every_device_of_the_host(m3: Path) -> None:
    expected = load(str(m3), device="cuda:0").encode_documents(TEXTS).dense
    got = load(str(m3), device="auto", batch_tokens=64).encode_documents(TEXTS).dense
    np.testing.assert_allclose(got, expected, atol=5e-3)


def test_cross_encoder(tmp_path: Path) -> None:
    path = str(models.write_cross_encoder(tmp_path))
    expected = CrossEncoder.load(path, device="cpu", precision="fp32").score("the book", TEXTS)
    got = CrossEncoder.load(path, device="cuda").score("the book", TEXTS)
    np.testing.assert_allclose(got, expected, atol=2e-2)
