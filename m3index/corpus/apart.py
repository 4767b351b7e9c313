"""Reads large files in a process of its own, for streams where one core has enough to do with the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from m3index.corpus.hash import digests, with_digests
from m3index.corpus.places import DESCRIPTORS, File
from m3index.corpus.rows import FileReader, PassCounts, open_file
from m3index.process import Channel, Process, portable
from m3index.schema import JsonMetadata, metadata_json
from m3index.types import Document, Place, Rejected

LEAST = 4 * 1024 * 1024
"""The size in bytes from which a file is read apart: a process takes a fraction of a second to start."""

_ITEMS, _CHARACTERS = 256, 1_000_000
"""The bounds of what is sent at once."""

_Packed: TypeAlias = tuple[str, str, str, str, int | None, str, tuple[str, str]] | Rejected
"""The id, text, title, metadata as JSON, line, format and digests of a document; or a bad row."""


def is_read_apart(file: File) -> bool:
    """Whether reading this file is worth a process. An object store may be known to this process alone, and
    `/dev/fd/3` is another file in another process."""
    is_own = file.remote is not None or file.path.startswith(DESCRIPTORS)
    return not is_own and file.size is not None and file.size >= LEAST


class ReadingProcess:
    """Reads one file after the other. It starts with the first one."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._process: Process | None = None

    def items(self, file: File, counts: PassCounts) -> Iterator[Document | Rejected]:
        """`FileReader.items`, with digests of the documents. Raises EndedError if the process has ended."""
        if self._process is None:
            self._process = Process("m3index.corpus.apart:read_files", "reads the corpus")
            self._process.send(self._reader)
        self._process.send(file)
        while (answer := self._process.receive()) is not None:
            items, counts.meter.bytes, left_out = answer
            counts.left_out.update(left_out)
            for item in items:
                yield item if isinstance(item, Rejected) else _unpacked(file.path, *item)

    def close(self) -> None:
        """Ends the process, also in the middle of a file, where it may not write, and notice, for long."""
        if self._process is not None:
            self._process.kill()
            self._process.close()
        self._process = None


def read_files(channel: Channel) -> None:
    """What the process runs. Takes a FileReader, then files; answers with items and counts, at the end of a
    file with None, or an error."""
    reader: FileReader = channel.receive()
    while True:
        file: File = channel.receive()
        sender = _Sender(channel)
        end: Any = None
        try:
            for item in reader.items(file, sender.counts, open_file):
                sender.add(item)
        except Exception as error:
            end = portable(error)
        sender.flush()
        channel.send(end)


class _Sender:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._items: list[_Packed] = []
        self._characters = 0
        self.counts = PassCounts()

    def add(self, item: Document | Rejected) -> None:
        self._items.append(item if isinstance(item, Rejected) else _packed(item))
        self._characters += len(item.raw if isinstance(item, Rejected) else item.text)
        if len(self._items) == _ITEMS or self._characters >= _CHARACTERS:
            self.flush()

    def flush(self) -> None:
        counts = self.counts
        self._channel.send((self._items, counts.meter.bytes, dict(counts.left_out)))
        self._items, self._characters = [], 0
        counts.left_out.clear()


def _packed(document: Document) -> _Packed:
    line = None if document.place is None else document.place.line
    metadata = metadata_json(document.metadata)
    return (
        document.doc_id, document.text, document.title, metadata, line, document.format, digests(document)
    )  # fmt: skip


def _unpacked(
    path: str,
    doc_id: str,
    text: str,
    title: str,
    metadata: str,
    line: int | None,
    format: str,  # noqa: A002
    found: tuple[str, str],
) -> Document:
    document = Document(doc_id, text, title, JsonMetadata(metadata), Place(path, line), format)
    return with_digests(document, found)
