from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("llama_index.core", reason="the extra `llamaindex` is not installed")

from integrations.conftest import check_metadata
from llama_index.core.schema import MetadataMode

from m3index import Index, UsageError
from m3index.integrations.llamaindex import M3Retriever


def test_nodes_are_the_hits(index: Index) -> None:
    expected = index.search("the sea rises", k=3).hits
    nodes = M3Retriever(index, k=3).retrieve("the sea rises")
    assert [node.node.id_ for node in nodes] == [hit.passage_id for hit in expected]
    assert [node.score for node in nodes] == [hit.score for hit in expected]
    assert nodes[0].node.text == expected[0].text
    assert nodes[0].node.metadata["m3index_doc_id"] == expected[0].doc_id


def test_metadata_are_the_documents_own(cited: Index) -> None:
    nodes = [found.node for found in M3Retriever(cited).retrieve("sea moon")]
    check_metadata({n.metadata["m3index_doc_id"]: n.metadata for n in nodes}, cited)
    for node in nodes:
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            prompt = node.get_content(mode)
            assert "m3index_" not in prompt
            assert ("source: https://example.com" in prompt) is ("source" in node.metadata)


def test_filters_and_mode(index: Index) -> None:
    retriever = M3Retriever(index=index, k=5, mode="sparse", where={"lang": "de"})
    nodes = asyncio.run(retriever.aretrieve("Ebbe"))
    assert {node.node.metadata["lang"] for node in nodes} == {"de"}


def test_what_is_wrong_is_said_when_it_is_made(index: Index) -> None:
    with pytest.raises(UsageError, match=r"k takes a whole number from 1 to 16,384, not 0\."):
        M3Retriever(index, k=0)
    with pytest.raises(TypeError, match="has no option 'top_k'"):
        M3Retriever(index, top_k=3)
