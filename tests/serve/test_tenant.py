"""A server for one tenant: whatever a client asks, over HTTP or as an assistant, it sees that part alone."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from serving import Server, build, serving

from m3index.errors import NotFoundError, UsageError
from m3index.search.stages import Stage
from m3index.serve.served import ServedIndex

GERMANS = {f"de-{n}" for n in range(12)}


@pytest.fixture(scope="module", params=["memory", "lite"])
def german(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file: Path = tmp_path_factory.mktemp("tenant") / "notes.db"
    uri = "memory:" if request.param == "memory" else str(file)
    with serving(build(tenant_field="lang", uri=uri), tenant="de") as running:
        yield running


def get(server: Server, path: str, **words: Any) -> Any:
    url = f"{server.url}{path}?{urllib.parse.urlencode(words)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    "words",
    [
        {"query": "tides and moons of the sea"},
        {"query": "sea", "mode": "dense", "depth": 200},
        {"query": "sea", "mode": "sparse", "tenant": "de"},
        {"query": "sea", "passages": True},
        {"query": "sea", "group_by": "lang"},
        {"query": "sea", "where": ["lang in en,de,fr"]},
        {"similar": "de-3"},
    ],
)
def test_every_hit_and_every_leg_is_the_tenants(german: Server, words: dict[str, Any]) -> None:
    request = urllib.request.Request(
        german.url + "/search",
        json.dumps({**words, "k": 50, "pool": 500}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        found = json.load(answer)
    assert found["hits"]
    assert {hit["doc_id"] for hit in found["hits"]} <= GERMANS
    assert {hit["metadata"]["lang"] for hit in found["hits"]} == {"de"}
    assert {card["metadata"]["lang"] for card in found["pool"].values()} <= {"de"}


def test_what_the_server_says_of_the_collection_is_of_the_tenant(german: Server) -> None:
    info = get(german, "/info")
    assert (info["tenant"], info["passages"]) == ("de", 12)


def test_a_document_of_another_is_as_one_that_is_not_there(german: Server) -> None:
    assert get(german, "/document", doc_id="de-3")["title"] == "Note 3"
    client = german.client()
    for ask in (
        lambda name: client.get(name, count=1),
        lambda name: client.similar(name),
    ):
        said = []
        for name in ("en-3", "nobody"):
            with pytest.raises(NotFoundError) as refusal:
                ask(name)
            said.append(str(refusal.value).replace(name, "NAME"))
        assert said[0] == said[1]


def test_why_says_nothing_of_the_documents_of_another(german: Server) -> None:
    client = german.client()
    of_another, nobody = client.why("sea", "en-3"), client.why("sea", "nobody")
    assert of_another.stage is nobody.stage is Stage.ABSENT
    assert of_another.to_json() == {**nobody.to_json(), "doc_id": "en-3"}
    assert client.why("sea", "de-3", k=50).is_found
    with pytest.raises(UsageError, match="another tenant"):
        client.why("sea", "en-3", tenant="en")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"tenant": "en"}, "another tenant"),
        ({"tenant": ""}, "tenant is empty"),
        ({"where": ["lang=en"]}, None),
        ({"filter": 'lang == "en"'}, "does not accept `filter`"),
    ],
)
def test_no_words_reach_another_tenant(german: Server, words: dict[str, Any], says: str | None) -> None:
    if says is None:
        assert not german.client().search("sea", **words).hits
        return
    with pytest.raises(UsageError, match=says):
        german.client().search("sea", **words)


def test_documents_of_a_tenant_that_is_named(german: Server) -> None:
    client = german.client()
    assert client.get("de-3", tenant="de") == client.get("de-3")
    with pytest.raises(UsageError, match="another tenant"):
        client.get("en-3", tenant="en")


def test_an_assistant_sees_the_tenant_alone() -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    import anyio
    from mcp import Client

    from m3index.serve.mcp import tools

    warm = ServedIndex(build(tenant_field="lang"), tenant="de")
    warm.load()

    async def ask() -> tuple[Any, Any, Any]:
        async with Client(tools(warm)) as client:
            return (
                await client.call_tool("search", {"query": "tides and moons of the sea", "k": 50}),
                await client.call_tool("get_document", {"doc_id": "en-3"}),
                await client.call_tool("status", {}),
            )

    found, document, status = anyio.run(ask)
    assert {hit["doc_id"] for hit in found.structured_content["hits"]} == GERMANS
    assert document.is_error
    assert status.structured_content["passages"] == 12
    warm.close()


@pytest.mark.parametrize(("tenant", "says"), [("de", "no tenant field"), ("", "tenant is empty")])
def test_a_tenant_that_cannot_be_is_refused_at_the_start(tenant: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ServedIndex(build(), tenant=tenant)
