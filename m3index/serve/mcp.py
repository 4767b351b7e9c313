"""The index as tools of the Model Context Protocol: search, get_document, status."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

import m3index
from m3index.errors import M3IndexError
from m3index.search.searcher import SearchResult
from m3index.serve.guard import Access, Guard
from m3index.serve.listen import OnListening, make_server, run_server
from m3index.serve.warm import WarmIndex
from m3index.serve.words import Body
from m3index.types import DEFAULT_SOURCE

MAX_HITS = 50
MAX_PASSAGES = 20

INSTRUCTIONS = (
    "Search a multilingual corpus. Ask `search` in any language with a question or keywords; it finds by "
    "meaning and by words. Read more of a document with `get_document`. `status` names the fields that "
    "`where` can filter by."
)
_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def tools(warm: WarmIndex) -> MCPServer[Any]:
    """The server, for any transport."""
    server: MCPServer[Any] = MCPServer(
        "m3index", instructions=INSTRUCTIONS, version=m3index.__version__, log_level="WARNING"
    )

    @server.tool(annotations=_READ_ONLY)
    def search(
        query: Annotated[str, Field(description="A question or keywords, in any language.")],
        k: Annotated[int, Field(ge=1, le=MAX_HITS, description="How many hits.")] = 10,
        where: Annotated[
            list[str], Field(description="Conditions, all of which must hold: lang=en, year>=2020.")
        ] = [],  # noqa: B006  (pydantic copies it)
        mode: Annotated[
            str, Field(description="hybrid; or dense (by meaning alone), sparse (by words alone).")
        ] = "hybrid",
        source: Annotated[str, Field(description="Only documents of this corpus.")] = "",
    ) -> dict[str, Any]:
        """Find the documents that answer a query, best first, each by its best passage."""
        words = Body(query=query, k=k, where=where, mode=mode, source=source)
        try:
            return _hits(warm.search(words))
        except M3IndexError as error:
            raise ToolError(str(error)) from error

    @server.tool(annotations=_READ_ONLY)
    def get_document(
        doc_id: Annotated[str, Field(description="As `search` gave it.")],
        source: Annotated[str, Field(description="As `search` gave it.")] = DEFAULT_SOURCE,
        start: Annotated[int, Field(ge=0, description="The first passage to read.")] = 0,
        count: Annotated[int, Field(ge=1, le=MAX_PASSAGES, description="How many passages.")] = MAX_PASSAGES,
    ) -> dict[str, Any]:
        """Read a document: its title, metadata and passages in order, which overlap a little."""
        try:
            return warm.document(doc_id, source, start, count)
        except M3IndexError as error:
            raise ToolError(str(error)) from error

    @server.tool(annotations=_READ_ONLY)
    def status() -> dict[str, Any]:
        """What the collection holds, and the fields that `where` can filter by."""
        try:
            return warm.info()
        except M3IndexError as error:
            raise ToolError(str(error)) from error

    return server


def serve_http(warm: WarmIndex, access: Access, host: str, port: int, on_listening: OnListening) -> None:
    """The tools by streamable HTTP at /mcp, until SIGINT or SIGTERM."""
    app = tools(warm).streamable_http_app(host=host)
    run_server(make_server(Guard(app, access)), host, port, on_listening)


def _hits(result: SearchResult) -> dict[str, Any]:
    """Only what a reader needs: ranks and scores of the legs would cost tokens and say nothing."""
    return {
        "hits": [
            {
                "rank": hit.rank,
                "doc_id": hit.doc_id,
                "source": hit.source,
                "passage": hit.ordinal,
                "title": hit.title,
                "text": hit.text,
                "metadata": dict(hit.metadata),
            }
            for hit in result.hits
        ],
        "notes": list(result.notes),
    }
