from __future__ import annotations

import pytest

pytest.importorskip("haystack", reason="the extra `haystack` is not installed")

import haystack

from m3index.api import Index
from m3index.integrations.haystack import M3Retriever


def test_documents_in_a_pipeline(index: Index) -> None:
    retriever = M3Retriever(top_k=3)
    retriever._index = index  # opened by the test: a memory store cannot be opened twice
    pipeline = haystack.Pipeline()
    pipeline.add_component("retriever", retriever)
    found = pipeline.run({"retriever": {"query": "the sea rises"}})["retriever"]["documents"]
    expected = index.search("the sea rises", k=3).hits
    assert [d.id for d in found] == [hit.passage_id for hit in expected]
    assert [d.score for d in found] == [hit.score for hit in expected]
    german = retriever.run("sea", top_k=2, where=["lang=de"])["documents"]
    assert [d.meta["lang"] for d in german] == ["de", "de"]


def test_a_pipeline_can_be_written_down_and_read_again() -> None:
    pipeline = haystack.Pipeline()
    made = M3Retriever("notes", uri="notes.db", encoder="offline", top_k=7, where=["lang=en"])
    pipeline.add_component("retriever", made)
    trusted = ["m3index.integrations.*"]
    again = haystack.Pipeline.from_dict(pipeline.to_dict(), allowed_modules=trusted).get_component(
        "retriever"
    )
    assert (again.collection, again.uri, again.encoder, again.top_k, again.where) == (
        "notes", "notes.db", "offline", 7, ["lang=en"],
    )  # fmt: skip
