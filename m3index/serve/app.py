"""The paths of the HTTP server. Each parses the request, calls the index and responds with JSON."""

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
from m3index.serve import http_errors
from m3index.serve.answer import answer_json, answer_schema, document_json, why_schema
from m3index.serve.guard import Access, Guard
from m3index.serve.metrics import CONTENT_TYPE, Measuring, Metrics
from m3index.serve.page import page
from m3index.serve.request import (
    AnswerRequest,
    Body,
    DocumentParameters,
    Parameters,
    WhyBody,
    document_from_url,
    from_body,
    from_url,
    why_from_body,
)
from m3index.serve.served import ServedIndex

log = logging.getLogger("m3index.serve")

PUBLIC = ("/", "/health", "/health/live", "/openapi.json")


def _responses(description: str, answer: Any) -> dict[int | str, dict[str, Any]]:
    error = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "exit": {"type": "integer"}, "kind": {"type": "string"}},
    }
    return {
        200: {"description": description, "content": {"application/json": {"schema": answer}}},
        "default": {
            "description": "The error, with the exit code of the command line.",
            "content": {"application/json": {"schema": error}},
        },
    }


_ANSWER = _responses("The hits.", answer_schema())
_WHY = _responses("The stage, and a search that shows the document.", why_schema())


def create_app(
    served: ServedIndex, access: Access, metrics: Metrics, on_failure: Callable[[], None]
) -> FastAPI:
    """The application for an index. It loads the index at startup and closes it at shutdown.

    on_failure: called if the encoder cannot be loaded.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.start(on_failure)
        yield
        served.close()

    app = FastAPI(
        title="m3index",
        version=m3index.__version__,
        description="Hybrid search over a multilingual corpus.",
        lifespan=lifespan,
        docs_url=None,  # the interactive pages load scripts from another server
        redoc_url=None,
    )
    _add_search(app, served, metrics)
    _add_operations(app, served, metrics)
    _add_error_handlers(app, served)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    app.add_middleware(GZipMiddleware, minimum_size=2048, compresslevel=4)
    app.add_middleware(Guard, access=access, limit=served.limit, public=PUBLIC)
    app.add_middleware(Measuring, metrics=metrics, paths=paths)
    return app


def _add_search(app: FastAPI, served: ServedIndex, metrics: Metrics) -> None:
    def answer(request: AnswerRequest) -> JSONResponse:
        result = served.search(request)
        metrics.record_search(result.timings)
        return JSONResponse(answer_json(served.index, request, result))

    @app.post("/search", responses=_ANSWER)
    def search(body: Body) -> JSONResponse:  # type: ignore[valid-type]  # made from the options
        """Search for a text, or for documents similar to a stored one."""
        return answer(from_body(body))

    @app.get("/search", responses=_ANSWER)
    def search_by_url(parameters: Annotated[Parameters, Query()]) -> JSONResponse:  # type: ignore[valid-type]
        """Search with the options in the URL."""
        return answer(from_url(parameters))

    @app.post("/why", responses=_WHY)
    def why(body: WhyBody) -> JSONResponse:  # type: ignore[valid-type]
        """Say which stage of the search keeps a document from the first hits."""
        return JSONResponse(served.why(why_from_body(body)).to_json())

    @app.get("/document")
    def document(parameters: Annotated[DocumentParameters, Query()]) -> JSONResponse:  # type: ignore[valid-type]
        """Read the title, metadata and passages of a document."""
        return JSONResponse(document_json(served.document(document_from_url(parameters))))

    @app.get("/status")
    def status() -> JSONResponse:
        """Describe the state of the collection: rows, encoder, last success."""
        return JSONResponse(served.status().to_json())

    @app.get("/info")
    def info() -> JSONResponse:
        """Describe the collection, its fields for filters, and the values of the search options."""
        return JSONResponse(served.info())


def _add_operations(app: FastAPI, served: ServedIndex, metrics: Metrics) -> None:
    @app.get("/health")
    async def readiness() -> JSONResponse:
        """200 if searches were possible a few seconds ago: the encoder is loaded and the store responds. Else
        503."""
        ready = served.readiness
        if ready.exit == Exit.OK:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", **http_errors.body(ready.reason, ready.exit)}, 503)

    @app.get("/health/live")
    async def live() -> JSONResponse:
        """200 while the process runs."""
        return JSONResponse({"status": "alive"})

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        """Metrics for Prometheus."""
        metrics.ready.set(served.loaded)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def web_page() -> HTMLResponse:
        content = page()
        headers = {"content-security-policy": content.policy, "cache-control": "no-cache"}
        return HTMLResponse(content.html, headers=headers)


def _add_error_handlers(app: FastAPI, served: ServedIndex) -> None:
    @app.exception_handler(M3IndexError)
    async def deliberate(_: Request, error: M3IndexError) -> JSONResponse:
        code = http_errors.http_code(error)
        headers = {"retry-after": "2"} if code == 503 else None
        return JSONResponse(http_errors.body_of(error, served.public(error)), code, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message = http_errors.unreadable(error.errors()[0], request.headers.get("content-type"))
        return JSONResponse(http_errors.body(message, Exit.USAGE), 400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = {
            400: f"The body cannot be read. {http_errors.EXPECTED}",  # it is not UTF-8
            404: f"There is nothing at {request.url.path}. GET /openapi.json lists the paths.",
            405: f"{request.url.path} does not take {request.method}.",
        }.get(error.status_code, f"{error.detail}.")
        return JSONResponse(http_errors.body(message, Exit.USAGE), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error)
        return JSONResponse(http_errors.body(http_errors.UNEXPECTED, Exit.UNEXPECTED), 500)
