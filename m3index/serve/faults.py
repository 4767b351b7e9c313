"""The exception tree as HTTP: which code each error answers with, and back again in the client."""

from __future__ import annotations

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
"""Bytes of a request; more are refused with 413."""

_CODES: tuple[tuple[type[M3IndexError], int], ...] = (
    (UsageError, 400),
    (MissingHeadError, 400),
    (NotFoundError, 404),
    (MismatchError, 409),
    (LockedError, 503),
    (StoppedError, 503),
    (UnreachableError, 503),
    (NotAuthorisedError, 502),  # the store's refusal of the server's own login, not of the client's
    (StoreError, 502),
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
    """The most particular class decides: a subclass stands before its base in the list."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 500)


def body(message: str, exit_code: int) -> dict[str, object]:
    """What every answer that is no success carries."""
    return {"error": message, "exit": int(exit_code)}


def error_of(message: str, exit_code: int) -> M3IndexError:
    """The client's exception for a server's answer."""
    return _BY_EXIT.get(exit_code, M3IndexError)(message)
