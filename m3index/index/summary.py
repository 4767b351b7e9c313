"""What a run did, in the form of its last JSON line, and the exit code that follows from it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from m3index.errors import Exit
from m3index.index.plan import Change, Window


@dataclass(frozen=True, slots=True)
class Summary:
    """The run summary. Counts of documents, except `passages` (written), `tokens` (encoded) and
    `store_count` (rows of the collection; None where a run failed before it counted them)."""

    command: str
    collection: str
    encoder: str
    scanned: int
    added: int
    updated: int
    metadata_only: int
    unchanged: int
    deleted: int
    quarantined: int
    deletes_withheld: int
    passages: int
    tokens: int
    seconds: float
    generation: int
    store_count: int | None
    count_ok: bool | None
    exit: int

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", **asdict(self)}


@dataclass(slots=True)
class Tally:
    """A summary in the making.

    pending: documents met that are still to be written. row_delta: rows that this run added less those
    that it removed. rows: rows that the collection should hold of the documents met. encoding_seconds:
    in the encoder.
    """

    scanned: int = 0
    added: int = 0
    updated: int = 0
    metadata_only: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    deletes_withheld: int = 0
    passages: int = 0
    tokens: int = 0
    encoding_seconds: float = 0.0
    pending: int = 0
    row_delta: int = 0
    rows: int = 0
    stopped: Exit | None = None
    started: float = field(default_factory=time.monotonic)

    def note(self, window: Window) -> None:
        """Takes in what a window says without its documents being written."""
        self.scanned += window.scanned
        self.unchanged += window.unchanged
        self.rows += window.rows
        self.pending += len(window.planned)

    @property
    def finished(self) -> int:
        """Documents that this run has done with."""
        return self.scanned - self.pending

    def count(self, change: Change) -> None:
        match change:
            case Change.ADDED:
                self.added += 1
            case Change.UPDATED:
                self.updated += 1
            case Change.METADATA:
                self.metadata_only += 1

    def exit(self, count_ok: bool) -> Exit:
        """The one place where the outcome of a run becomes its exit code: the gravest wins."""
        if self.stopped is not None:
            return self.stopped
        if not count_ok:
            return Exit.DRIFT
        if self.deletes_withheld:
            return Exit.DELETES_WITHHELD
        return Exit.QUARANTINED if self.quarantined else Exit.OK

    def summary(
        self,
        command: str,
        collection: str,
        encoder: str,
        generation: int,
        store_count: int | None,
        *,
        count_ok: bool | None,
        exit_code: Exit | None = None,
    ) -> Summary:
        return Summary(
            command=command,
            collection=collection,
            encoder=encoder,
            scanned=self.scanned,
            added=self.added,
            updated=self.updated,
            metadata_only=self.metadata_only,
            unchanged=self.unchanged,
            deleted=self.deleted,
            quarantined=self.quarantined,
            deletes_withheld=self.deletes_withheld,
            passages=self.passages,
            tokens=self.tokens,
            seconds=round(time.monotonic() - self.started, 3),
            generation=generation,
            store_count=store_count,
            count_ok=count_ok,
            exit=int(self.exit(count_ok is not False) if exit_code is None else exit_code),
        )
