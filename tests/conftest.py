"""For every test: an environment without the user's settings. For tests of the command line: a way to
run it in this process or in one of its own, and tiny random models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from terminal import KEPT, ROWS, Command, Done, process_environment, write_jsonl

_tests = count(1)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.startswith("M3INDEX_") and name not in KEPT:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_tests)}"))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A real S3 server on this machine, moto's: its address, with the credentials in the environment."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    boto3 = pytest.importorskip("boto3", reason="needs boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": address,
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address)
        client.create_bucket(Bucket="corpus")
        client.close()
        yield "s3://corpus"
    server.stop()


@pytest.fixture
def m3index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `m3index ARGUMENTS` in this process, in an empty folder, 80 columns wide."""
    from typer.testing import CliRunner

    from m3index.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object, stdin: str | bytes | None = None, **environment: str) -> Done:
        words = [str(a) for a in arguments]
        done = CliRunner().invoke(app, words, input=stdin, env=environment, prog_name="m3index")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def m3index_process(tmp_path: Path) -> Command:
    """Runs `python -m m3index ARGUMENTS` in a process of its own, in an empty folder."""

    def run(*arguments: object, stdin: str | None = None, **environment: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "m3index", *map(str, arguments)],
            input=stdin if stdin is not None else "",
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=process_environment(COLUMNS="80", **environment),
            timeout=200,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def m3_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random XLM-R with both heads of BGE-M3."""
    from models import write_m3

    return write_m3(tmp_path_factory.mktemp("models") / "m3")


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random XLM-R without heads, in sentence-transformers' layout."""
    from models import write_sentence_xlmr

    return write_sentence_xlmr(tmp_path_factory.mktemp("models") / "dense", seed=7)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """corpus.jsonl in the folder that the commands run in: seven short documents, lang and year."""
    return write_jsonl(tmp_path / "corpus.jsonl", ROWS)
