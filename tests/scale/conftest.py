"""Corpora, encoders and object stores for the tests of scale/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from scale_support import document

from m3index.corpus.readers import Corpus, read
from m3index.files import Folder


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Corpus]:
    """Writes rows (or whole lines) of JSON into a file and reads it; 60 documents unless told."""

    def make(rows: list[Any] | None = None, name: str = "corpus.jsonl") -> Corpus:
        path = tmp_path / name
        wanted = [document(n) for n in range(60)] if rows is None else rows
        lines = [row if isinstance(row, str) else json.dumps(row) for row in wanted]
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return read([path])

    return make


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "shards")


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
