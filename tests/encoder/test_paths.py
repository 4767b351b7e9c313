"""Which attention serves which card, head size, precision and family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from m3index.encoder import attention, backbone, hardware, layout, packing
from m3index.encoder.attention import Spans
from m3index.encoder.hardware import DTYPES, Card, Precision
from m3index.errors import M3IndexError

CPU = torch.device("cpu")
PASCAL, VOLTA, TURING, AMPERE, RTX30, ADA, HOPPER, BLACKWELL, RTX50 = (
    (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0),
)  # fmt: skip
OLD, NEW = (PASCAL, VOLTA, TURING), (AMPERE, RTX30, ADA, HOPPER, BLACKWELL, RTX50)

# (cards, head sizes, precisions) -> path, without gradients.
TABLE: list[tuple[tuple[Card | None, ...], tuple[int, ...], tuple[Precision, ...], str]] = [
    (NEW, (8, 32, 64, 80, 96, 128, 160, 192, 224, 256), ("fp16", "bf16"), "varlen"),
    (NEW, (4, 12, 84, 100, 250, 264, 320, 512), ("fp16", "bf16"), "runs"),
    (NEW, (64, 128), ("fp32",), "runs"),
    (OLD, (32, 64, 100, 128, 264), ("fp16", "bf16", "fp32"), "runs"),
    ((None,), (64, 100), ("fp16", "bf16", "fp32"), "runs"),
]


@pytest.mark.parametrize(("cards", "sizes", "precisions", "expected"), TABLE)
def test_the_table(
    cards: tuple[Card, ...], sizes: tuple[int, ...], precisions: tuple[Precision, ...], expected: str
) -> None:
    for card in cards:
        for size in sizes:
            for precision in precisions:
                assert attention.path(card, DTYPES[precision], size) == expected, (card, size, precision)


@pytest.mark.parametrize(
    ("card", "size", "expected"),
    [(AMPERE, 224, "varlen"), (HOPPER, 224, "varlen"), (RTX30, 224, "runs"), (ADA, 200, "runs"),
     (RTX50, 224, "runs"), (RTX30, 192, "varlen"), (RTX30, 256, "varlen"), (TURING, 64, "runs")],
)  # fmt: skip
def test_gradients_of_wide_heads_are_for_the_cards_of_data_centres(
    card: Card, size: int, expected: str
) -> None:
    assert attention.path(card, torch.bfloat16, size, gradients=True) == expected


def test_what_only_some_releases_of_torch_take_goes_by_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.float16
    assert attention.path(HOPPER, half, 64, scale=64**-0.5) == "varlen"
    assert attention.path(HOPPER, half, 64, scale=0.25) == "runs"
    for takes in (True, False):
        monkeypatch.setattr(attention, "_varlen_takes", lambda _, takes=takes: takes)
        assert attention.path(HOPPER, half, 64, windowed=True) == ("varlen" if takes else "runs")
        assert attention.path(HOPPER, half, 64) == "varlen"
    monkeypatch.setattr(attention, "_varlen_attn", lambda: None)
    assert attention.path(HOPPER, half, 64) == "runs"


class Kernel:
    """A stand-in for torch's kernel on this card: the same refusals, and counts what it does not refuse."""

    def __init__(self, card: Card, built: bool = True) -> None:
        self.card, self.built, self.calls = card, built, 0

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
        window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if not self.built:
            raise RuntimeError("USE_FLASH_ATTENTION was not enabled for build.")
        if self.card < (8, 0):
            raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")
        if q.dtype not in (torch.float16, torch.bfloat16):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        if q.shape[-1] > 256:
            raise RuntimeError("FlashAttention forward only supports head dimension at most 256")
        if q.shape[-1] % 8:
            raise RuntimeError("head_size must be a multiple of 8, this is ensured by padding!")
        assert cu_q.dtype == cu_k.dtype == torch.int32
        self.calls += 1
        parts = [torch.split(x, torch.diff(cu_q).tolist()) for x in (q, k, v)]
        return torch.cat(
            [
                F.scaled_dot_product_attention(
                    *(x.transpose(0, 1) for x in part), is_causal=window_size[1] == 0, enable_gqa=enable_gqa
                ).transpose(0, 1)
                for part in zip(*parts, strict=True)
            ]
        )


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Kernel]]:
    """Makes this CPU a card of the given compute capability."""

    def become(card: Card, *, built: bool = True) -> Kernel:
        kernel = Kernel(card, built)
        monkeypatch.setattr(hardware, "capability", lambda _: card)
        monkeypatch.setattr(attention, "_varlen_attn", lambda: kernel)
        return kernel

    caches = attention._varlen_runs, attention._varlen_takes
    for cached in caches:
        cached.cache_clear()
    yield become
    for cached in caches:
        cached.cache_clear()


def hidden(path: Path, precision: Precision) -> tuple[Tensor, type]:
    """The states of three inputs, and the kind of forward pass that gave them."""
    found = layout.read(path)
    forward = backbone.load(found, precision, CPU)
    rows = [torch.arange(4, 4 + n, dtype=torch.int32).numpy() for n in (7, 7, 3)]
    pack = packing.pack(rows, layout.position_padding(found.config))
    ids, positions, bounds = (torch.from_numpy(x) for x in (pack.ids, pack.positions, pack.bounds))
    with torch.inference_mode():
        return forward(ids, positions, None, Spans.of(pack, bounds)).float(), type(forward)


