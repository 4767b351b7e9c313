"""What a run reports while it works: one Reporter interface, for people (rich), for programs (JSON lines),
for a log, or silent."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from m3index.types import Rejected

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has got, in counts since its start. unit: what `documents` counts, if not documents.
    The share done is measured against `total` of these if that is known, else in bytes."""

    documents: int = 0
    passages: int = 0
    tokens: int = 0
    bytes_read: int = 0
    total_bytes: int | None = None
    total: int | None = None
    unit: str = "documents"

    @property
    def done(self) -> tuple[int, int | None]:
        """How much of how much; None for an unknown total."""
        if self.total is not None:
            return self.documents, self.total
        return self.bytes_read, self.total_bytes


class Reporter(Protocol):
    """verbose: whether it shows what `skipped` reports."""

    verbose: bool

    def stage(self, text: str) -> None:
        """A new part of the work begins."""
        ...

    def progress(self, progress: Progress) -> None: ...

    def rejected(self, rejected: Rejected) -> None:
        """A row went to the quarantine."""
        ...

    def skipped(self, path: str, reason: str) -> None:
        """A file or folder of a corpus is not read."""
        ...

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def error(self, message: str, code: int) -> None:
        """The run ends with this error."""
        ...

    def result(self, record: Mapping[str, Any]) -> None:
        """One record for programs: a hit, a difference, the summary. People get text instead."""
        ...

    def close(self) -> None: ...


