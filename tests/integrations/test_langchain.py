"""LangChain's own standard tests, and what they do not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core", reason="the extra `langchain` is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

import langchain_tests.integration_tests as standard
import langchain_tests.unit_tests as unit
from integrations.conftest import OWN, check_metadata
from langchain_core.callbacks import BaseCallbackHandler

from m3index import Index, UsageError, connect
from m3index.encoder.model import ModelEncoder
from m3index.integrations.langchain import M3Embeddings, M3Retriever

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Embeddings:
    @pytest.fixture(autouse=True)
    def _model_path(self, m3_path: Path) -> None:
        self.path = str(m3_path)

    @property
    def embeddings_class(self) -> type[M3Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.path}


class TestEmbeddingsUnit(_Embeddings, unit.EmbeddingsUnitTests):
    pass


class TestEmbeddings(_Embeddings, standard.EmbeddingsIntegrationTests):
    pass


class TestRetriever(standard.RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, index: Index) -> None:
        self.index = index

    @property
    def retriever_constructor(self) -> type[M3Retriever]:
        return M3Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return "the sea rises"


def test_documents_carry_their_metadata_and_order(index: Index) -> None:
    expected = index.search("the sea rises", k=4, weights={"dense": 0.8, "sparse": 0.2}).hits
    retriever = M3Retriever(index=index, k=4, weights={"dense": 0.8, "sparse": 0.2})
    found = retriever.invoke("the sea rises")
    assert [d.metadata["m3index_doc_id"] for d in found] == [hit.doc_id for hit in expected]
    assert [d.page_content for d in found] == [hit.text for hit in expected]
    assert found[0].metadata["lang"] == "en"
    assert found[0].id == expected[0].passage_id


def test_metadata_are_the_documents_own(cited: Index) -> None:
    found = M3Retriever(cited).invoke("sea moon")
    check_metadata({d.metadata["m3index_doc_id"]: d.metadata for d in found}, cited)
    assert {d.metadata.get("source") for d in found} == {OWN["source"], None}


def test_filters_in_the_retriever_or_the_call(index: Index) -> None:
    retriever = M3Retriever(index, where=["lang=de"])
    assert {d.metadata["lang"] for d in retriever.invoke("sea")} == {"de"}
    for where in ("lang=en", ["lang=en"], {"lang": "en"}):
        assert {d.metadata["lang"] for d in retriever.invoke("sea", where=where)} == {"en"}
    assert len(retriever.invoke("sea", k=2)) == 2
    assert {d.metadata["lang"] for d in retriever.invoke("sea", where=None, k=20)} == {"de"}  # left out


async def test_without_blocking(index: Index) -> None:
    found = await M3Retriever(index, k=4).ainvoke("sea", where={"lang": "de"})
    assert [d.metadata["lang"] for d in found] == ["de"] * 4


def test_what_is_wrong_is_said_when_it_is_made_or_asked(index: Index) -> None:
    with pytest.raises(UsageError, match=r"k takes a whole number from 1 to 16,384, not 0\."):
        M3Retriever(index, k=0)
    with pytest.raises(TypeError, match="has no option 'top_k'"):
        M3Retriever(index, top_k=3)
    for said in ({"wheer": "lang=de"}, {"expr": 'lang == "de"'}, {"limit": 3}, {"search_kwargs": {"k": 3}}):
        with pytest.raises(UsageError, match=f"There is no option '{min(said)}'. The options are .*where"):
            M3Retriever(index).invoke("sea", **said)
    with pytest.raises(UsageError, match="filter takes"):
        M3Retriever(index).invoke("sea", filter={"lang": "de"})


async def test_what_langchain_passes_itself(index: Index) -> None:
    seen: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_retriever_start(self, *_: Any, **__: Any) -> None:
            seen.append("start")

    retriever = M3Retriever(index, k=2)
    config = {"callbacks": [Listener()], "tags": ["t"], "metadata": {"m": 1}, "run_name": "n"}
    assert len(retriever.invoke("sea", config, verbose=True, run_id=uuid4())) == 2
    assert len(await retriever.ainvoke("sea", config, verbose=True)) == 2
    assert [len(found) for found in retriever.batch(["sea", "Meer"], config)] == [2, 2]
    assert len(retriever.bind(k=3).invoke("sea")) == 3
    assert len((retriever | len).invoke("sea").__str__()) == 1
    assert seen == ["start"] * 4


def test_an_index_behind_a_server_is_a_retriever_too() -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from serving import build, serving

    with serving(build()) as server:
        found = M3Retriever(connect(server.url), k=3).invoke("tides of the sea", where={"lang": "en"})
        expected = server.client().search("tides of the sea", k=3, where={"lang": "en"})
    assert [d.id for d in found] == [hit.passage_id for hit in expected]


def test_sparse_embedding_is_the_lexical_head(model: ModelEncoder) -> None:
    pytest.importorskip("langchain_milvus", reason="the extra `langchain` is not installed")
    from m3index.integrations.langchain_milvus import M3SparseEmbedding

    embedding = M3SparseEmbedding(model)
    one, two = embedding.embed_documents(["the sea", "tides"])
    lexical = model.encode_documents(["the sea", "tides"], lexical=True).lexical
    assert lexical is not None
    assert one == lexical.row(0).to_dict() == embedding.embed_query("the sea")
    assert two == lexical.row(1).to_dict()
    assert all(isinstance(k, int) and isinstance(v, float) for k, v in one.items())
