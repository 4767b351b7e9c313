"""One exception tree. Each class carries the exit code of the command line; the codes are decided here.

A message is one or two plain sentences: what is wrong, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    QUARANTINED = 3
    NOT_FOUND = 10
    LOCKED = 11
    NOT_AUTHORISED = 12
    MISMATCH = 13
    DELETES_WITHHELD = 14
    DRIFT = 15
    GATE = 16
    STOPPED = 17
    UNREACHABLE = 20
    INTERRUPTED = 130
    TERMINATED = 143


class M3IndexError(Exception):
    """The base of every error that m3index raises on purpose.

    `summary`: what a run had done when it failed, in the form of the run summary.
    """

    exit_code: Exit = Exit.UNEXPECTED
    summary: Mapping[str, Any] | None = None


class UsageError(M3IndexError):
    """The caller asked for something that cannot be: a missing file, a bad option, a bad value."""

    exit_code = Exit.USAGE


class FilterError(UsageError):
    """A filter that cannot be parsed, or names a field that the collection has not."""


class QueryError(UsageError):
    """A query that cannot be asked: empty, too long for the model, not text."""


class NotFoundError(M3IndexError):
    exit_code = Exit.NOT_FOUND


class CollectionNotFoundError(NotFoundError):
    """No collection behind that name."""


class ModelNotFoundError(NotFoundError):
    """No such model, or the hub that has it cannot be reached."""


class LockedError(M3IndexError):
    """Another run, or another process, holds the collection or the database file."""

    exit_code = Exit.LOCKED


class NotAuthorisedError(M3IndexError):
    exit_code = Exit.NOT_AUTHORISED


class MismatchError(M3IndexError):
    """The collection was made by another encoder space or another schema version."""

    exit_code = Exit.MISMATCH


class MissingHeadError(MismatchError):
    """The model has not the head that was asked for. Nothing is ever initialised at random."""


class DeletesWithheldError(M3IndexError):
    exit_code = Exit.DELETES_WITHHELD


class DriftError(M3IndexError):
    """Data or counts are not what they should be."""

    exit_code = Exit.DRIFT


class GateError(M3IndexError):
    """A quality gate refused."""

    exit_code = Exit.GATE


class StoppedError(M3IndexError):
    """Stopped on purpose before damage: disk space, or too many errors."""

    exit_code = Exit.STOPPED


class StoreError(M3IndexError):
    """The store refused a call for a reason that a retry does not mend."""


class RowRefusedError(StoreError):
    """The store refuses these rows' contents; their neighbours may be fine.

    `passage_ids` names the refused rows of the call; `reasons` says why, where they were given.
    """

    def __init__(self, message: str, passage_ids: Sequence[str] | Mapping[str, str] = ()) -> None:
        super().__init__(message)
        self.passage_ids = tuple(passage_ids)
        self.reasons: Mapping[str, str] = dict(passage_ids) if isinstance(passage_ids, Mapping) else {}


class UnreachableError(StoreError):
    """The store did not answer after retries."""

    exit_code = Exit.UNREACHABLE
