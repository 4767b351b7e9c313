"""`m3index serve` as a real process: it starts, answers, and stops when it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import COLLECTION, make_database

from m3index.errors import UnreachableError
from m3index.serve.client import RemoteIndex

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_database(tmp_path_factory.mktemp("serve"))


def command(database: str, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "m3index",
        "serve",
        "--uri",
        database,
        "-c",
        COLLECTION,
        "--port",
        "0",
        *more,
    ]


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process, and what it has said up to its URL."""
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        said: list[str] = []
        try:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line.strip())
                if "http://" in line:
                    break
            yield process, said
        finally:
            process.kill()


def url_in(said: list[str]) -> str:
    return next(word for word in said[-1].split() if word.startswith("http://"))


def when_ready(client: RemoteIndex) -> RemoteIndex:
    deadline = time.monotonic() + 120
    while True:
        try:
            client.info()
            return client
        except UnreachableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_it_answers_and_stops_when_told_and_the_file_is_free_again(database: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with started(command(database)) as (process, said):
            client = when_ready(RemoteIndex(url_in(said)))
            assert client.search("why does the sea rise and fall", k=1).hits[0].doc_id == "tides"
            process.send_signal(number)
            out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        assert out == ""
        assert "Traceback" not in error


def test_beyond_this_machine_it_makes_a_token_and_prints_it_once(database: str) -> None:
    with started(command(database, "--host", "0.0.0.0")) as (process, said):
        token = next(line.removeprefix("token: ") for line in said if line.startswith("token: "))
        url = url_in(said).replace("0.0.0.0", "127.0.0.1")
        assert when_ready(RemoteIndex(url, token)).search("bread").hits
        process.terminate()
        _, error = process.communicate(timeout=60)
    assert token not in error


def test_a_token_from_the_environment_is_never_printed(database: str) -> None:
    secret = "a-secret-of-the-environment"
    with started(command(database), M3INDEX_SERVE_TOKEN=secret) as (process, said):
        assert when_ready(RemoteIndex(url_in(said), secret)).info()["collection"] == COLLECTION
        process.terminate()
        out, error = process.communicate(timeout=60)
    assert secret not in out + error + "".join(said)


def refused(arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


def test_what_cannot_be_served_is_said_at_once(database: str, tmp_path: Path) -> None:
    code, error = refused(command(database, "-c", "nothing"))
    assert (code, "nothing" in error) == (10, True)
    code, error = refused(command(database, "-e", str(tmp_path)))
    assert code in (10, 13), error
    assert "Traceback" not in error
    (tmp_path / "synonyms.txt").write_text("one\n", encoding="utf-8")
    code, error = refused(command(database, "--synonyms", str(tmp_path / "synonyms.txt")))
    assert code == 2
    assert "synonyms.txt, line 1: it has a single term." in error
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, error = refused([*command(database), "--port", port])
    assert code == 2
    assert f"Port {port}" in error


def test_a_sync_runs_beside_a_server_of_the_same_file(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": f"new{i}", "text": f"The lighthouse keeper counts ship number {i}."} for i in range(300)]
    with corpus.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    nightly = [sys.executable, "-m", "m3index", "sync", str(corpus), "--uri", database, "-c", COLLECTION]
    with started(command(database)) as (process, said):
        client = when_ready(RemoteIndex(url_in(said)))
        searches = 0
        with subprocess.Popen(nightly, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while run.poll() is None:
                assert client.search("why does the sea rise and fall", k=1).hits[0].doc_id == "tides"
                searches += 1
        assert run.returncode == 0
        assert searches > 3
        assert client.status().documents == 303
        assert client.search("lighthouse", k=1).hits[0].doc_id.startswith("new")
        process.terminate()
        process.communicate(timeout=60)
