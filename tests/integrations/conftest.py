"""Indexes in memory, and a tiny model with all three heads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


OWN = {"source": "https://example.com/a.html", "score": 0.9, "doc_id": "x", "ordinal": "first", "passage": 3}
"""Metadata of a document under the names that m3index uses itself."""


@pytest.fixture(scope="session")
def cited() -> Iterator[Index]:
    """Two documents with such names; the metadata of one has a title of its own."""
    with Index("cited", uri="memory:", encoder=FakeEncoder()) as index:
        index.ingest(
            [
                Document("a", "the sea rises with the moon", "Tides", {**OWN, "title": "own title"}),
                Document("b", "the sea falls with the moon", "Ebb", OWN),
                Document("c", "the sea rests", "", {}),
            ],
            source="notes",
        )
        yield index


def check_metadata(of: Mapping[str, Mapping[str, Any]], index: Index) -> None:
    """of: the metadata that a retriever returned for each document of `cited`."""
    scores = {hit.doc_id: (hit.score, hit.ordinal) for hit in index.search("sea moon")}
    for id_, title, own in (
        ("a", "Tides", {**OWN, "title": "own title"}),
        ("b", "Ebb", {**OWN, "title": "Ebb"}),
        ("c", "", {}),
    ):
        score, ordinal = scores[id_]
        assert of[id_] == {
            **own,
            "m3index_doc_id": id_,
            "m3index_source": "notes",
            "m3index_ordinal": ordinal,
            "m3index_title": title,
            "m3index_score": score,
        }


@pytest.fixture(scope="session")
def index() -> Iterator[Index]:
    with Index("notes", uri="memory:", encoder=FakeEncoder()) as index:
        index.ingest(DOCUMENTS, fields={"lang": str})
        yield index
