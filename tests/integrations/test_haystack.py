from __future__ import annotations

import pytest

pytest.importorskip("haystack", reason="the extra `haystack` is not installed")

import haystack
from integrations.conftest import check_metadata

from m3index import Index, UsageError
from m3index.integrations.haystack import M3Retriever


def test_documents_in_a_pipeline(index: Index) -> None:
    retriever = M3Retriever(search={"k": 3})
    retriever._index = index  # opened by the test: a memory store cannot be opened twice
    pipeline = haystack.Pipeline()
    pipeline.add_component("retriever", retriever)
    found = pipeline.run({"retriever": {"query": "the sea rises"}})["retriever"]["documents"]
    expected = index.search("the sea rises", k=3).hits
    assert [d.id for d in found] == [hit.passage_id for hit in expected]
    assert [d.score for d in found] == [hit.score for hit in expected]
    for where in ("lang=de", ["lang=de"], {"lang": "de"}):
        german = retriever.run("sea", search={"k": 2, "where": where})["documents"]
        assert [d.meta["lang"] for d in german] == ["de", "de"]
    again = retriever.run("the sea rises")["documents"]  # those of one run stay there
    assert [d.id for d in again] == [hit.passage_id for hit in expected]


def test_meta_are_the_documents_own(cited: Index) -> None:
    retriever = M3Retriever()
    retriever._index = cited
    found = retriever.run("sea moon")["documents"]
    check_metadata({d.meta["m3index_doc_id"]: d.meta for d in found}, cited)


def test_none_is_an_option_left_out(index: Index) -> None:
    retriever = M3Retriever(uri=None, encoder=None, search={"k": 2, "where": "lang=de", "mode": None})
    retriever._index = index
    found = retriever.run("sea", search={"k": None, "where": None})["documents"]
    assert [d.meta["lang"] for d in found] == ["de", "de"]


def test_what_is_wrong_is_said_when_it_is_made_or_run(index: Index) -> None:
    with pytest.raises(UsageError, match=r"k takes a whole number from 1 to 16,384, not 0\."):
        M3Retriever(search={"k": 0})
    with pytest.raises(UsageError, match="There is no option 'top_k'"):
        M3Retriever(search={"top_k": 3})
    retriever = M3Retriever()
    retriever._index = index
    with pytest.raises(UsageError, match="There is no option 'wheer'"):
        retriever.run("sea", search={"wheer": "lang=de"})


def test_a_pipeline_can_be_written_down_and_read_again() -> None:
    search = {"k": 7, "where": {"lang": ["en", "de"]}, "weights": {"dense": 0.7, "sparse": 0.3}}
    pipeline = haystack.Pipeline()
    made = M3Retriever("notes", uri="notes.db", encoder="offline", search=search)
    pipeline.add_component("retriever", made)
    trusted = ["m3index.integrations.*"]
    again = haystack.Pipeline.from_dict(pipeline.to_dict(), allowed_modules=trusted).get_component(
        "retriever"
    )
    assert (again.collection, again.uri, again.encoder) == ("notes", "notes.db", "offline")
    assert again.search == search
