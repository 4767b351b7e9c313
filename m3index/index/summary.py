"""The outcome of a run, or of a dry run, as in its last line of JSON, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from m3index.errors import Exit, decide
from m3index.index.plan import Change, Window
from m3index.progress import Reporter


@dataclass(frozen=True, slots=True)
class Summary:
    """The run summary. Counts documents, except `passages` (written), `passages_kept` (those of them with the
    vectors that were stored, because what is encoded has not changed), `tokens` (encoded), `store_count`
    (rows of the collection; None if the run did not count them) and `skipped` (files and folders that were
    not read, by reason).

    dry_run: nothing was written; `tokens` and `passages` are estimates and `seconds` is the encoding time at
    the rate of the last run (None without one).
    """

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
    skipped: Mapping[str, int]
    passages: int
    passages_kept: int
    tokens: int
    seconds: float | None
    generation: int | None
    store_count: int | None
    count_ok: bool | None
    dry_run: bool
    exit: int

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", **asdict(self)}


@dataclass(slots=True)
class Tally:
    """The counts of a run in progress.

    pending: documents that were read but not yet written. row_delta: rows added minus rows removed. rows: the
    rows that the collection should hold of the documents read. drifted: documents that had lost
    rows, or whose rows disagree still. encoding_seconds: time spent encoding.
    """

    scanned: int = 0
    added: int = 0
    updated: int = 0
    metadata_only: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    deletes_withheld: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    passages: int = 0
    passages_kept: int = 0
    tokens: int = 0
    encoding_seconds: float = 0.0
    pending: int = 0
    row_delta: int = 0
    rows: int = 0
    drifted: int = 0
    stopped: Exit | None = None
    started: float = field(default_factory=time.monotonic)

    def note(self, window: Window) -> None:
        """Adds the counts of a window whose planned documents are not written yet."""
        self.scanned += window.scanned
        self.unchanged += window.unchanged
        self.rows += window.rows
        self.pending += len(window.planned)

    @property
    def finished(self) -> int:
        """The number of documents this run has finished."""
        return self.scanned - self.pending

    def count(self, change: Change) -> None:
        match change:
            case Change.ADDED:
                self.added += 1
            case Change.UPDATED:
                self.updated += 1
            case Change.METADATA:
                self.metadata_only += 1

    def fail(self, reason: str, reporter: Reporter) -> None:
        """Makes this run end as failed and says why; does nothing without a reason, or if it ends anyway."""
        if reason and self.stopped is None:
            self.stopped = Exit.STOPPED
            reporter.warning(reason)

    def exit(self, count_ok: bool) -> Exit:
        return decide(
            stopped=self.stopped,
            drift=not count_ok or bool(self.drifted),
            withheld=bool(self.deletes_withheld),
            quarantined=bool(self.quarantined),
        )

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
        dry_run: bool = False,
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
            skipped=self.skipped,
            passages=self.passages,
            passages_kept=self.passages_kept,
            tokens=self.tokens,
            seconds=round(time.monotonic() - self.started, 3),
            generation=generation,
            store_count=store_count,
            count_ok=count_ok,
            dry_run=dry_run,
            exit=int(self.exit(count_ok is not False) if exit_code is None else exit_code),
        )
