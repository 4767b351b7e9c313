"""Several processes, started by torchrun, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from distill.conftest import distill
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import sys
from pathlib import Path
from distill.conftest import distill
teacher, corpus, out = map(Path, sys.argv[1:])
distill(teacher, corpus, out, steps=6, learning_rate=1e-3)
"""


@pytest.mark.slow
def test_two_processes_are_one_that_accumulates_two_batches(
    teacher: Path, small: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM, "utf-8")
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    subprocess.run(
        [*command, program, teacher, small, tmp_path / "two"],
        env=environment,
        check=True,
        capture_output=True,
    )
    one = distill(teacher, small, tmp_path / "one", steps=6, learning_rate=1e-3, accumulate=2)
    a, b = (load_file(str(path / "model.safetensors")) for path in (one.out, tmp_path / "two"))
    assert a.keys() == b.keys()
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 2e-4
    assert not (tmp_path / "two.work").exists()
