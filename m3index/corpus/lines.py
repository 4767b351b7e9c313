"""Bytes -> lines, from files and standard input, with gzip and zstd decompressed and every buffer bounded."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, NamedTuple

from m3index.errors import UsageError

MAX_LINE = 64 * 1024 * 1024
"""The default limit for one line, one CSV record or one plain text file, in bytes."""

KEPT = 1024 * 1024
"""How much of a rejected row is kept for the quarantine."""

_BLOCK = 256 * 1024
_PIECE = 32 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")


class UnreadableError(Exception):
    """A file that cannot be read at all or to its end. The message is the reason. It never leaves corpus/."""


class NoCorpusError(Exception):
    """A file whose type corpora have, and that is none, such as the settings of a program in JSON. The
    message is the reason to skip it. It never leaves corpus/."""


class Line(NamedTuple):
    """A line with its line ending. cut: it exceeds the limit, and only its beginning is here."""

    number: int
    data: bytes
    cut: bool = False


class Meter:
    """Counts the bytes read, before decompression."""

    def __init__(self) -> None:
        self.bytes = 0


class _Metered(io.RawIOBase):
    """A binary source that counts its bytes and lets the first ones be inspected without consuming them.

    It returns whatever is available, so that a slow pipe is read as its data arrives.
    """

    def __init__(self, source: BinaryIO, meter: Meter) -> None:
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self._meter = meter
        self.head = b""
        while len(self.head) < 4 and (more := self._read(4 - len(self.head))):
            self.head += more
        self._pending = self.head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._pending[: len(buffer)] or self._read(len(buffer))
        self._pending = self._pending[len(data) :]
        self._meter.bytes += len(data)
        buffer[: len(data)] = data
        return len(data)


class _Piecewise(io.RawIOBase):
    """A decompressor that is read in small pieces, so that everything before damaged data is still read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._read(min(len(buffer), _PIECE))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_bytes(source: BinaryIO, meter: Meter, compression: str = "") -> Iterator[io.BufferedReader[Any]]:
    """The source's bytes, decompressed if they start like gzip or zstd data, which no text does.

    compression: what the file's name promises (`.gz`, `.zst`, or nothing). Raises UnreadableError if the
    content is something else, such as the empty `.gz` that a broken copy leaves behind.
    """
    raw = _Metered(source, meter)
    plain = io.BufferedReader(raw, _BLOCK)
    if raw.head.startswith(_GZIP):
        yield io.BufferedReader(_Piecewise(gzip.GzipFile(fileobj=plain).read1), _BLOCK)
    elif raw.head == _ZSTD:
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.PythonFile(plain, mode="r"), "zstd")
        yield io.BufferedReader(_Piecewise(stream.read), _BLOCK)
    elif compression:
        what = "gzip" if compression == ".gz" else "zstd"
        raise UnreadableError(f"its name ends in {compression}, but it does not hold {what} data")
    elif encoding := _other_encoding(raw.head):
        raise UnreadableError(f"it is {encoding}; convert it to UTF-8 (iconv -f {encoding} -t UTF-8)")
    else:
        yield plain


def _other_encoding(head: bytes) -> str:
    """The encoding that the first four bytes show; empty if they may be UTF-8, whose texts hold no NUL."""
    if head in _UTF32:
        return "UTF-32"
    if head.startswith(_UTF16):
        return "UTF-16"
    where = "".join("0" if byte == 0 else "x" for byte in head)
    return {"x000": "UTF-32LE", "000x": "UTF-32BE", "x0x0": "UTF-16LE", "0x0x": "UTF-16BE"}.get(where, "")


@contextmanager
def reading() -> Iterator[None]:
    """Turns the exceptions that a broken file raises into UnreadableError."""
    try:
        yield
    except EOFError:
        raise UnreadableError("the gzip data ends too early") from None
    except zlib.error as error:
        raise UnreadableError(f"the gzip data is damaged ({error})") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None


def lines(stream: io.BufferedReader, limit: int) -> Iterator[Line]:
    """Splits at newlines only. A line over the limit is yielded once, cut, and the rest of it is skipped.

    Holds one line of at most `limit` bytes. Raises UnreadableError.
    """
    number = 0
    with reading():
        while data := stream.readline(limit + 1):
            number += 1
            if number == 1:
                data = data.removeprefix(_BOM)
            if len(data) <= limit or data.endswith(b"\n"):
                yield Line(number, data)
                continue
            yield Line(number, data[:KEPT], cut=True)
            del data
            while (rest := stream.readline(_BLOCK)) and not rest.endswith(b"\n"):
                pass


def text_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """The lines of a text file (with gzip and zstd too), or of standard input for `-`, that are not blank,
    numbered from 1, without their line ending.

    For queries, judgements, runs and lists of ids. Only a line feed ends a line, because an id or a JSON
    string can contain the other separators that `str.splitlines` recognises; a byte order mark at the
    beginning is dropped. Raises UsageError.
    """
    name = os.fspath(path)
    try:
        with ExitStack() as stack:
            source = standard_input() if name == "-" else stack.enter_context(open(name, "rb"))
            stream = stack.enter_context(open_bytes(source, Meter()))
            for line in lines(stream, MAX_LINE):
                if line.cut:
                    raise UsageError(f"{name}:{line.number} is longer than {MAX_LINE:,} bytes.")
                text = line.data.decode("utf-8").rstrip("\r\n")
                if text.strip():
                    yield line.number, text
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text.") from None
    except (UnreadableError, OSError) as error:
        raise UsageError(f"{name} cannot be read: {error}.") from None


def standard_input() -> BinaryIO:
    """Standard input as bytes. Raises UsageError if it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("Standard input is closed; name a file, or connect it.")
    return sys.stdin.buffer
