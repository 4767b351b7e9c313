"""The HTTP server's paths. Each parses, asks the warm index, and answers in JSON."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

import m3index
from m3index.errors import Exit, M3IndexError
from m3index.serve import faults
from m3index.serve.answer import answer_json, answer_schema
from m3index.serve.documents import MAX_PASSAGES
from m3index.serve.guard import Access, Guard
from m3index.serve.metrics import CONTENT_TYPE, Measured, Metrics
from m3index.serve.page import page
from m3index.serve.warm import WarmIndex
from m3index.serve.words import Body, Parameters
from m3index.types import DEFAULT_SOURCE

log = logging.getLogger(__name__)

PUBLIC = ("/", "/health", "/health/live", "/openapi.json")
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "The hits.", "content": {"application/json": {"schema": answer_schema()}}},
    "default": {
        "description": "What went wrong, and the exit code that the command line would have.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "exit": {"type": "integer"}},
                }
            }
        },
    },
}


def create_app(warm: WarmIndex, access: Access, metrics: Metrics, on_failure: Callable[[], None]) -> FastAPI:
    """The application over an index, which it loads when it starts and closes when it ends.

    on_failure: called where the encoder cannot be loaded.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warm.start(on_failure)
        yield
        warm.close()

    app = FastAPI(
        title="m3index",
        version=m3index.__version__,
        description="Hybrid search over a multilingual corpus.",
        lifespan=lifespan,
        docs_url=None,  # the interactive pages would ask a stranger's server for their scripts
        redoc_url=None,
    )
    _add_search(app, warm, metrics)
    _add_operations(app, warm, metrics)
    _add_faults(app)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=4)
    app.add_middleware(Guard, access=access, public=PUBLIC)
    app.add_middleware(Measured, metrics=metrics, paths=paths)
    return app


def _add_search(app: FastAPI, warm: WarmIndex, metrics: Metrics) -> None:
    def answer(words: Body) -> JSONResponse:
        result = warm.search(words)
        metrics.searched(result.timings)
        return JSONResponse(answer_json(warm.index, words, result))

    @app.post("/search", responses=_ANSWER)
    def search(words: Body) -> JSONResponse:
        """The best hits for a text, or those like a document."""
        return answer(words)

    @app.get("/search", responses=_ANSWER)
    def search_by_url(words: Annotated[Parameters, Query()]) -> JSONResponse:
        """The same, with the words in the URL."""
        return answer(words.body())

    @app.get("/document")
    def document(
        doc_id: str, source: str = DEFAULT_SOURCE, start: int = 0, count: int = MAX_PASSAGES
    ) -> JSONResponse:
        """A document's title, metadata and passages."""
        return JSONResponse(warm.document(doc_id, source, start, count))

    @app.get("/info")
    def info() -> JSONResponse:
        """The collection, its fields to filter by, and what a search can choose from."""
        return JSONResponse(warm.info())


def _add_operations(app: FastAPI, warm: WarmIndex, metrics: Metrics) -> None:
    @app.get("/health")
    def ready() -> JSONResponse:
        """200 when a search would be answered: the encoder is loaded, the store answers. Else 503."""
        try:
            warm.check()
        except Exception as error:
            known = isinstance(error, M3IndexError)
            exit_code = error.exit_code if isinstance(error, M3IndexError) else Exit.UNEXPECTED
            message = str(error) if known else "an unexpected error; the server's log has it"
            return JSONResponse({"status": "not ready", **faults.body(message, exit_code)}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/health/live")
    async def live() -> JSONResponse:
        """200 while the process lives."""
        return JSONResponse({"status": "alive"})

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        """For Prometheus."""
        metrics.ready.set(warm.loaded)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def people() -> HTMLResponse:
        found = page()
        headers = {"content-security-policy": found.policy, "cache-control": "no-cache"}
        return HTMLResponse(found.html, headers=headers)


def _add_faults(app: FastAPI) -> None:
    @app.exception_handler(M3IndexError)
    async def ours(_: Request, error: M3IndexError) -> JSONResponse:
        code = faults.http_code(error)
        headers = {"retry-after": "2"} if code == 503 else None
        return JSONResponse(faults.body(str(error), error.exit_code), code, headers)

    @app.exception_handler(RequestValidationError)
    async def unreadable(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        message = f"{where}: {first['msg']}." if where else f"The request cannot be read: {first['msg']}."
        return JSONResponse(faults.body(message, Exit.USAGE), 400)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(faults.body(f"{error.detail}.", Exit.USAGE), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error)
        message = "An unexpected error; the server's log has it."
        return JSONResponse(faults.body(message, Exit.UNEXPECTED), 500)
