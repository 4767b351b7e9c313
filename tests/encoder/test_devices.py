"""Several devices: packs are shared out and come back in order. Two engines on the CPU stand for two GPUs."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch

from m3index.encoder import hardware
from m3index.encoder.load import load


def test_packs_are_shared_and_the_order_is_kept(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{line} {i}" for i in range(6) for line in models.LINES]
    expected = load(str(m3), precision="fp32").encode_documents(texts, multi_vector=True)
    monkeypatch.setattr(hardware, "devices", lambda _: [torch.device("cpu")] * 2)
    encoder = load(str(m3), precision="fp32", batch_tokens=64)
    got = encoder.encode_documents(texts, multi_vector=True)
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-5)
    assert got.lexical is not None
    assert expected.lexical is not None
    np.testing.assert_array_equal(got.lexical.indptr, expected.lexical.indptr)
    np.testing.assert_array_equal(got.lexical.indices, expected.lexical.indices)
    assert got.multi_vector is not None
    assert expected.multi_vector is not None
    for mine, theirs in zip(got.multi_vector, expected.multi_vector, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert encoder._engines is not None
    assert len(encoder._engines) == 2
