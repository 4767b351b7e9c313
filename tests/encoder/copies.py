"""What an encoder copies to a device and back, in order."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def record_copies(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[object]:
    """ "in" for each copy to the device, the number of tensors for each copy back, and "awaited" once that is
    waited for. module: the one that calls `encoder.transfer`."""
    seen: list[object] = []
    plain_in, plain_out = module.to_device, module.to_host

    def to_device(*args: Any) -> Any:
        seen.append("in")
        return plain_in(*args)

    def to_host(tensors: Any) -> Any:
        seen.append(len(tensors))
        hosts, ready = plain_out(tensors)

        def awaited() -> None:
            seen.append("awaited")
            ready()

        return hosts, awaited

    monkeypatch.setattr(module, "to_device", to_device)
    monkeypatch.setattr(module, "to_host", to_host)
    return seen
