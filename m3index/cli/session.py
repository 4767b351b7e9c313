"""Around every command: the reporter, the errors and their exit codes, the last line of JSON."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import typer

from m3index.cli.stdin import stoppable
from m3index.errors import Exit, M3IndexError
from m3index.progress import JsonLines, Reporter, Terminal


class Stop:
    """True once SIGINT or SIGTERM came: the run finishes the batch in hand. A second one interrupts."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def listening(self, reporter: Reporter) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        with stoppable() as stdin:

            def on_signal(number: int, _frame: FrameType | None) -> None:
                if self.signal is not None:
                    raise KeyboardInterrupt
                self.signal = number
                reporter.note("stopping after the batch in hand; once more to stop at once")
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


class Outcome(Protocol):
    """What a command comes to, `exit` among it."""

    def to_json(self) -> dict[str, Any]: ...


class Session:
    """One run of one command. `exit` and `summary` are what it ends with."""

    def __init__(self, command: str, *, as_json: bool, quiet: bool) -> None:
        self.command = command
        self.as_json = as_json
        self.reporter: Reporter = JsonLines() if as_json else Terminal(quiet=quiet)
        self.stop = Stop()
        self.exit: Exit = Exit.OK
        self.summary: dict[str, Any] = {}
        self.metrics_file: Path | None = None
        self.started = time.perf_counter()

    def outcome(self, found: Outcome, *, planned: bool = False) -> None:
        """What the run came to, or would: its counts are the last line of JSON, or are told to a person."""
        record = found.to_json()
        self.exit = Exit(record["exit"])
        self.summary |= {name: value for name, value in record.items() if name not in ("type", "command")}
        if not self.as_json:
            from m3index.cli.words import sentences

            for line in sentences(record, planned=planned):
                self.reporter.note(line)

    def close(self) -> None:
        self.reporter.close()
        if self.metrics_file is not None:
            self._write_metrics(self.metrics_file)
        if self.as_json:
            seconds = round(time.perf_counter() - self.started, 3)
            base = {"type": "summary", "command": self.command, "seconds": seconds}
            self.reporter.result({**base, **self.summary, "exit": int(self.exit)})

    def _write_metrics(self, path: Path) -> None:
        from m3index.index.metrics import write_metrics

        seconds = round(time.perf_counter() - self.started, 3)
        record = {"collection": "", "seconds": seconds, **self.summary, "exit": int(self.exit)}
        try:
            write_metrics(path, {"command": self.command, **record})
        except M3IndexError as error:
            self.exit = self.exit or error.exit_code
            self.reporter.error(str(error), int(error.exit_code))


@contextmanager
def session(command: str, *, as_json: bool = False, quiet: bool = False) -> Iterator[Session]:
    """Runs a command's body; leaves with the exit code of docs/architecture.md."""
    run = Session(command, as_json=as_json, quiet=quiet)
    try:
        try:
            yield run
        except M3IndexError as error:
            run.exit = error.exit_code
            run.summary |= {k: v for k, v in (error.summary or {}).items() if k not in ("type", "command")}
            run.reporter.error(str(error), int(error.exit_code))
        except KeyboardInterrupt:
            run.exit = run.stop.exit
            run.reporter.error("interrupted", int(run.exit))
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            run.exit = Exit.UNEXPECTED
            run.reporter.error(f"unexpected: {type(error).__name__}: {error}", int(run.exit))
            if os.environ.get("M3INDEX_TRACEBACK"):
                traceback.print_exc()
            else:
                run.reporter.note("Set M3INDEX_TRACEBACK=1 to see where, and report it, please.")
        run.close()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has left: nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from None
    if run.exit:
        raise typer.Exit(int(run.exit))
