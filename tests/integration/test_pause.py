"""A run is stopped past its lease, another host completes a run, and the first goes on. Real processes, real
SIGSTOP, one lock folder for each "host"."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import FakeEncoder
from index.support import SETTINGS, ListCorpus, rows
from integration.engines import Engine
from integration.paused_child import LEASE, documents

from m3index.errors import Exit
from m3index.index.sync import sync
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CHILD = Path(__file__).with_name("paused_child.py")


def corpus(path: Path, name: str, count: int) -> Path:
    """Documents of three passages. The texts of two corpora differ, their ids do not."""
    lines = [
        {"id": f"d{i}", "text": " ".join(f"{name}{i}w{word}" for word in range(20))} for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Host:
    """A machine: its own folder of locks."""

    def __init__(self, engine: Engine, collection: str, folder: Path) -> None:
        folder.mkdir()
        self._environment = os.environ | {
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join((str(CHILD.parents[1]), str(CHILD.parents[2]))),
        }
        self._address = [engine.uri, collection]

    def start(self, command: str, corpus: Path, call: str = "none") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(CHILD), *self._address, command, str(corpus), call],
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run(self, command: str, corpus: Path) -> None:
        process = self.start(command, corpus)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it ended instead of stopping: {status}"


@pytest.mark.parametrize(
    ("command", "call"),
    [("sync", "upsert"), ("sync", "delete"), ("sync", "set_properties"), ("reindex", "point")],
)
def test_a_run_that_slept_past_its_lease_changes_nothing(
    command: str, call: str, engine: Engine, janitor: list[str], tmp_path: Path
) -> None:
    collection = f"it_pause_{os.getpid()}_{command}_{call}"
    janitor.append(collection)
    sleeper, other = (Host(engine, collection, tmp_path / name) for name in ("a", "b"))
    before = corpus(tmp_path / "before.jsonl", "before", 12)
    sleeping = corpus(tmp_path / "sleeping.jsonl", "sleeping", 6)
    latest = corpus(tmp_path / "latest.jsonl", "latest", 12)
    other.run("sync", before)
    if call == "delete":  # its corpus differs by what it deletes only
        sleeping.write_text("".join(before.read_text().splitlines(keepends=True)[:6]))
    process = sleeper.start(command, sleeping, call)
    try:
        wait_until_stopped(process)
        time.sleep(LEASE + 0.5)
        other.run("sync", latest)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == Exit.LOCKED, errors
    assert "Another run has taken the lease" in errors
    expected = MemoryStore()
    sync(expected, FakeEncoder(), "docs", ListCorpus(documents(str(latest))), SETTINGS)
    store = open_store(Connection(uri=engine.uri, token=engine.token))
    try:
        assert rows(store, collection) == rows(expected)
    finally:
        store.close()
