"""The CUDA path against the CPU's fp32: `make test-gpu` on a machine that has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from m3index.encoder import attention, hardware, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import FusedBackbone, PackedBackbone
from m3index.encoder.cross import CrossEncoder
from m3index.encoder.load import load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
CUDA = torch.device("cuda", 0)
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
    computed_or_skip(precision)
    path = write(tmp_path, limit=256)
    expected = load(str(path), device="cpu", precision="fp32").encode_documents(TEXTS)
    encoder = load(str(path), device="cuda", precision=precision, batch_tokens=96)
    got = encoder.encode_documents(TEXTS)
    cosine = (got.dense * expected.dense).sum(1)
    assert cosine.min() > {"fp16": 0.9999, "bf16": 0.99, "fp32": 0.99999}[precision]
    assert encoder._engines is not None
    # Packed, not one by one.
    assert isinstance(next(iter(encoder._engines[0]._backbones._models.values())), way)
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


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_every_device_of_the_host(m3: Path) -> None:
    expected = load(str(m3), device="cuda:0").encode_documents(TEXTS).dense
    got = load(str(m3), device="auto", batch_tokens=64).encode_documents(TEXTS).dense
    np.testing.assert_allclose(got, expected, atol=5e-3)


def computed_or_skip(precision: str) -> None:
    if precision == "bf16" and not hardware.computes_bf16(CUDA):
        pytest.skip("this card does not compute in bf16")


def rows(lengths: list[int]) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [np.array([0, *draw.integers(4, 200, n - 2), 2], np.int32) for n in lengths]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_heads_of_64_and_inputs_of_up_to_8192_tokens(tmp_path: Path, precision: str) -> None:
    computed_or_skip(precision)
    path = models.write_m3(tmp_path, limit=8192, hidden_size=128, num_attention_heads=2)
    inputs = rows([8192, 2, 512, 512, 3, 2048, 100])
    options = {"lexical": True, "multi_vector": True}
    expected = load(str(path), device="cpu", precision="fp32").encode_ids(inputs, **options)
    got = load(str(path), device="cuda", precision=precision).encode_ids(inputs, **options)
    least = {"fp16": 0.999, "bf16": 0.99, "fp32": 0.9999}[precision]
    assert (got.dense * expected.dense).sum(1).min() > least
    assert got.multi_vector is not None
    assert expected.multi_vector is not None
    for mine, theirs in zip(got.multi_vector, expected.multi_vector, strict=True):
        assert mine.shape == theirs.shape
        assert (mine * theirs).sum(1).mean() > least


@pytest.mark.parametrize("size", [8, 12, 64, 100, 128, 192, 224, 256, 264])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_attention_of_every_head_size(size: int, causal: bool, kv_heads: int, precision: str) -> None:
    computed_or_skip(precision)
    dtype = hardware.DTYPES[precision]  # type: ignore[index]
    if attention.path(hardware.capability(CUDA), dtype, size) == "varlen":
        assert attention._varlen_runs(CUDA, dtype, size)  # the table promises no kernel that is not there
    pack = packing.pack(rows([70, 70, 33, 2]))
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(175, 4, size, generator=draw).to(dtype)
    k, v = torch.randn(2, 175, kv_heads, size, generator=draw).to(dtype)
    bounds = torch.from_numpy(pack.bounds)
    expected = attention.attend(q.float(), k.float(), v.float(), Spans.of(pack, bounds), causal=causal)
    spans = Spans.of(pack, bounds.to(CUDA))
    got = attention.attend(q.to(CUDA), k.to(CUDA), v.to(CUDA), spans, causal=causal)
    torch.testing.assert_close(got.float().cpu(), expected, atol=0.03, rtol=0.03)


def test_gradients_of_attention() -> None:
    precision = "bf16" if hardware.computes_bf16(CUDA) else "fp16"
    pack = packing.pack(rows([70, 33, 2]))
    bounds = torch.from_numpy(pack.bounds)
    qkv = torch.randn(3, 105, 4, 64, generator=torch.Generator().manual_seed(0))
    exact = qkv.clone().requires_grad_()
    attention.attend(*exact, Spans.of(pack, bounds)).square().sum().backward()
    half = qkv.to(CUDA, hardware.DTYPES[precision]).requires_grad_()  # type: ignore[index]
    attention.attend(*half, Spans.of(pack, bounds.to(CUDA))).float().square().sum().backward()
    assert exact.grad is not None
    assert half.grad is not None
    torch.testing.assert_close(half.grad.float().cpu(), exact.grad, atol=0.1, rtol=0.1)


def test_memory_that_does_not_suffice_is_used_in_parts(tmp_path: Path) -> None:
    shape = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    path = models.write_m3(tmp_path, limit=512, **shape)
    encoder = load(str(path), device="cuda", batch_tokens=65_536)
    inputs = rows([512] * 128)
    expected = encoder.encode_ids(inputs, lexical=True).dense
    torch.cuda.empty_cache()
    used, whole = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((used + 128 * 2**20) / whole)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(128 * 2**20 + 2**22, dtype=torch.uint8, device=CUDA)
        got = encoder.encode_ids(inputs, lexical=True).dense
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(got, expected, atol=5e-3)
    assert torch.cuda.memory_allocated() <= used + 2**20


def test_what_overflows_is_encoded_again(tmp_path: Path) -> None:
    path = models.overflow(models.write_m3(tmp_path, hidden_act="relu"))
    expected = load(str(path), device="cpu", precision="fp32").encode_documents(TEXTS).dense
    got = load(str(path), device="cuda", precision="fp16").encode_documents(TEXTS).dense
    assert (got * expected).sum(1).min() > 0.99


def test_cross_encoder(tmp_path: Path) -> None:
    path = str(models.write_cross_encoder(tmp_path))
    expected = CrossEncoder.load(path, device="cpu", precision="fp32").score("the book", TEXTS)
    got = CrossEncoder.load(path, device="cuda").score("the book", TEXTS)
    np.testing.assert_allclose(got, expected, atol=2e-2)


def test_a_cross_encoder_that_overflows(tmp_path: Path) -> None:
    path = str(models.overflow(models.write_cross_encoder(tmp_path, hidden_act="relu"), "roberta."))
    expected = CrossEncoder.load(path, device="cpu", precision="fp32").score("the book", TEXTS)
    got = CrossEncoder.load(path, device="cuda", precision="fp16").score("the book", TEXTS)
    np.testing.assert_allclose(got, expected, atol=0.1)
