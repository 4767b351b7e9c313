from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3index.distill import cache, teachers
from m3index.distill.data import Tokenised
from m3index.distill.fit import LeastSquares
from m3index.distill.losses import Outputs
from m3index.distill.teachers import BM25_B, BM25_K1, Bm25, FrozenModel, Online
from m3index.encoder import hardware, layout
from m3index.errors import M3IndexError, MismatchError

CPU = torch.device("cpu")


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


@pytest.fixture
def texts(tmp_path: Path) -> Tokenised:
    """20 inputs of 4 to 23 tokens of the tiny vocabulary."""
    draw = np.random.default_rng(0)
    rows = [np.array([0, *draw.integers(4, 200, n), 2], np.int32) for n in range(2, 22)]
    np.concatenate(rows).tofile(tmp_path / "texts.bin")
    np.save(tmp_path / "texts.npy", np.cumsum([0, *map(len, rows)]))
    return Tokenised(tmp_path / "texts.bin")


def frozen(path: Path, precision: hardware.Precision, **options: Any) -> FrozenModel:
    return FrozenModel(layout.read(path), CPU, precision, **options)


def agree(found: Outputs, expected: Outputs) -> None:
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("wider", ["bf16", "fp32"])
def test_what_overflows_is_taught_in_the_next_wider_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Tokenised, wider: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: wider == "bf16")
    path = models.overflow(models.write_m3(tmp_path / "model", hidden_act="relu"))
    model = frozen(path, "fp16", modules=True)
    model.watch([0])
    everything = np.arange(len(texts))
    found = Online(model, texts).outputs(everything)
    assert list(model._networks._models) == ["fp16", wider]
    exact = frozen(path, "fp32", modules=True)
    exact.watch([0])
    agree(found, Online(exact, texts).outputs(everything))
    assert len(found.layers) == 1


def test_the_cache_holds_finite_outputs_of_a_teacher_that_overflows(tmp_path: Path, texts: Tokenised) -> None:
    path = models.overflow(models.write_m3(tmp_path / "model", hidden_act="relu"))
    stated = cache.manifest("teacher", "data", texts, True, "fp16")
    cached = cache.build(tmp_path / "cache", stated, frozen(path, "fp16"), texts, budget=40)
    everything = np.arange(len(texts))
    expected = Online(frozen(path, "fp32"), texts).outputs(everything)
    found = cached.outputs(everything)
    assert found.dense is not None
    assert found.weights is not None
    assert torch.isfinite(found.dense).all()
    assert torch.isfinite(found.weights).all()
    assert (found.dense * expected.dense).sum(-1).min() > 0.99


def test_a_teacher_that_is_finite_in_no_precision_writes_no_cache(tmp_path: Path, texts: Tokenised) -> None:
    path = models.write_m3(tmp_path / "model")
    tensors = load_file(str(path / "model.safetensors"))
    tensors["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    stated = cache.manifest("teacher", "data", texts, True, "bf16")
    with pytest.raises(MismatchError, match="not finite in fp32"):
        cache.build(tmp_path / "cache", stated, frozen(path, "bf16"), texts, budget=40)
    assert not list((tmp_path / "cache").glob("*.parquet"))


def test_outputs_beyond_float16_are_not_written_into_a_cache(tmp_path: Path, texts: Tokenised) -> None:
    path = models.write_m3(tmp_path / "model")
    torch.save(
        {"weight": torch.ones(1, models.HIDDEN) * 1e6, "bias": torch.ones(1)}, path / "sparse_linear.pt"
    )
    stated = cache.manifest("teacher", "data", texts, True, "fp32")
    with pytest.raises(MismatchError, match="Leave out --cache"):
        cache.build(tmp_path / "cache", stated, frozen(path, "fp32"), texts, budget=40)
    assert not list((tmp_path / "cache").glob("*.parquet"))


def test_a_batch_of_the_teacher_that_does_not_fit_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Tokenised
) -> None:
    path = models.write_m3(tmp_path / "model")
    everything = np.arange(len(texts))
    expected = Online(frozen(path, "fp32"), texts).outputs(everything)
    seen: list[int] = []
    room = 100
    plain = teachers.Network.forward

    def forward(self: teachers.Network, batch: Any) -> Outputs:
        seen.append(batch.tokens)
        if batch.tokens > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, batch)

    monkeypatch.setattr(teachers.Network, "forward", forward)
    found = Online(frozen(path, "fp32"), texts).outputs(everything)
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(a, b)
    assert seen[0] > room
    assert len(seen) > 4
    room = 10
    with pytest.raises(M3IndexError, match=r"memory for one input of \d+ tokens"):
        Online(frozen(path, "fp32"), texts).outputs(everything)


def test_a_batch_of_the_teacher_that_overflows_and_then_does_not_fit_is_halved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Tokenised
) -> None:
    path = models.overflow(models.write_m3(tmp_path / "model", hidden_act="relu"))
    everything = np.arange(len(texts))
    expected = Online(frozen(path, "fp32"), texts).outputs(everything)
    seen: list[int] = []
    plain = teachers.Network.forward

    def forward(self: teachers.Network, batch: Any) -> Outputs:
        seen.append(batch.tokens)
        if len(seen) > 1 and batch.tokens > 100:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return plain(self, batch)

    monkeypatch.setattr(teachers.Network, "forward", forward)
    agree(Online(frozen(path, "fp16"), texts).outputs(everything), expected)
    assert seen[0] == seen[1] == max(seen) > 100
    assert len(seen) > 4


HEADS = ("dense", "weights", "vectors", "hidden", "layers")


@pytest.mark.parametrize("head", HEADS)
def test_one_number_of_one_output_that_is_not_finite_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Tokenised, head: str
) -> None:
    path = models.write_m3(tmp_path / "model")
    model = frozen(path, "fp16", modules=True)
    model.watch([0])
    plain, narrow = teachers.Network.forward, model._networks.model

    def forward(self: teachers.Network, batch: Any) -> Outputs:
        found = plain(self, batch)
        if self is narrow:
            (broken,) = found.layers if head == "layers" else (getattr(found, head),)
            broken.view(-1)[-1] = math.inf
        return found

    monkeypatch.setattr(teachers.Network, "forward", forward)
    found = Online(model, texts).outputs(np.arange(len(texts)))
    assert len(list(found.tensors())) == len(HEADS)
    assert all(torch.isfinite(x).all() for x in found.tensors())
    assert len(model._networks._models) == 2
