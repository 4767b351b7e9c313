"""Kills a real process on a real store at random moments, then does one clean run."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from index.ingest_child import SETTINGS
from index.support import FastEncoder, check_invariant, rows
from servers import lite_server

from m3index.corpus.readers import read
from m3index.index.lock import SETTLE_SECONDS
from m3index.index.sync import sync
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection

CORPUS = Path(os.environ.get("M3INDEX_DATA", Path(__file__).parents[2] / "../shared/data")) / "history_tldr"
CHILD = Path(__file__).with_name("ingest_child.py")
IN_FLIGHT = 3
"""The number of batches that can be encoded but not written: one in the encoder, one queued, one in the
writer."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(params=["lite", "lite-server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if not CORPUS.is_dir():
        pytest.skip(f"no {CORPUS} (set M3INDEX_DATA)")
    if request.param == "lite":
        yield str(tmp_path / "killed.db")
    else:
        with lite_server(tmp_path / "data") as address:
            yield address


def start(uri: str, log: Path, corpus: Path = CORPUS / "v1.jsonl.gz") -> subprocess.Popen[bytes]:
    command = [sys.executable, str(CHILD), uri, str(corpus), str(log)]
    paths = os.pathsep.join((str(CHILD.parents[1]), str(CHILD.parents[2])))
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths})


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def stored(uri: str) -> Any:
    """The rows, of which no document is half written."""
    store = open_store(Connection(uri=uri))
    try:
        now = rows(store)
    finally:
        store.close()
    check_invariant(now)
    return now


def encoded(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def test_fifty_kills_and_one_clean_run_equal_a_rebuild(uri: str, tmp_path: Path) -> None:
    rebuilt = MemoryStore()
    whole = sync(rebuilt, FastEncoder(), "docs", read([CORPUS / "v1.jsonl.gz"]), SETTINGS)
    chance = random.Random(7)
    lease = 0.0 if uri.endswith(".db") else SETTLE_SECONDS
    again = total = killed_at_work = 0
    for kill in range(50):
        log = tmp_path / f"{kill}.log"
        process = start(uri, log)
        while not encoded(log) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(lease + chance.uniform(-0.5 if lease else 0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), errors.decode()
        batches = encoded(log)
        total += sum(batches)
        if process.returncode:
            killed_at_work += len(batches) > 1
            again += sum(batches[-IN_FLIGHT:])
    assert killed_at_work >= 10
    log = tmp_path / "clean.log"
    finish(start(uri, log))
    total += sum(encoded(log))
    print(f"{killed_at_work} kills at work; {total} passages encoded for {whole.passages} rows")
    assert total <= whole.passages + again, "only documents in flight are encoded twice"
    now = stored(uri)
    assert now == rows(rebuilt)


def test_kills_during_a_change_of_metadata(uri: str, tmp_path: Path) -> None:
    with gzip.open(CORPUS / "v1.jsonl.gz") as file:
        corpus = [json.loads(line) for line in islice(file, 2_000)]
    for night in ("x", "y"):
        lines = [json.dumps({**row, "metadata": {"night": night}}) for row in corpus]
        (tmp_path / f"{night}.jsonl").write_text("\n".join(lines))
    first, last = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    rebuilt = MemoryStore()
    whole = sync(rebuilt, FastEncoder(), "docs", read([last]), SETTINGS)
    chance = random.Random(7)
    lease = 0.0 if uri.endswith(".db") else SETTLE_SECONDS
    killed = 0
    for kill in range(6):
        log = tmp_path / f"{kill}.log"
        finish(start(uri, tmp_path / "first.log", first))
        process = start(uri, log, last)
        while not encoded(log) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(lease + chance.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3
    kept = tmp_path / "clean.log"
    finish(start(uri, kept, last))
    assert sum(encoded(kept)) == 0, "vectors are never lost"
    now = stored(uri)
    assert len(now) == whole.passages
    assert now == rows(rebuilt)
