"""Indexes in memory, and a tiny model with all three heads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import models
import pytest
from fakes import FakeEncoder

from m3index import Document, Index
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

DOCUMENTS = [
    Document(f"{lang}-{n}", f"{subject} {n}", f"Note {n}", {"lang": lang})
    for lang, subject in (("en", "the sea rises and falls"), ("de", "Ebbe und Flut am Meer"))
    for n in range(10)
]


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: langchain-tests puts it on tests that are not used here")


@pytest.fixture(scope="session")
def m3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="session")
def model(m3_path: Path) -> Iterator[ModelEncoder]:
    model = load(str(m3_path), device="cpu", precision="fp32")
    yield model
    model.close()


@pytest.fixture(scope="session")
def index() -> Iterator[Index]:
    with Index("notes", uri="memory:", encoder=FakeEncoder()) as index:
        index.ingest(DOCUMENTS, fields={"lang": str})
        yield index
