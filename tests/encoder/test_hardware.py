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
