"""A digest of the files of a corpus, to tell a corpus that is byte for byte what it was."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from m3index.corpus.options import ROW_FORMATS
from m3index.corpus.places import STDIN, Entry, File, Skipped, Unlisted
from m3index.files import digest_of


@dataclass(frozen=True, slots=True)
class CorpusDigest:
    """text: in hexadecimal, of every file's name and bytes, and of how they are read. changed: when each file
    was last changed, in nanoseconds, and its size."""

    text: str
    changed: tuple[tuple[int, int], ...]


def corpus_digest(
    entries: Iterable[Entry], reading: str, on_skipped: Callable[[Skipped], None]
) -> CorpusDigest | None:
    """reading: everything else that determines the documents. on_skipped: is told what is not read.

    None for what cannot be read twice, or not without a transfer: pipes, object stores, files that cannot be
    read.
    """
    digest = hashlib.blake2b(reading.encode(), digest_size=16)
    changed: list[tuple[int, int]] = []
    parts: tuple[str, ...]
    for entry in entries:
        match entry:
            case File():
                try:
                    told = _told(entry)
                    content = None if told is None else digest_of(Path(entry.path))
                except OSError:
                    return None
                if told is None or content is None:
                    return None
                changed.append(told)
                # The document of a file that is one says when the file was changed.
                told_by_it = "" if entry.format in ROW_FORMATS else str(told[0])
                parts = (entry.name, entry.format, entry.compression, content, told_by_it)
            case Skipped():
                on_skipped(entry)
                parts = ("skipped", entry.name, entry.reason, "")
            case Unlisted():
                return None
            case _:
                parts = ("unmatched", entry.name, "", "")
        digest.update(repr(parts).encode("utf-8", "surrogateescape"))
    return CorpusDigest(digest.hexdigest(), tuple(changed))


def is_as_before(entries: Iterable[Entry], before: CorpusDigest) -> bool:
    """Whether no file was changed since its digest was made. Reads none of them."""
    try:
        return tuple(_told(entry) for entry in entries if isinstance(entry, File)) == before.changed
    except OSError:
        return False


def _told(file: File) -> tuple[int, int] | None:
    if file.remote is not None or file.path == STDIN:
        return None
    status = os.stat(file.path)
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
