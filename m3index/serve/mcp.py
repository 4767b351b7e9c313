"""The index as tools of the Model Context Protocol: search, get_document, status."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp_types import ToolAnnotations
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

import m3index
from m3index.errors import Exit, M3IndexError
from m3index.search.hits import facets_json
from m3index.search.result import SearchResult
from m3index.serve import http_errors
from m3index.serve.answer import document_json
from m3index.serve.guard import Access, Guard
from m3index.serve.listen import OnListening, make_server, run_server
from m3index.serve.request import ToolDocument, ToolRequest, ToolStatus, WhyRequest, as_tool
from m3index.serve.served import ServedIndex
from m3index.types import Hit

P = ParamSpec("P")

INSTRUCTIONS = (
    "Search a multilingual corpus. Call `search` with a question or keywords in any language; it matches by "
    "meaning and by words. Double quotes make a phrase that hits must have; -word leaves out those with the "
    "word. Read more of a document with `get_document`. `status` lists the fields that `where` can filter by."
)
_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def tools(served: ServedIndex) -> MCPServer[Any]:
    """The MCP server, for any transport."""

    def search(request: ToolRequest) -> dict[str, Any]:
        """Find the documents that best match a query, best first, each with its best passage."""
        return _hits(served.search(request))

    def why(request: WhyRequest) -> dict[str, Any]:
        """Say why a document is not among the first hits of a query, and which search shows it."""
        return served.why(request).to_json()

    def get_document(request: ToolDocument) -> dict[str, Any]:
        """Read a document: its title, metadata and passages in order. Some passages overlap slightly."""
        return document_json(served.document(request))

    def status(_: ToolStatus) -> dict[str, Any]:
        """Describe the collection and the fields that `where` can filter by."""
        return served.info()

    def with_errors(tool: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
        """The tool, with errors of m3index as messages to the assistant."""

        @wraps(tool)
        def call(*values: P.args, **arguments: P.kwargs) -> dict[str, Any]:
            try:
                with served.limit():
                    return tool(*values, **arguments)
            except M3IndexError as error:
                raise ToolError(served.public(error)) from error

        return call

    calls = (
        as_tool(search, ToolRequest, without=("explain", "texts")),
        as_tool(why, WhyRequest),
        as_tool(get_document, ToolDocument),
        as_tool(status, ToolStatus),
    )
    return MCPServer(
        "m3index",
        instructions=INSTRUCTIONS,
        version=m3index.__version__,
        tools=[_tool(with_errors(call)) for call in calls],
        log_level="WARNING",
    )


def _tool(call: Callable[..., dict[str, Any]]) -> Tool:
    """A read-only tool that rejects unknown arguments."""
    tool = Tool.from_function(call, annotations=_READ_ONLY)
    tool.fn_metadata = _Arguments(**dict(tool.fn_metadata))
    tool.parameters["additionalProperties"] = False
    return tool


class _Arguments(FuncMetadata):
    """The arguments of a tool, which the tool itself checks.

    For clients that send a list as text, the SDK parses texts that are JSON. An argument of type string, such
    as the query `null`, stays as it is.
    """

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        return self.pre_parse_json(arguments_to_validate)

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        properties = self.arg_model.model_json_schema()["properties"]
        texts = {name: data[name] for name in data if properties.get(name, {}).get("type") == "string"}
        return {**super().pre_parse_json(data), **texts}


def serve_http(served: ServedIndex, access: Access, host: str, port: int, on_listening: OnListening) -> None:
    """Serves the tools as streamable HTTP at /mcp until SIGINT or SIGTERM. Raises UsageError if it cannot
    listen."""
    run_server(make_server(http_app(served, access, host)), host, port, on_listening)


def http_app(served: ServedIndex, access: Access, host: str) -> Guard:
    """The tools as streamable HTTP at /mcp. There are no sessions and no streams of events, since the tools
    keep nothing between requests: those that their client does not end would stay."""
    app = tools(served).streamable_http_app(host=host, stateless_http=True, json_response=True)

    async def posts(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "POST":
            message = http_errors.body(f"/mcp does not take {scope['method']}.", Exit.USAGE)
            await JSONResponse(message, 405, {"allow": "POST"})(scope, receive, send)
            return
        await app(scope, receive, send)

    return Guard(posts, access, served.limit)


def _hits(result: SearchResult) -> dict[str, Any]:
    """The hits as an assistant needs them. Ranks and scores of the legs would only cost tokens; what a match
    is worth, it is told."""
    return {
        "hits": [
            {
                "rank": hit.rank,
                "doc_id": hit.doc_id,
                "source": hit.source,
                "passage": hit.ordinal,
                "title": hit.title,
                **({"breadcrumb": hit.breadcrumb} if hit.breadcrumb else {}),
                **({"anchor": hit.anchor} if hit.anchor else {}),
                "text": hit.text,
                "metadata": dict(hit.metadata),
            }
            | _by_chance(hit)
            for hit in result.hits
        ],
        "notes": list(result.notes),
    } | ({"facets": facets_json(result.facets)} if result.facets else {})


def _by_chance(hit: Hit) -> dict[str, Any]:
    """With fusion by evidence, how many documents would match as well by chance, by leg."""
    found = {name: leg.by_chance for name, leg in hit.legs.items() if leg.by_chance is not None}
    return {"by_chance": {name: float(f"{value:.2g}") for name, value in found.items()}} if found else {}
