"""Translates the exceptions of pymilvus and gRPC into those of m3index."""

from __future__ import annotations

import errno
import os
import re

import grpc
from pymilvus.exceptions import (
    DataNotMatchException,
    MilvusException,
    ParamError,
)

from m3index.addresses import redacted, redacted_text
from m3index.errors import (
    CollectionNotFoundError,
    FilterError,
    M3IndexError,
    NotAuthorisedError,
    NotFoundError,
    StoppedError,
    StoreError,
    UnreachableError,
)

UNEXPECTED, RATE_LIMIT, NOT_FOUND, NOT_LOADED, NO_DATABASE = 1, 8, 100, 101, 800
TRANSIENT_CODES = frozenset({2, 4, 8, 12, 103, 106, 202, 1002, 1807, 2200})
"""Milvus's own codes for: unavailable, too many requests, rate limit, time tick delay, loading,
recovering, interrupted I/O, and the same in its components."""

_TRANSIENT_STATUS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
_AUTH_CODES = frozenset({1400, 1401, 1402})
_AUTH_STATUS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_FULL_CODES = frozenset({3, 7, 9})
_FULL_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_CONTENT_CODES = frozenset({6, 1100, 1101})


def code(error: BaseException) -> int | grpc.StatusCode | None:
    """Milvus's code or gRPC's; pymilvus sometimes puts the latter into a MilvusException.

    While connecting, pymilvus reports every failure as code 2 and keeps the real one as the cause.
    """
    if isinstance(error, MilvusException):
        value = error.code
        if isinstance(error.__cause__, grpc.RpcError) and (hidden := code(error.__cause__)) in _AUTH_STATUS:
            return hidden
        return value if isinstance(value, grpc.StatusCode) else int(value)
    if isinstance(error, grpc.RpcError):
        status: grpc.StatusCode | None = error.code() if callable(getattr(error, "code", None)) else None
        return status
    return None


def words(error: BaseException) -> str:
    """Milvus's message on one line, without pymilvus's wrapping and Go's stack trace."""
    if isinstance(error, MilvusException):
        text = str(error.message)
    elif isinstance(error, grpc.RpcError) and callable(getattr(error, "details", None)):
        text = str(error.details() or error)
    else:
        text = str(error)
    text = re.sub(r"^\[\w+\] Retry (?:timeout|run out)[^,]*,\s*(?:message=)?", "", text)
    text = text.split("\nTraceback", 1)[0].split("Stack trace", 1)[0].split(", debug=", 1)[0]
    return redacted_text(re.sub(r"\s+", " ", text).strip())[:600]


def is_transient(error: BaseException) -> bool:
    status = code(error)
    if status in _TRANSIENT_STATUS or status in TRANSIENT_CODES:
        return True
    return bool(isinstance(error, MilvusException) and error.retriable)


def is_not_loaded(error: BaseException) -> bool:
    return isinstance(error, MilvusException) and code(error) == NOT_LOADED


def is_not_found(error: BaseException) -> bool:
    """No such collection or alias."""
    return isinstance(error, MilvusException) and (
        code(error) in (NOT_FOUND, 1600) or "not found" in words(error) or "not exist" in words(error)
    )


def is_content(error: BaseException) -> bool:
    """The call is refused because of the contents of its rows, so part of it may still be accepted."""
    if not isinstance(error, MilvusException):
        return False
    own = isinstance(error, ParamError | DataNotMatchException)
    return bool(own or error.is_input_error or code(error) in _CONTENT_CODES)


def is_too_large(error: BaseException) -> bool:
    """The message is larger than the server or the client accepts."""
    return bool(code(error) == grpc.StatusCode.RESOURCE_EXHAUSTED)


def is_full(error: BaseException) -> bool:
    """The server's disk, memory or quota is exhausted, or the disk of a local database."""
    return code(error) in _FULL_CODES or any(reason in words(error) for reason in _FULL_WORDS)


def translate(error: BaseException, doing: str, uri: str, *, filtered: bool = False) -> M3IndexError:
    """The error that a caller sees. filtered: the call has a filter, which may be the cause."""
    status, reason, place = code(error), words(error), redacted(uri)
    if status in _AUTH_CODES or status in _AUTH_STATUS:
        return NotAuthorisedError(
            f"{place} refuses the credentials ({reason}). Check M3INDEX_TOKEN or --token-file."
        )
    if is_transient(error):
        return UnreachableError(
            f"{place} did not answer while {doing} ({reason}). Check --uri, and that the server runs."
        )
    if "wait for loading" in reason:  # pymilvus's own message, without a code
        return UnreachableError(f"{place} is still {doing}. Try again later, or increase --timeout.")
    if status == NO_DATABASE:
        return NotFoundError(f"{place}: {reason}. Check --db.")
    if status == NOT_FOUND:
        return CollectionNotFoundError(f"{place}: {reason}.")
    if is_full(error):
        return StoppedError(
            f"{place} accepts no more data ({reason}). Free memory, disk or quota, then run again."
        )
    if filtered and (is_content(error) or "cannot parse expression" in reason):
        return FilterError(f"Milvus does not accept the filter: {_filter_words(reason)}")
    return StoreError(f"{place} refused {doing}: {reason}" + ("" if status is None else f" (code {status})."))


def _filter_words(said: str) -> str:
    said = re.sub(r"^failed to create query plan: ", "", said)
    said = re.sub(r" at column (\d+) .*? \^+ ?", r" at column \1; ", said)  # Lite repeats the filter
    return re.sub(r"(: invalid parameter|; )$", "", said)
