"""Corpora, encoders and object stores for the tests of scale/."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from scale_support import document

from m3index.corpus.readers import FileCorpus, read
from m3index.files import Folder


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., FileCorpus]:
    """Writes rows (or whole lines) of JSON into a file and reads it; 60 documents unless told."""

    def make(rows: list[Any] | None = None, name: str = "corpus.jsonl") -> FileCorpus:
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
