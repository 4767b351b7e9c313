"""Whether CUDA may be here, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from m3index.encoder import drivers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], False),
        (["null", "nvme0n1", "nvram"], False),
        (["nvidiactl", "nvidia0"], True),
        (["nvhost-ctrl-gpu"], True),
        (["nvmap"], True),
        (["dxg"], True),
        (["kfd"], True),
    ],
)
def test_devices_of_linux(
    names: list[str], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(drivers, "Path", lambda _: tmp_path)
    assert drivers.may_have_cuda() == expected


@pytest.mark.parametrize(("platform", "expected"), [("darwin", False), ("win32", True)])
def test_other_platforms(platform: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert drivers.may_have_cuda() == expected


@pytest.mark.skipif(drivers.may_have_cuda(), reason="this machine may have a CUDA device")
def test_to_ask_for_workers_imports_no_torch(m3: Path) -> None:
    """A night without changes asks, and encodes nothing."""
    program = (
        "import sys; from m3index.encoder.load import load; "
        f"print(load({str(m3)!r}).workers, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"
