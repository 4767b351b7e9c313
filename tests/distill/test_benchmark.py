"""The measurement for a GPU, where there is none: its logic on tiny models, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_training_speed_is_measured_on_a_cpu_too() -> None:
    command = [sys.executable, "benchmarks/distill_speed.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for figure in ("training: ", "share of the bf16 matmul rate", "10 million texts", "times as fast"):
        assert figure in done.stdout
