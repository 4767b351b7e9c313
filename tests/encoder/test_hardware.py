from __future__ import annotations

import pytest
import torch

from m3index.encoder import hardware
from m3index.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CONFIG = {"hidden_size": 1024, "intermediate_size": 4096}


def test_the_cpu() -> None:
    assert hardware.devices("cpu") == [CPU]


@pytest.mark.parametrize("name", ["gpu", "cpu,cpu", "cuda:99", "xpu", "", "meta"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        hardware.devices(name)


def test_all_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert hardware.devices("auto") == both
    assert hardware.devices("cuda:0, cuda:1") == both
    assert hardware.devices("cuda") == both[:1]
    with pytest.raises(UsageError, match="2 CUDA devices"):
        hardware.devices("cuda:2")


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_the_precision_is_what_the_cpu_computes_in(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: bf16)
    assert hardware.precision("auto", CPU) == expected
    assert hardware.precision("auto", CUDA) == "fp16"
    assert hardware.precision("fp32", CUDA) == "fp32"
    with pytest.raises(UsageError, match="--precision int4"):
        hardware.precision("int4", CPU)


def test_bf16_is_detected() -> None:
    assert hardware.cpu_computes_bf16() in (True, False)


def test_the_budget_grows_with_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one = hardware.bytes_per_token(CONFIG, "fp16")
    assert one < hardware.bytes_per_token(CONFIG, "fp32")
    budgets = []
    for gigabytes in (0, 1, 4, 500):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, g=gigabytes: (g << 30, g << 30))
        budgets.append(hardware.token_budget("auto", CUDA, one))
    assert budgets == sorted(budgets)
    assert (budgets[0], budgets[-1]) == (1024, 65_536)
    assert hardware.token_budget("300", CPU, one) == hardware.token_budget(300, CPU, one) == 300
    for bad in ("0", "many", -5):
        with pytest.raises(UsageError, match="--batch-tokens"):
            hardware.token_budget(bad, CPU, one)


def test_int8_is_asked_for_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_multiplies_int8", lambda: True)
    assert hardware.precision("int8", CPU, int8=True) == "int8"
    assert hardware.precision("auto", CPU, int8=True) in ("bf16", "fp32")
    with pytest.raises(UsageError, match="for CPUs, and this is cuda:0"):
        hardware.precision("int8", CUDA, int8=True)
    with pytest.raises(UsageError, match="encoding texts only"):
        hardware.precision("int8", CPU)
    assert hardware.bytes_per_token(CONFIG, "int8") == hardware.bytes_per_token(CONFIG, "fp32")


CARDS = {
    "GTX 1080": (6, 1), "V100": (7, 0), "T4, RTX 20": (7, 5), "A100": (8, 0), "A10, RTX 30": (8, 6),
    "L4, RTX 40": (8, 9), "H100": (9, 0), "B200": (10, 0), "RTX 50": (12, 0),
}  # fmt: skip


@pytest.mark.parametrize(("card", "native"), [(card, card >= (8, 0)) for card in CARDS.values()], ids=CARDS)
def test_bf16_is_for_cards_that_multiply_in_it(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], native: bool
) -> None:
    """torch.cuda.is_bf16_supported() is true on all of them: it counts emulation."""
    monkeypatch.setattr(hardware, "capability", lambda _: card)
    assert hardware.computes_bf16(CUDA) is native
    assert hardware.precision("auto", CUDA) == "fp16"
    assert hardware.wider("fp16", CUDA) == ("bf16" if native else "fp32")
    assert hardware.wider("bf16", CUDA) == "fp32"
    assert hardware.wider("fp32", CUDA) is None
    if native:
        assert hardware.precision("bf16", CUDA) == "bf16"
    else:
        with pytest.raises(UsageError, match="bf16 needs a card of compute capability"):
            hardware.precision("bf16", CUDA)


@pytest.mark.parametrize("native", [True, False])
def test_the_wider_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: native)
    assert hardware.wider("fp16", CPU) == ("bf16" if native else "fp32")
    assert hardware.wider("int8", CPU) == "fp32"
    assert hardware.precision("bf16", CPU) == "bf16"  # emulated where it has to be, as asked


def test_partial_sums_of_fp16_products_stay_in_fp32_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    try:
        matmul.allow_fp16_reduced_precision_reduction = True
        hardware.sum_in_fp32(CPU)
        assert matmul.allow_fp16_reduced_precision_reduction
        hardware.sum_in_fp32(CUDA)
        assert not matmul.allow_fp16_reduced_precision_reduction
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before
