"""With the SDK's own client: in this process, over stdio and over HTTP as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from commands import COLLECTION, make_database
from mcp import Client, StdioServerParameters, stdio_client
from serving import build, listening

from m3index.errors import M3IndexError
from m3index.options import options_of
from m3index.search.options import SearchOptions
from m3index.serve.guard import access
from m3index.serve.mcp import http_app, tools
from m3index.serve.request import ToolRequest
from m3index.serve.served import ServedIndex


@pytest.fixture(scope="module")
def warm() -> Iterator[ServedIndex]:
    warm = ServedIndex(build())
    warm.load()
    yield warm
    warm.close()


def call(warm: ServedIndex, name: str, **arguments: Any) -> Any:
    async def one() -> Any:
        async with Client(tools(warm)) as client:
            return await client.call_tool(name, arguments)

    return anyio.run(one)


def listed(warm: ServedIndex) -> dict[str, Any]:
    async def all_of_them() -> Any:
        async with Client(tools(warm)) as client:
            return (await client.list_tools()).tools

    return {tool.name: tool for tool in anyio.run(all_of_them)}


def test_the_tools_say_what_they_are(warm: ServedIndex) -> None:
    found = listed(warm)
    assert set(found) == {"search", "why", "get_document", "status"}
    for tool in found.values():
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False
        for parameter in tool.input_schema["properties"].values():
            assert parameter["description"]
    assert "required" not in found["search"].input_schema  # query or similar
    assert found["get_document"].input_schema["required"] == ["doc_id"]
    assert set(found["why"].input_schema["required"]) == {"query", "doc_id"}
    answer = call(warm, "why", query="tides of the sea", doc_id="nobody").structured_content
    assert answer["stage"] == "absent"


def test_every_option_of_a_search_is_an_argument_with_its_help(warm: ServedIndex) -> None:
    arguments = listed(warm)["search"].input_schema["properties"]
    options = {o.name: o for o in options_of(SearchOptions) if o.name not in ("explain", "texts")}
    options |= {o.name: o for o in options_of(ToolRequest) if o.name == "k"}  # an assistant reads fewer hits
    assert arguments.keys() == options.keys() | {"query", "similar"}
    for name, declared in options.items():
        described = dict(arguments[name])
        assert (described.pop("description"), described.pop("default")) == (declared.help, declared.default)
        assert {key: described[key] for key in declared.kind.schema} == declared.kind.schema
    assert (arguments["k"]["minimum"], arguments["k"]["maximum"]) == (1, 50)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0}, {"k": "many"}, {"depth": 3}, {"mode": "magic"}, {"weights": "dense"},
        {"weights": {"dense": 0, "sparse": 0}}, {"rrf_k": -1}, {"where": []}, {"where": "[]"},
        {"where": ["colour=red"]}, {"where": {"n": "x"}}, {"where": 5}, {"filter": ""}, {"source": ""},
        {"tenant": ""}, {"tenant": "acme"}, {"group_by": "colour"}, {"passages": "yes"}, {"query": " "},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_said_as_in_python(warm: ServedIndex, wrong: dict[str, Any]) -> None:
    said = {"query": "sea", **wrong}
    here = {**said, "where": []} if said.get("where") == "[]" else said  # the SDK reads lists sent as text
    with pytest.raises(M3IndexError) as refusal:
        warm.index.search(here["query"], ToolRequest(**here))
    answer = call(warm, "search", **said)
    assert answer.is_error
    assert answer.content[0].text == f"Error executing tool search: {refusal.value}"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"doc_id": "long", "count": 1000}, "count takes a whole number from 1 to 20, not 1000."),
        ({"doc_id": "long", "start": "first"}, "start takes a whole number from 0 up, not 'first'."),
        ({"doc_id": None}, "doc_id is required."),
        ({}, "doc_id is required."),
        ({"doc_id": ""}, "doc_id takes a non-empty text, not ''."),
        ({"doc_id": "long", "tenant": "acme"}, "Collection 'notes' has no tenant field"),
    ],
)
def test_documents_that_cannot_be_read(warm: ServedIndex, wrong: dict[str, Any], says: str) -> None:
    answer = call(warm, "get_document", **wrong)
    assert answer.is_error
    assert answer.content[0].text.startswith(f"Error executing tool get_document: {says}")


@pytest.mark.parametrize("name", ["wheer", "like", "explain", "texts", "pool"])
def test_an_unknown_argument_is_refused(warm: ServedIndex, name: str) -> None:
    for tool, arguments in (
        ("search", {"query": "sea"}),
        ("get_document", {"doc_id": "long"}),
        ("status", {}),
    ):
        answer = call(warm, tool, **arguments, **{name: "lang=de"})
        assert answer.is_error
        says = f"Error executing tool {tool}: There is no option {name!r}."
        assert answer.content[0].text.startswith(says)
        assert ("The options are" in answer.content[0].text) == (tool != "status")


def test_null_stands_for_what_is_left_out(warm: ServedIndex) -> None:
    nothing = dict.fromkeys(listed(warm)["search"].input_schema["properties"])
    plain = call(warm, "search", query="sea").structured_content
    assert call(warm, "search", **{**nothing, "query": "sea"}).structured_content == plain
    hits = call(warm, "search", **{**nothing, "similar": "en-3"}).structured_content["hits"]
    assert hits
    assert "en-3" not in [hit["doc_id"] for hit in hits]


@pytest.mark.parametrize("query", ["null", "[1, 2]", '{"a": 1}', "5", "true", '"quoted"'])
def test_a_query_that_looks_like_json_is_a_text(warm: ServedIndex, query: str) -> None:
    expected = warm.index.search(query, ToolRequest(query=query))
    hits = call(warm, "search", query=query).structured_content["hits"]
    assert [hit["doc_id"] for hit in hits] == [hit.doc_id for hit in expected]
    assert (
        call(warm, "search", similar=query)
        .content[0]
        .text.endswith(f"There is no document {query!r} of source 'default' in this collection.")
    )


def test_a_list_that_is_sent_as_a_text_is_a_list(warm: ServedIndex) -> None:
    """Some assistants send all their arguments so."""
    as_list = call(warm, "search", query="sea", where=["lang=en", "n<5"]).structured_content
    assert call(warm, "search", query="sea", where='["lang=en", "n<5"]').structured_content == as_list
    assert {hit["metadata"]["lang"] for hit in as_list["hits"]} == {"en"}


def test_a_document_is_read_in_parts(warm: ServedIndex) -> None:
    first = call(warm, "get_document", doc_id="long", count=2).structured_content
    rest = call(warm, "get_document", doc_id="long", start=2, count=None).structured_content
    ordinals = [text["ordinal"] for text in [*first["texts"], *rest["texts"]]]
    assert ordinals == list(range(first["passages"]))


def test_search_document_and_status(warm: ServedIndex) -> None:
    answer = call(warm, "search", query="tides and moons of the sea", k=3, where=["lang=en"])
    assert not answer.is_error
    hits = answer.structured_content["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert {hit["metadata"]["lang"] for hit in hits} == {"en"}
    document = call(warm, "get_document", doc_id=hits[0]["doc_id"]).structured_content
    assert document["texts"][0]["text"] == hits[0]["text"]
    assert 0 < hits[0]["by_chance"]["dense"] < 100
    by_rank = call(warm, "search", query="tides and moons of the sea", k=3, fusion="rrf")
    assert "by_chance" not in by_rank.structured_content["hits"][0]
    status = call(warm, "status").structured_content
    assert status["fields"] == {"lang": "str", "n": "int"}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search", {}, "exactly one of query and similar"),
        ("search", {"query": " "}, "The query is empty. Give at least one word."),
        ("search", {"query": "sea", "where": ["colour=red"]}, "colour"),
        ("search", {"query": "sea", "k": 1000}, "50"),
        ("get_document", {"doc_id": "nobody"}, "nobody"),
    ],
)
def test_an_assistant_reads_what_was_wrong(warm: ServedIndex, name: str, arguments: Any, says: str) -> None:
    answer = call(warm, name, **arguments)
    assert answer.is_error
    assert says in answer.content[0].text


async def ask_all(client: Client) -> tuple[list[str], Any]:
    names = [tool.name for tool in (await client.list_tools()).tools]
    return names, await client.call_tool("search", {"query": "why does the sea rise and fall", "k": 2})


@pytest.mark.slow
def test_over_stdio_as_a_real_process(tmp_path: Path) -> None:
    uri = make_database(tmp_path)
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "m3index", "mcp", "--uri", uri, "-c", COLLECTION]
    )

    async def talk() -> Any:
        async with Client(stdio_client(parameters)) as client:
            return await ask_all(client)

    names, answer = anyio.run(talk)
    assert sorted(names) == ["get_document", "search", "status"]
    assert answer.structured_content["hits"][0]["doc_id"] == "tides"


@pytest.mark.slow
def test_over_http_as_a_real_process(tmp_path: Path) -> None:
    uri = make_database(tmp_path)
    command = [
        sys.executable,
        "-m",
        "m3index",
        "mcp",
        "--http",
        "--port",
        "0",
        "--uri",
        uri,
        "-c",
        COLLECTION,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))

            async def talk() -> Any:
                async with Client(url) as client:
                    return await ask_all(client)

            names, answer = anyio.run(talk)
        finally:
            process.terminate()
        assert process.wait(30) == 0
    assert len(names) == 3
    assert answer.structured_content["hits"][0]["doc_id"] == "tides"


def test_sessions_do_not_grow(warm: ServedIndex) -> None:
    """A client that begins and never ends leaves nothing, and an open stream takes no place."""
    asked = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            },
        }
    ).encode()
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    with listening(http_app(warm, access("127.0.0.1", None), "127.0.0.1")) as url:
        for _ in range(20):
            request = urllib.request.Request(f"{url}/mcp", asked, headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.headers.get("mcp-session-id") is None
                assert json.loads(answer.read())["result"]["serverInfo"]["name"] == "m3index"
        stream = urllib.request.Request(f"{url}/mcp", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(stream, timeout=20)
        with refused.value as answer:
            assert answer.code == 405


def test_facets_phrases_and_exclusions(warm: ServedIndex) -> None:
    answer = call(warm, "search", query='sea -"tides and"', k=3, facets=["lang"]).structured_content
    assert answer["facets"]["lang"]["values"][0] == {"value": "de", "count": 12}
    assert answer["notes"][0] == 'Left out for "tides and": 12 of 40 documents found.'
    assert "synonyms" not in listed(warm)["search"].input_schema["properties"]
