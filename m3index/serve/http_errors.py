"""Maps errors to HTTP codes and, in the client, responses back to errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3index import errors
from m3index.errors import (
    Exit,
    LockedError,
    M3IndexError,
    MismatchError,
    MissingHeadError,
    NotAuthorisedError,
    NotFoundError,
    StoppedError,
    StoreError,
    UnreachableError,
    UsageError,
)

MAX_BODY = 1 << 20
"""Maximum bytes of a request; larger ones are refused with 413."""

_CODES: tuple[tuple[type[M3IndexError], int], ...] = (
    (UsageError, 400),
    (MissingHeadError, 400),
    (NotFoundError, 404),
    (MismatchError, 409),
    (LockedError, 503),
    (StoppedError, 503),
    (UnreachableError, 503),
    (NotAuthorisedError, 502),  # the store rejected the server, not the client
    (StoreError, 502),
)

UNEXPECTED = "Unexpected error. The log of the server has the details."
_FAULTS: tuple[tuple[type[M3IndexError], str], ...] = (
    (LockedError, "The database is locked by another process. Try again in a moment."),
    (StoppedError, "The store of the server has no room left."),
    (UnreachableError, "The store of the server does not answer. Try again in a moment."),
    (NotAuthorisedError, "The store refuses the credentials of the server."),
    (StoreError, "The store of the server refused the request. The log of the server has the details."),
)

_BY_EXIT: dict[int, type[M3IndexError]] = {
    error.exit_code: error
    for error in (
        StoreError, UsageError, NotFoundError, LockedError, NotAuthorisedError, MismatchError, StoppedError,
        UnreachableError,
    )
    if error.exit_code != Exit.UNEXPECTED
}  # fmt: skip


def http_code(error: M3IndexError) -> int:
    """The HTTP code of an error. In the list, subclasses come before their bases."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 500)


def body(message: str, exit_code: int) -> dict[str, object]:
    """The body of an error response."""
    return {"error": message, "exit": int(exit_code)}


def body_of(error: M3IndexError, message: str) -> dict[str, object]:
    """The same for an error of m3index, with its class, so that a client can raise the same error."""
    public = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {**body(message, error.exit_code), "kind": public.__name__}


def of_the_server(error: M3IndexError) -> str | None:
    """What clients are told of a fault of the server or its store, without addresses and paths; None for an
    error in the request."""
    if http_code(error) < 500:
        return None
    return next((said for kind, said in _FAULTS if isinstance(error, kind)), UNEXPECTED)


EXPECTED = 'Send a JSON object such as {"query": "..."} with the header content-type: application/json.'


def unreadable(problem: Mapping[str, Any], content_type: str | None) -> str:
    """The message for a request whose body is no JSON object, from the description by pydantic. Everything
    else is checked by the options themselves."""
    match problem["type"]:
        case "json_invalid":
            reason = problem.get("ctx", {}).get("error", "it cannot be parsed")
            return f"The body is not JSON: {reason} at character {problem['loc'][-1]}. {EXPECTED}"
        case "missing" if problem["loc"] == ("body",):
            return f"The request has no body. {EXPECTED}"
        case "model_attributes_type" | "dict_type" if content_type is None or "json" not in content_type:
            return f"The content type is {content_type or 'missing'}. {EXPECTED}"
        case "model_attributes_type" | "dict_type":
            return f"The body is not a JSON object. {EXPECTED}"
    where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query"))
    return f"{where or 'The request'}: {problem['msg']}."


def error_of(message: str, exit_code: int, kind: object = None) -> M3IndexError:
    """The error that a client raises for an error response."""
    named = getattr(errors, kind, None) if isinstance(kind, str) else None
    if isinstance(named, type) and issubclass(named, M3IndexError) and named.exit_code == exit_code:
        return named(message)
    return _BY_EXIT.get(exit_code, M3IndexError)(message)
