"""Several processes use one local database: the first hosts the engine, and a guest takes over from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import FakeEncoder
from terminal import process_environment

from m3index import Document, Index
from m3index.errors import LockedError
from m3index.store.lite_engine import HOST_FILE, SharedEngine
from m3index.store.open import open_store
from m3index.store.options import Connection

HOST = """
import sys
from m3index.store.open import open_store
from m3index.store.options import Connection
store = open_store(Connection(uri=sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
store.close()
"""

FOREIGN = """
import sys
from milvus_lite.db import MilvusLite
database = MilvusLite(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(program: str, database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the database open until its standard input is closed."""
    command = [sys.executable, "-c", program, str(database)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=process_environment()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        try:
            yield child
        finally:
            child.kill()


def end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    child.wait(30)


def documents(count: int) -> list[Document]:
    return [Document(f"d{i}", f"word{i} sea ship") for i in range(count)]


def index(path: Path) -> Index:
    return Index(uri=str(path), encoder=FakeEncoder())


def test_a_guest_reads_and_writes_what_the_host_has(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with index(path) as host:
        host.ingest(documents(20))
        with process(HOST, path):  # a guest: it opens the database while this process hosts it
            host.ingest(documents(30))
        assert host.status().documents == 30
    with process(HOST, path), index(path) as guest:
        assert guest.ingest(documents(40)).added == 10
        assert len(guest.search("sea", k=40)) == 40
    with index(path) as later:
        assert later.status().documents == 40


@pytest.mark.parametrize("leave", [end, lambda child: child.send_signal(signal.SIGKILL)], ids=["end", "kill"])
def test_a_guest_takes_over_in_the_middle_of_a_run(
    tmp_path: Path, leave: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    path = tmp_path / "x.db"
    with process(HOST, path) as host, index(path) as guest:
        corpus = documents(3_000)

        def items() -> Iterator[Document]:
            for number, document in enumerate(corpus):
                if number == 1_500:
                    leave(host)
                yield document

        summary = guest.ingest(items())
        assert (summary.exit, summary.added, summary.count_ok) == (0, 3_000, True)
        assert guest.sync(corpus).unchanged == 3_000
        with process(HOST, path):  # and it has guests itself
            assert len(guest.search("sea", k=10)) == 10


def test_two_guests_agree_who_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with process(HOST, path) as host:
        first, second = SharedEngine(path), SharedEngine(path)
        try:
            assert not first.is_host
            assert not second.is_host
            end(host)
            limit = time.monotonic() + 20
            while not (first.is_host or second.is_host) and time.monotonic() < limit:
                time.sleep(0.05)
            time.sleep(0.5)
            assert first.is_host != second.is_host
            assert first.address == second.address
        finally:
            first.close()
            second.close()


def test_the_port_of_a_crashed_host_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with process(HOST, path) as host:
        port = (path / HOST_FILE).read_text()
        os.kill(host.pid, signal.SIGKILL)
        host.wait(30)
    assert (path / HOST_FILE).read_text() == port
    engine = SharedEngine(path)
    assert engine.is_host
    engine.close()


def test_another_program_does_not_share_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3index.store.lite_engine._WAIT_SECONDS", 0.3)
    path = tmp_path / "x.db"
    index(path).close()
    with process(FOREIGN, path) as foreign, pytest.raises(LockedError, match="does not share it") as error:
        open_store(Connection(uri=str(path)))
    assert f"process {foreign.pid}" in str(error.value)
