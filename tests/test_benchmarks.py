"""The benchmarks that need no collection still run, at the smallest size (`make test-slow`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
SMALLEST = {
    "distill_speed.py": "--check",
    "encode.py": "--layers 1 --texts 4 --rounds 1 --lengths 16 --int8",
    "host.py": "--passages 32 --workers 0 1 --devices student --rounds 1",
    "scale.py": "--passages 200 --load 50 --workers 1",
    "search.py": "--rows 200 --rounds 3",
    "serve.py": "--seconds 1 --rounds 1 --clients 1",
    "sync.py": "--sizes 200",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs(name: str) -> None:
    command = [sys.executable, f"benchmarks/{name}", *SMALLEST[name].split()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.strip()
