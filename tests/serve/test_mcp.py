"""With the SDK's own client: in this process, over stdio and over HTTP as a real process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from commands import COLLECTION, make_database
from mcp import Client, StdioServerParameters, stdio_client
from serving import build

from m3index.serve.mcp import tools
from m3index.serve.warm import WarmIndex


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmIndex]:
    warm = WarmIndex(build())
    warm.load()
    yield warm
    warm.close()


def call(warm: WarmIndex, name: str, **arguments: Any) -> Any:
    async def one() -> Any:
        async with Client(tools(warm)) as client:
            return await client.call_tool(name, arguments)

    return anyio.run(one)


def test_the_tools_say_what_they_are(warm: WarmIndex) -> None:
    async def listed() -> Any:
        async with Client(tools(warm)) as client:
            return (await client.list_tools()).tools

    found = {tool.name: tool for tool in anyio.run(listed)}
    assert set(found) == {"search", "get_document", "status"}
    for tool in found.values():
        assert tool.description
        assert tool.annotations.read_only_hint
        for parameter in tool.input_schema["properties"].values():
            assert parameter["description"]
    assert found["search"].input_schema["required"] == ["query"]


def test_search_document_and_status(warm: WarmIndex) -> None:
    answer = call(warm, "search", query="tides and moons of the sea", k=3, where=["lang=en"])
    assert not answer.is_error
    hits = answer.structured_content["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert {hit["metadata"]["lang"] for hit in hits} == {"en"}
    document = call(warm, "get_document", doc_id=hits[0]["doc_id"]).structured_content
    assert document["texts"][0]["text"] == hits[0]["text"]
    status = call(warm, "status").structured_content
    assert status["fields"] == {"lang": "str", "n": "int"}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search", {"query": " "}, "either a query"),
        ("search", {"query": "sea", "where": ["colour=red"]}, "colour"),
        ("search", {"query": "sea", "k": 1000}, "50"),
        ("get_document", {"doc_id": "nobody"}, "nobody"),
    ],
)
def test_an_assistant_reads_what_was_wrong(warm: WarmIndex, name: str, arguments: Any, says: str) -> None:
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
