"""What the store would refuse is rejected before it is encoded, on every night, and `verify` ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import SETTINGS, VERIFY, ListCorpus, doc, run

from m3index import schema
from m3index.corpus.mapping import FieldMapping, RowError
from m3index.index.verify import verify
from m3index.store.memory import BM25_LIMIT, MemoryStore
from m3index.types import Document

DEEP: dict[str, Any] = {}
for _ in range(120):
    DEEP = {"a": DEEP}

UNFIT: Mapping[str, Document] = {
    "a long id": doc("x" * 70_000),
    "a long title": doc("a", "b", "t" * 70_000),
    "half a character in the text": doc("a", "b \ud800"),
    "half a character in the title": doc("a", "b", "\udfff"),
    "half a character in the metadata": doc("a", m=["\ud800"]),
    "much metadata": doc("a", m="x" * 70_000),
    "a number beyond 64 bits": doc("a", m=2**63),
    "NaN": doc("a", m={"n": [math.nan]}),
    "bytes": doc("a", m=b"x"),
    "a set": doc("a", m={1, 2}),
    "a key that is no text": Document("a", "text", metadata={"m": {1: 2}}),
    "deep metadata": Document("a", "text", metadata=DEEP),
    "a field of another type": doc("a", year="x"),
    "too many list items": doc("a", tags=["t"] * 5_000),
}
TYPED = replace(SETTINGS, fields={"year": "int", "tags": "str[]"}, sparse="bm25", passage_tokens=None)


@pytest.mark.parametrize("document", UNFIT.values(), ids=UNFIT)
def test_what_the_store_refuses_is_never_encoded(document: Document) -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    good = [doc("good", 3), doc("fine", 3)]
    run(store, good, encoder, settings=TYPED)
    for _ in range(2):
        summary = run(store, [*good, document], encoder, settings=TYPED)
        assert (summary.exit, summary.quarantined, summary.unchanged, summary.tokens) == (3, 1, 2, 0)
    verified = verify(store, encoder, "docs", ListCorpus([*good, document]), VERIFY)
    assert (verified.exit, verified.differing) == (3, 0)


def test_new_metadata_that_do_not_fit_leave_the_document_as_it_was() -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    run(store, [doc("a", 30, tag=1), doc("b", 3)], encoder)
    summary = run(store, [doc("a", 30, tag="x" * 70_000), doc("b", 3)], encoder)
    assert (summary.exit, summary.quarantined, summary.count_ok) == (3, 1, True)
    stored = next(iter(store.get("docs__g1", [r["passage_id"] for r in store.scan("docs__g1", None, [])],
                                 ["metadata"]).values()))  # fmt: skip
    assert stored["metadata"] in ({"tag": 1}, {})


def test_text_that_grows_too_long_for_bm25(monkeypatch: pytest.MonkeyPatch) -> None:
    store, encoder = MemoryStore(), FakeEncoder()
    monkeypatch.setattr("m3index.store.memory.BM25_LIMIT", 100)
    assert BM25_LIMIT > 100
    summary = run(store, [doc("short", 3), doc("long", "\u0e2a" * 60)], encoder, settings=TYPED)
    assert (summary.exit, summary.added, summary.quarantined) == (3, 1, 1)


def test_the_reader_and_the_store_have_the_same_bounds_of_metadata() -> None:
    """One function decides for both (schema.metadata_json)."""
    for document in UNFIT.values():
        try:
            schema.metadata_json(document.metadata)
            fits = True
        except ValueError:
            fits = False
        row = {"id": "a", "text": "b", "metadata": dict(document.metadata)}
        try:
            FieldMapping().document(row)
            read = True
        except RowError:
            read = False
        assert read == fits


def test_the_reason_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"'a.b\[1\]' holds NaN or an infinite number"):
        schema.metadata_json({"a": {"b": [1, math.nan]}})
