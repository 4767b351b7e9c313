"""Whether this machine may have a CUDA device, without importing torch to ask it."""

from __future__ import annotations

import sys
from pathlib import Path

_DEVICES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""Of NVIDIA's drivers, on Tegra too, of Windows below WSL, and of AMD's, which torch calls CUDA."""


def may_have_cuda() -> bool:
    """False only where surely no driver is loaded."""
    if sys.platform == "darwin":
        return False
    return sys.platform != "linux" or any(any(Path("/dev").glob(name)) for name in _DEVICES)