class Silent:
    """Reports nothing. The base of the others."""

    verbose = False

    def stage(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def rejected(self, rejected: Rejected) -> None: ...

    def skipped(self, path: str, reason: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def error(self, message: str, code: int) -> None: ...

    def result(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Logged(Silent):
    """Writes to the logger `m3index`, for programs that use the library."""

    def __init__(self) -> None:
        self._log = logging.getLogger("m3index")

    def stage(self, text: str) -> None:
        self._log.debug("%s", one_line(text))

    def rejected(self, rejected: Rejected) -> None:
        verb = "could not read" if rejected.is_file else "quarantined"
        self._log.warning("%s", one_line(f"{verb} {rejected.place}: {rejected.reason}"))

    def note(self, text: str) -> None:
        self._log.info("%s", one_line(text))

    def warning(self, text: str) -> None:
        self._log.warning("%s", one_line(text))


class JsonLines(Silent):
    """JSON lines on stdout (`schemas/event.schema.json`), and nothing else there. Each has the time at which
    it was written and an id of the run.

    people: also gets what people must know in any case: rejected rows, warnings, errors. quiet: no progress.
    If stdout cannot be written, because its disk is full, `people` is told once and the run goes on.
    """

    def __init__(
        self,
        out: IO[str] | None = None,
        every: float = 1.0,
        *,
        quiet: bool = False,
        verbose: bool = False,
        people: Reporter | None = None,
    ) -> None:
        self.out = out or sys.stdout
        self.verbose = verbose
        self.every, self.quiet = every, quiet
        self.people = people or Silent()
        self.run = uuid.uuid4().hex[:12]
        self._next = time.monotonic() + every
        self._is_lost = False

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._is_lost:
            return
        time_utc = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"type": record["type"], "time": time_utc, "run": self.run, **record}
        try:
            self.out.write(json_line(line) + "\n")
            self.out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._is_lost = True
            discard(self.out)
            self.people.warning(f"The JSON lines cannot be written: {error.strerror}. The run goes on.")

    def stage(self, text: str) -> None:
        if not self.quiet:
            self._write({"type": "progress", "stage": text})

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next and not self.quiet:
            self._next = now + self.every
            self._write({"type": "progress", **asdict(progress)})

    def rejected(self, rejected: Rejected) -> None:
        self._write(
            {
                "type": "error",
                "path": rejected.place.path,
                "line": rejected.place.line,
                "doc_id": rejected.doc_id,
                "message": rejected.reason,
            }
        )
        self.people.rejected(rejected)

    def skipped(self, path: str, reason: str) -> None:
        self._write({"type": "skipped", "path": path, "reason": reason})

    def warning(self, text: str) -> None:
        self._write({"type": "warning", "message": text})
        self.people.warning(text)

    def error(self, message: str, code: int) -> None:
        self._write({"type": "error", "message": message, "exit": code})
        self.people.error(message, code)

    def result(self, record: Mapping[str, Any]) -> None:
        self._write(record)


def discard(stream: IO[str]) -> None:
    """Sends a stream that cannot be written to the null device, with what is still in its buffer."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


def json_line(record: Mapping[str, Any]) -> str:
    """The record as one line for every reader: line separators that JSON allows inside a string, and lone
    surrogates, are escaped."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    if line.isascii():
        return line
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False)
    return line.translate(_LINE_ENDS)


_LINES = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_CONTROLS = {c: "\ufffd" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def printable(text: str) -> str:
    """Replaces control characters, so that the contents of a corpus cannot control the terminal."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """A message on one line: names of files, ids and texts of other programs in it cannot pretend to be
    further messages."""
    return printable(text.translate(_LINES)).translate(_LINE_ENDS)


class Terminal(Silent):
    """For people, on stderr: a progress bar if it is a terminal, plain lines if it is not."""

    shown_rejections = 10

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._started = time.monotonic()
        self._rejected: Counter[str] = Counter()

    @cached_property
    def console(self) -> Console:
        """Made with the first message, because a command with --json mostly has none."""
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        console.soft_wrap = not console.is_terminal  # keeps each message on one line in a log
        return console

    def _say(self, text: str, style: str | None = None) -> None:
        try:
            self.console.print(one_line(text), style=style, markup=False)
        except BrokenPipeError:
            raise
        except OSError:  # a full disk: there is nobody left to tell
            discard(sys.stderr)

    def stage(self, text: str) -> None:
        self.close()
        if not self.quiet:
            self._say(text, "dim")

    def progress(self, progress: Progress) -> None:
        if self.quiet or not self.console.is_terminal:
            return
        if self._bar is None:
            self._bar, self._task = self._open_bar(progress)
        seconds = max(time.monotonic() - self._started, 1e-9)
        done, total = progress.done
        rate = f"{progress.tokens / seconds:,.0f} tokens/s" if progress.tokens else ""
        counted = f"{progress.documents:,} {progress.unit}"
        self._bar.update(self._task, total=total, completed=done, counted=counted, rate=rate)

    def _open_bar(self, progress: Progress) -> tuple[RichProgress, Any]:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._started = time.monotonic()
        total = progress.done[1]
        ends = [BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn()]
        bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.fields[counted]}"),
            TextColumn("{task.fields[rate]}"),
            *(ends if total is not None else []),
            console=self.console,
            transient=True,
        )
        bar.start()
        return bar, bar.add_task("", total=total, counted="", rate="")

    def rejected(self, rejected: Rejected) -> None:
        what = "files that could not be read" if rejected.is_file else "quarantined rows"
        self._rejected[what] += 1
        if self._rejected[what] <= self.shown_rejections:
            place, doc_id = rejected.place, rejected.doc_id
            is_named = doc_id is None or place.line is not None or place.path.endswith(doc_id)
            which = "" if is_named else f", id {doc_id!r}"
            verb = "could not read" if rejected.is_file else "quarantined"
            self._say(f"{verb} {rejected.place}{which}: {rejected.reason}", "yellow")
        elif self._rejected[what] == self.shown_rejections + 1:
            self._say(f"further {what} are not shown here", "yellow")

    def skipped(self, path: str, reason: str) -> None:
        self._say(f"skipped {path}: {reason}", "dim")

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(text)

    def warning(self, text: str) -> None:
        self._say(f"warning: {text}", "yellow")

    def error(self, message: str, code: int) -> None:  # noqa: ARG002  (the process exits with it)
        self.close()
        self._say(f"error: {message}", "red")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
