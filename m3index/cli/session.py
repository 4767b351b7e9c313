"""The frame of every command: reporter, confirmation, errors with exit codes, and the last line of JSON."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import typer

from m3index.addresses import redacted_text
from m3index.cli.stdin import stoppable
from m3index.errors import Exit, M3IndexError, UsageError
from m3index.progress import JsonLines, Reporter, Terminal, discard

LEAVE_SECONDS = 5.0
"""How long a run may take to end after a second signal. A call to a silent store cannot be interrupted."""


class SignalStop:
    """True after SIGINT or SIGTERM: the run completes the current batch. A second signal interrupts it, and
    ends the process if that does not help."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def listening(self, reporter: Reporter) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        leave = _Leaving(reporter, lambda: self.exit)
        with stoppable() as stdin:

            def on_signal(number: int, _frame: FrameType | None) -> None:
                if self.signal is not None:
                    leave.start()
                    raise KeyboardInterrupt
                self.signal = number
                reporter.note("Stopping after the current batch. Press Ctrl-C again to stop immediately.")
                if stdin is not None:
                    stdin.stop()

            previous = [signal.signal(number, on_signal) for number in numbers]
            try:
                yield
            finally:
                for number, handler in zip(numbers, previous, strict=True):
                    signal.signal(number, handler)

    @property
    def exit(self) -> Exit:
        return Exit.TERMINATED if self.signal == signal.SIGTERM else Exit.INTERRUPTED


class _Leaving:
    """Ends the process after a while, whatever it does; the next run puts in order what that leaves."""

    def __init__(self, reporter: Reporter, code: Callable[[], Exit]) -> None:
        self._reporter, self._code = reporter, code
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(LEAVE_SECONDS, self._leave)
            self._timer.daemon = True
            self._timer.start()

    def _leave(self) -> None:
        code = self._code()
        self._reporter.error("interrupted", int(code))
        sys.stdout.flush()
        os._exit(int(code))


class Declined(Exception):
    """The user answered no."""


def is_interactive() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> None:
    """Asks before something is removed. Raises UsageError without a terminal, Declined for a no, and
    typer.Abort for Ctrl-C."""
    if not is_interactive():
        raise UsageError(f"{question} Confirm with --yes.")
    if not typer.confirm(question, err=True):
        raise Declined


class _EncoderLog(logging.Handler):
    """Reports what the encoder logs while it loads: a model that is converted, one that encodes slowly."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        say = self._reporter.warning if record.levelno >= logging.WARNING else self._reporter.stage
        say(record.getMessage())

    @contextmanager
    def attached(self) -> Iterator[None]:
        logger = logging.getLogger("m3index.encoder")
        level, propagates = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagates


class Outcome(Protocol):
    """The result of a command, including its exit code."""

    def to_json(self) -> dict[str, Any]: ...


class Session:
    """One run of a command. exit, summary: its result. explicit: the names of options that are set by a
    flag, a variable or the configuration file.

    texts: the values of those options, not checked yet, so that a run with a wrong one is reported too.
    collection: the collection that the command works on.
    """

    def __init__(self, command: str, texts: Mapping[str, Any], collection: str | None = None) -> None:
        self.command = command
        self.explicit = frozenset(texts)
        self.as_json = as_json = bool(texts.get("json"))
        quiet = bool(texts.get("quiet"))
        verbose = bool(texts.get("verbose"))
        people = Terminal(quiet=quiet or as_json, verbose=verbose and not as_json)
        self.reporter: Reporter = (
            JsonLines(quiet=quiet, verbose=verbose, people=people) if as_json else people
        )
        self.stop = SignalStop()
        self.exit: Exit = Exit.OK
        self.summary: dict[str, Any] = {} if collection is None else {"collection": collection}
        self.metrics_file: str | None = texts.get("metrics_file")
        self.started = time.perf_counter()

    def outcome(self, outcome: Outcome) -> None:
        """Reports the result of a run: its counts become the last line of JSON, and sentences for people."""
        record = outcome.to_json()
        self.exit = Exit(record["exit"])
        self.summary |= {name: value for name, value in record.items() if name not in ("type", "command")}
        if not self.as_json:
            from m3index.cli.sentences import sentences

            for line in sentences(record):
                self.reporter.note(line)

    def close(self) -> None:
        self.reporter.close()
        if self.metrics_file is not None:
            self._write_metrics(self.metrics_file)
        if self.as_json:
            seconds = round(time.perf_counter() - self.started, 3)
            base = {"type": "summary", "command": self.command, "seconds": seconds}
            self.reporter.result({**base, **self.summary, "exit": int(self.exit)})

    def _write_metrics(self, path: str) -> None:
        from m3index.index.metrics import write_metrics

        seconds = round(time.perf_counter() - self.started, 3)
        record = {"seconds": seconds, **self.summary, "exit": int(self.exit)}
        try:
            write_metrics(Path(path), {"command": self.command, **record})
        except M3IndexError as error:
            self.exit = self.exit or error.exit_code
            self.reporter.error(str(error), int(error.exit_code))


@contextmanager
def session(command: str, texts: Mapping[str, Any], collection: str | None = None) -> Iterator[Session]:
    """Runs the body of a command, reports its errors and exits with their codes (docs/architecture.md)."""
    run = Session(command, texts, collection)
    try:
        try:
            with _EncoderLog(run.reporter).attached():
                yield run
        except M3IndexError as error:
            run.exit = error.exit_code
            run.summary |= {k: v for k, v in (error.summary or {}).items() if k not in ("type", "command")}
            run.reporter.error(str(error), int(error.exit_code))
        except Declined:
            run.summary = {}
            run.reporter.note("Nothing was removed.")
        except (KeyboardInterrupt, typer.Abort):  # typer turns Ctrl-C at a question into Abort
            run.exit = run.stop.exit
            run.reporter.error("interrupted", int(run.exit))
        except (BrokenPipeError, typer.Exit):
            raise
        except Exception as error:
            if isinstance(error, OSError) and _is_full(error):
                raise
            run.exit = Exit.UNEXPECTED
            said = redacted_text(f"unexpected error: {type(error).__name__}: {error}")
            run.reporter.error(said, int(run.exit))
            if os.environ.get("M3INDEX_TRACEBACK"):
                traceback.print_exc()
            else:
                run.reporter.note("Please report it, with the traceback that M3INDEX_TRACEBACK=1 shows.")
        run.close()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has closed it
        discard(sys.stdout)
        raise typer.Exit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if not _is_full(error):
            raise
        discard(sys.stdout)
        run.exit = Exit.STOPPED
        run.reporter.error(f"The output cannot be written: {error.strerror}.", int(run.exit))
    if run.exit:
        raise typer.Exit(int(run.exit))


def _is_full(error: OSError) -> bool:
    """Whether a write to standard output failed because its disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None
