"""Reads files of strangers in a child process with limits on time and memory.

A file that makes a library crash, hang or take all memory ends that process, and is a bad file; the next one
gets a new process. Its answers are JSON, so that not even a process that a file has taken over can do more
than give a wrong text.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeVar

from m3index.documents.kinds import MAX_TEXT, BadFileError, Extracted, ParsedType
from m3index.process import Channel, EndedError, Process

T = TypeVar("T")

SECONDS = 120.0
"""The limit for reading one file."""
MEMORY = 2 * 1024**3
"""The limit for the memory of the process, in bytes of address space."""
FILES = 200
"""The number of files after which a new process takes over, so that no leak grows."""

MOST = 4
"""The number of processes at most: more read faster than texts are encoded."""
_ANSWER = 4 * MAX_TEXT + 16 * 1024**2

_READERS: dict[ParsedType, str] = {
    "html": "html:read",
    "pdf": "pdf:read",
    "docx": "office:docx",
    "pptx": "office:pptx",
    "xlsx": "office:xlsx",
    "odt": "office:odt",
    "rst": "rst:read",
    "epub": "epub:read",
    "eml": "mail:read",
}


class DocumentReader:
    """The process, started with the first file."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._process: Process | None = None
        self._files = 0
        self._crashed, self._stopped = "", False

    def read(self, kind: ParsedType, data: bytes) -> Extracted:
        """Raises BadFileError with the reason if the file cannot be read."""
        if self._files >= FILES:
            self.close()
        used = self._files > 0
        answer, reason = self._ask(kind, data)
        if (
            answer is None and used and not reason and not self._stopped
        ):  # what files before it left behind may be the cause
            answer, reason = self._ask(kind, data)
        if answer is None:
            raise BadFileError(reason or self._crashed)
        if "reason" in answer:
            raise BadFileError(str(answer["reason"]))
        return Extracted(str(answer["text"]), str(answer["title"]), dict(answer["metadata"]))

    def close(self) -> None:
        process, self._process, self._files = self._process, None, 0
        if process is not None:
            process.close()

    def stop(self) -> None:
        """Ends what it reads, from another thread. It reads nothing after that."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, kind: ParsedType, data: bytes) -> tuple[dict[str, Any] | None, str]:
        """The answer; or None with the reason, empty if the process ended by itself."""
        is_new = self._process is None
        if self._process is None:
            self._process = Process("m3index.documents.reader:answer", "reads documents")
        if self._stopped:
            self._process.kill()
        process, late = self._process, threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._seconds, end)
        timer.daemon = True
        timer.start()
        try:
            if is_new:
                process.send(self._memory)
            process.send((kind, data))
            self._files += 1
            answer: dict[str, Any] = json.loads(process.receive_bytes(_ANSWER))
        except EndedError as error:
            self.close()
            if late.is_set():
                return None, f"reading it takes more than {self._seconds:g} s"
            self._crashed = (
                f"the library that reads it crashed (exit status {error.status}), perhaps because it needs "
                f"more than {self._memory / 2**30:g} GiB of memory"
            )
            return None, ""
        finally:
            timer.cancel()
        return answer, ""


class DocumentReaders:
    """Several processes that read files at the same time. count: how many; by default one less than there are
    processors, at most four."""

    def __init__(self, count: int | None = None) -> None:
        self.count = min(MOST, max(1, (os.cpu_count() or 1) - 1)) if count is None else count
        self._readers: list[DocumentReader] = []
        self._free: queue.SimpleQueue[DocumentReader] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, task: Callable[[DocumentReader], T]) -> Future[T]:
        """Does the task with a process, as soon as one is free."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.count, "m3index-documents")
            self._readers = [DocumentReader() for _ in range(self.count)]
            for reader in self._readers:
                self._free.put(reader)

        def work() -> T:
            reader = self._free.get()
            try:
                return task(reader)
            finally:
                self._free.put(reader)

        return self._threads.submit(work)

    def close(self) -> None:
        """Ends the processes, also those that are at work."""
        if self._threads is None:
            return
        self._threads.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.stop()
        self._threads.shutdown()
        for reader in self._readers:
            reader.close()


def answer(channel: Channel) -> None:
    """What the process does."""
    nowhere = os.open(os.devnull, os.O_WRONLY)  # what libraries print of a file is for nobody
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    memory = channel.receive()
    _limit(memory)
    while True:
        kind, data = channel.receive()
        channel.send_bytes(
            json.dumps(_answer(kind, data, memory), ensure_ascii=False).encode("utf-8", "replace")
        )


def _limit(memory: int) -> None:
    import resource

    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        with suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(kind: ParsedType, data: bytes, memory: int) -> dict[str, Any]:
    try:
        module, _, function = _READERS[kind].partition(":")
        read: Callable[[bytes], Extracted] = getattr(import_module(f"m3index.documents.{module}"), function)
        found = read(data)
    except BadFileError as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"reason": f"reading it needs more than {memory / 2**30:g} GiB of memory"}
    except RecursionError:
        return {"reason": "it is nested too deep"}
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        return {"reason": f"it cannot be read as {kind}: {said or type(error).__name__}"}
    if len(found.text) > MAX_TEXT:
        return {"reason": f"its text is longer than {MAX_TEXT:,} characters"}
    return {"text": _whole(found.text), "title": _whole(found.title), "metadata": dict(found.metadata)}


def _whole(text: str) -> str:
    """Without NUL, and without halves of characters, which a broken file can hold."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
