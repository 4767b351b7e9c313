"""What stands before every request: who asks, for which host, and how much they send."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3index.errors import Exit, UsageError
from m3index.serve import faults
from m3index.serve.faults import MAX_BODY

MIN_TOKEN = 16

_TOO_LARGE = f"A request has at most {MAX_BODY:,} bytes"

_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask. token None: everybody who reaches this host; hosts None: by any name of it.

    A page of a stranger can make a browser ask a server on the same machine, under the stranger's
    own host name (DNS rebinding): without a token, only the loopback names are answered.
    """

    token: str | None
    hosts: Collection[str] | None
    generated: bool = False


def access(host: str, token: str | None) -> Access:
    """A token is needed where others can reach the server; one is made where none was given."""
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(f"A token has at least {MIN_TOKEN} characters, all of them visible ASCII.")
    if token is not None:
        return Access(token, hosts=None)
    if is_loopback(host):
        return Access(None, hosts=frozenset({"localhost", "127.0.0.1", "[::1]", host}))
    return Access(secrets.token_urlsafe(32), hosts=None, generated=True)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware. public: paths that need no token, for they say nothing about the collection."""

    def __init__(self, app: ASGIApp, access: Access, public: Collection[str] = ()) -> None:
        self._app = app
        self._access = access
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(413, _TOO_LARGE)  # which FastAPI lets through
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, counted, with_headers)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._access.hosts is not None and _without_port(host) not in self._access.hosts:
            return _refused(421, f"This server is not {host!r}; ask it by its loopback name.", Exit.USAGE)
        if not _is_size(headers.get("content-length", "0")):
            return _refused(413, f"{_TOO_LARGE}.", Exit.USAGE)
        if self._access.token is None or path in self._public:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = self._access.token.encode()
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), expected):
            return None
        message = "This server wants its token: Authorization: Bearer TOKEN."
        refused = _refused(401, message, Exit.NOT_AUTHORISED)
        refused.headers["www-authenticate"] = "Bearer"
        return refused


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= MAX_BODY


def _refused(code: int, message: str, exit_code: Exit) -> JSONResponse:
    return JSONResponse(faults.body(message, exit_code), status_code=code)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
