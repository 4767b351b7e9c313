"""Checks each request before it is processed: its token, host name and size."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3index.addresses import is_loopback
from m3index.errors import Exit, UsageError
from m3index.serve import http_errors
from m3index.serve.http_errors import MAX_BODY
from m3index.serve.limits import BUFFERED, REQUESTS

MIN_TOKEN = 16

_TOO_LARGE = f"A request can have at most {MAX_BODY:,} bytes"

_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


@dataclass(frozen=True, slots=True)
class Access:
    """Who can send requests. token: None for everyone who can reach the host. hosts: the accepted host
    names; None for any. generated: whether the token was generated.

    A malicious web page can make a browser send requests to a server on the same machine, under the host
    name of the page (DNS rebinding). Therefore only loopback names are accepted without a token.
    """

    token: str | None
    hosts: Collection[str] | None
    generated: bool = False


def access(host: str, token: str | None) -> Access:
    """The access to a server: a token is required if other machines can reach it, and generated if none is
    given. Raises UsageError for an invalid token."""
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(f"A token must have at least {MIN_TOKEN} characters, all printable ASCII.")
    if token is not None:
        return Access(token, hosts=None)
    if is_loopback(host):
        return Access(None, hosts=frozenset({"localhost", "127.0.0.1", "[::1]", host}))
    return Access(secrets.token_urlsafe(32), hosts=None, generated=True)


class Guard:
    """ASGI middleware. limit: the time of a request. public: paths without a token, which reveal nothing
    about the collection and are answered from memory.

    A request is worked on only when all of it is here, so that slow clients hold no place of others.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        limit: Callable[[], AbstractContextManager[None]],
        public: Collection[str] = (),
    ) -> None:
        self._app = app
        self._access = access
        self._limit = limit
        self._public = frozenset(public)
        self._working = 0
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if scope["path"] in self._public and scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, with_headers)
            return
        size = 0
        try:
            parts: list[bytes] = []
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                part: bytes = message.get("body", b"")
                size += len(part)
                self._buffered += len(part)
                parts.append(part)
                more = message.get("more_body", False)
                if size > MAX_BODY:
                    await _refused(413, f"{_TOO_LARGE}.", Exit.USAGE)(scope, receive, with_headers)
                    return
                if self._buffered > BUFFERED:
                    await _busy(scope, receive, with_headers)
                    return
            if self._working >= REQUESTS:
                await _busy(scope, receive, with_headers)
                return
            self._working += 1
            try:
                with self._limit():
                    await self._app(scope, _replayed(b"".join(parts), receive), with_headers)
            finally:
                self._working -= 1
        finally:
            self._buffered -= size

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._access.hosts is not None and _without_port(host) not in self._access.hosts:
            return _refused(
                421, f"The host name {host!r} is not accepted. Use localhost or 127.0.0.1.", Exit.USAGE
            )
        if not _is_size(headers.get("content-length", "0")):
            return _refused(413, f"{_TOO_LARGE}.", Exit.USAGE)
        if self._access.token is None or path in self._public:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        expected = self._access.token.encode()
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), expected):
            return None
        message = "This server requires its token: Authorization: Bearer TOKEN."
        refused = _refused(401, message, Exit.NOT_AUTHORISED)
        refused.headers["www-authenticate"] = "Bearer"
        return refused


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body at once; what comes afterwards is the end of the connection."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    response = _refused(503, "The server has too many requests. Try again in a moment.", Exit.UNREACHABLE)
    response.headers["retry-after"] = "2"
    await response(scope, receive, send)


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= MAX_BODY


def _refused(code: int, message: str, exit_code: Exit) -> JSONResponse:
    return JSONResponse(http_errors.body(message, exit_code), status_code=code)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
