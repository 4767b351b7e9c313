"""The exceptions of m3index and the exit codes of the command line.

A message consists of one or two plain sentences: what is wrong, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Self


class Exit(IntEnum):
    """The exit codes of the commands with their meanings."""

    OK = 0, "done"
    UNEXPECTED = 1, "unexpected error"
    USAGE = 2, "invalid usage or filter"
    QUARANTINED = 3, "done, but rows were quarantined"
    NOT_FOUND = 10, "collection, model or document not found"
    LOCKED = 11, "locked by another run or process"
    NOT_AUTHORISED = 12, "not authorised"
    MISMATCH = 13, "encoder or collection mismatch"
    DELETES_WITHHELD = (
        14,
        "deletions withheld (limit, read error or rows without id; takes precedence over 3)",
    )
    DRIFT = 15, "data or counts differ"
    GATE = 16, "quality gate failed"
    STOPPED = 17, "failed: low disk space, nothing usable, or more bad rows than --max-errors"
    UNREACHABLE = 20, "store unreachable after retries"
    INTERRUPTED = 130, "interrupted (SIGINT)"
    TERMINATED = 143, "terminated (SIGTERM)"

    meaning: str

    def __new__(cls, code: int, meaning: str = "") -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


def decide(
    *, stopped: Exit | None = None, drift: bool = False, withheld: bool = False, quarantined: bool = False
) -> Exit:
    """The exit code of a run that raised no error; the most serious outcome determines it.

    stopped: the code of what ended the run early, if anything did.
    """
    if stopped is not None:
        return stopped
    if drift:
        return Exit.DRIFT
    if withheld:
        return Exit.DELETES_WITHHELD
    return Exit.QUARANTINED if quarantined else Exit.OK


SUCCESS = frozenset({Exit.OK, Exit.QUARANTINED})
"""The codes of a successful run: it updates `last_success` and needs no alert."""


class M3IndexError(Exception):
    """The base class of all errors that m3index raises deliberately.

    summary: what a run did before the error, in the form of the run summary.
    """

    exit_code: Exit = Exit.UNEXPECTED
    summary: Mapping[str, Any] | None = None


class UsageError(M3IndexError):
    """The request is invalid: a missing file, a wrong option or a wrong value."""

    exit_code = Exit.USAGE


class FilterError(UsageError):
    """The filter cannot be parsed or names an unknown field."""


class QueryError(UsageError):
    """The query is empty, too long for the model, or not text."""


class NotFoundError(M3IndexError):
    """Something that was named does not exist."""

    exit_code = Exit.NOT_FOUND


class CollectionNotFoundError(NotFoundError):
    """There is no collection with this name."""


class ModelNotFoundError(NotFoundError):
    """The model does not exist, or its hub cannot be reached."""


class LockedError(M3IndexError):
    """Another run holds the collection, or another process the database file."""

    exit_code = Exit.LOCKED


class NotAuthorisedError(M3IndexError):
    """The server rejected the credentials."""

    exit_code = Exit.NOT_AUTHORISED


class MismatchError(M3IndexError):
    """The collection has another encoder space, schema version or layout."""

    exit_code = Exit.MISMATCH


class MissingHeadError(MismatchError):
    """The model lacks a required head; missing heads are never initialised randomly."""


class DeletesWithheldError(M3IndexError):
    """Too many documents would be lost."""

    exit_code = Exit.DELETES_WITHHELD


class DriftError(M3IndexError):
    """Data or counts differ from what is expected."""

    exit_code = Exit.DRIFT


class GateError(M3IndexError):
    """The new generation did not pass the quality gate."""

    exit_code = Exit.GATE


class StoppedError(M3IndexError):
    """The run was stopped to prevent damage: low disk space or too many bad rows."""

    exit_code = Exit.STOPPED


class StoreError(M3IndexError):
    """The store refused a call, and a retry would not help."""


class RowRefusedError(StoreError):
    """The store refused the contents of some rows of a call.

    passage_ids: the refused rows. reasons: the reason for each, if known.
    """

    def __init__(self, message: str, passage_ids: Sequence[str] | Mapping[str, str] = ()) -> None:
        super().__init__(message)
        self.passage_ids = tuple(passage_ids)
        self.reasons: Mapping[str, str] = dict(passage_ids) if isinstance(passage_ids, Mapping) else {}


class UnreachableError(StoreError):
    """The store did not respond after retries."""

    exit_code = Exit.UNREACHABLE