FAMILIES = {
    "m3": (models.write_m3, backbone.FusedBackbone),
    "bert": (models.write_sentence_bert, backbone.FusedBackbone),
    "mistral": (models.write_sentence_mistral, backbone.PackedBackbone),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [8, 12, 264])
def test_no_card_encodes_one_input_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_card: Callable[..., Kernel], family: str, size: int
) -> None:
    write, expected = FAMILIES[family]
    monkeypatch.setattr(models, "HEADS", 2)
    monkeypatch.setattr(models, "HIDDEN", 2 * size)
    path = write(tmp_path)  # type: ignore[operator]
    on_card(None)  # type: ignore[arg-type]
    truth, _ = hidden(path, "fp32")
    for card in (TURING, HOPPER):
        for precision in ("fp16", "bf16", "fp32"):
            kernel = on_card(card)
            got, kind = hidden(path, precision)  # type: ignore[arg-type]
            chosen = attention.path(card, DTYPES[precision], size)  # type: ignore[index]
            assert kind is expected, (card, precision)
            assert (kernel.calls > 0) == (chosen == "varlen"), (card, precision)
            assert F.cosine_similarity(got, truth).min() > (0.9999 if precision == "fp32" else 0.98)


def test_a_torch_without_the_kernel_goes_by_runs_and_says_so_once(
    m3: Path, on_card: Callable[..., Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    kernel = on_card(HOPPER, built=False)
    _, kind = hidden(m3, "fp16")
    assert kind is backbone.FusedBackbone
    assert kernel.calls == 0
    (said,) = [r.message for r in caplog.records if "variable-length" in r.message]
    assert said == (
        "torch's variable-length attention does not run on cpu (USE_FLASH_ATTENTION was not enabled for "
        "build.), so texts of different lengths are encoded one after the other, which is slower. Install a "
        "torch that is built for this card."
    )


def test_a_card_without_memory_is_not_taken_for_one_without_the_kernel(
    m3: Path, monkeypatch: pytest.MonkeyPatch, on_card: Callable[..., Kernel]
) -> None:
    on_card(HOPPER)

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(attention, "_varlen_attn", lambda: full)
    with pytest.raises((RuntimeError, M3IndexError), match="ALLOC_FAILED"):
        hidden(m3, "fp16")


@pytest.mark.parametrize(
    ("card", "size", "calls"),
    [(VOLTA, 64, 0), (TURING, 64, 0), (HOPPER, 64, 1), (HOPPER, 100, 0), (HOPPER, 264, 0)],
)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_tensors_of_cuda(
    monkeypatch: pytest.MonkeyPatch, card: Card, size: int, calls: int, kv_heads: int
) -> None:
    """Fake ones, which have a device and shapes but no memory. On a T4 the kernel would refuse them."""
    asked: list[Card] = []
    plain = attention.F.scaled_dot_product_attention

    def kernel(q: Tensor, *_: Any, **__: Any) -> Tensor:
        if card < (8, 0):
            raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")
        asked.append(card)
        return torch.empty_like(q)

    def by_runs(q: Tensor, k: Tensor, *rest: Any, **options: Any) -> Tensor:
        assert q.shape[1] == k.shape[1]  # torch's kernels for this share no keys
        return plain(q, k, *rest, **options)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card)
    monkeypatch.setattr(attention, "_varlen_attn", lambda: kernel)
    monkeypatch.setattr(attention, "_varlen_runs", lambda *_: True, raising=False)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", by_runs)
    getattr(hardware, "capability").cache_clear()  # noqa: B009
    try:
        with FakeTensorMode():
            q = torch.empty(12, 4, size, device="cuda", dtype=torch.float16)
            k = torch.empty(12, kv_heads, size, device="cuda", dtype=torch.float16)
            bounds = torch.empty(4, device="cuda", dtype=torch.int32)
            spans = Spans(((0, 2, 5), (10, 1, 2)), bounds, 5)
            assert attention.attend(q, k, k, spans).shape == (12, 4, size)
    finally:
        hardware.capability.cache_clear()
    assert len(asked) == calls


@pytest.mark.parametrize(("card", "kernel_has_gradients"), [(RTX30, False), (HOPPER, True)])
def test_the_kernel_is_asked_only_for_gradients_that_it_has(
    on_card: Callable[..., Kernel], card: Card, kernel_has_gradients: bool
) -> None:
    kernel = on_card(card)
    x = torch.zeros(12, 2, 224, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 5, 10, 12], dtype=torch.int32)
    spans = Spans(((0, 2, 5), (10, 1, 2)), bounds, 5)
    attention.attend(x.clone().requires_grad_(), x, x, spans)
    assert (kernel.calls > 0) == kernel_has_gradients
    attention.attend(x, x, x, spans)
    assert kernel.calls > 0


def test_every_load_keeps_the_sums_of_products_in_fp32(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.device] = []
    monkeypatch.setattr(backbone, "sum_in_fp32", seen.append)
    found = layout.read(m3)
    backbone.load(found, "fp32", CPU)
    assert seen == [CPU]
    backbone.of_model(backbone.load_model(found, "fp32"), CPU)
    assert seen == [CPU, CPU]
