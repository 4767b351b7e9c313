"""The benchmark of a GPU, where there is none: every section at toy size, on a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ["prepare", "environment", "tests", "precision", "faults", "rates", "queries", "pipeline",
            "profile", "distill", "parts", "compiled"]  # fmt: skip
BARE = """
import sys
from importlib.machinery import PathFinder
LACKING = {"pymilvus", "milvus_lite", "tenacity", "scipy", "sentencepiece", "matplotlib", "grpc", "fsspec"}
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else super().find_spec(name, path, target)
sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.timeout(900)
def test_every_section_runs_at_toy_size_on_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE)  # in every process that the benchmark starts, too
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "benchmarks/gpu.py", "--check", "--out", str(tmp_path / "lines")]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text("utf-8").splitlines()]
    assert [line["section"] for line in lines] == SECTIONS
    found = {line["section"]: line for line in lines}
    assert not any("error" in line for line in lines)
    assert found["tests"]["returncode"] == 0, found["tests"]
    assert "torch finds no CUDA device" in "".join(found["tests"]["output"])
    assert found["precision"]["student fp16"]["least cosine to fp32"] > 0.999
    assert found["faults"]["overflow, least cosine to fp32"] > 0.99
    assert found["rates"]["teacher spread budget auto"]["ktokens/s"] > 0
    for workers in ("0", "2"):
        assert found["pipeline"][f"student --workers {workers}"]["passages"] >= 40
    assert found["distill"]["ktokens/s"] > 0


def test_a_section_that_fails_or_ends_leaves_the_others(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.argv = ["gpu.py", "--check", "--only", "environment,queries,parts,profile"]
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import gpu
def fails(bench, note):
    note("half", 1)
    raise RuntimeError("broken")
def ends(bench, note):
    os._exit(9)
def hangs(bench, note):
    note("begun", True)
    while True: pass
found = [gpu.run(name, gpu.Bench(True, gpu.Path("."), None), 0.5) for name in ("parts", "profile", "queries")
         if gpu.SECTIONS.update(parts=(fails, 9), profile=(ends, 9), queries=(hangs, 9)) is None]
print(gpu.json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    failed, ended, hung = json.loads(done.stdout)
    assert failed["half"] == 1
    assert failed["error"] == "RuntimeError: broken"
    assert ended == {"error": "the process ended with 9"}
    assert hung == {"begun": True, "error": "stopped after 0 s"}
