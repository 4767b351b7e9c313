"""One file -> its documents, and the rows that are none."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeAlias

from m3index.corpus import formats
from m3index.corpus.formats import Parsed, Rows
from m3index.corpus.lines import Meter, open_bytes, reading
from m3index.corpus.mapping import STANDARD, FieldMapping, RowError
from m3index.corpus.places import File
from m3index.types import Document, FieldType, Rejected

Opener: TypeAlias = Callable[[File], AbstractContextManager[BinaryIO]]


@dataclass(slots=True)
class PassCounts:
    """What is counted while files are read. left_out: keys with embeddings, which are not metadata."""

    meter: Meter = field(default_factory=Meter)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class FileReader:
    """How files are read. fields: the declared types, for the cells of CSV files. max_line: the limit in
    bytes for a row. encoding: of CSV files and texts, if it is not UTF-8."""

    mapping: FieldMapping
    fields: Mapping[str, FieldType]
    max_line: int
    encoding: str | None

    def items(self, file: File, counts: PassCounts, open_: Opener) -> Iterator[Document | Rejected]:
        """Raises UnreadableError, NoCorpusError."""
        for row in self._rows(file, counts.meter, open_):
            yield self.item(row, counts.left_out)

    def item(self, row: Parsed | Rejected, left_out: Counter[str]) -> Document | Rejected:
        if isinstance(row, Rejected):
            return row
        mapping = STANDARD if row.standard else self.mapping
        try:
            document = mapping.document(row.row, row.place, left_out)
            return replace(document, format=row.format) if row.format else document
        except RowError as error:
            raw = json.dumps(row.row, ensure_ascii=False) if row.raw is None else row.raw
            return formats.reject(row.place, error.reason, raw, error.doc_id)

    def _rows(self, file: File, meter: Meter, open_: Opener) -> Rows:
        if file.format == "parquet":
            yield from formats.parquet(file, self.mapping, self.fields, self.max_line, _advance(meter, file))
            return
        with reading(), open_(file) as source, open_bytes(source, meter, file.compression) as stream:
            match file.format:
                case "jsonl":
                    yield from formats.jsonl(stream, file.path, self.max_line)
                case "json":
                    yield from formats.json_array(stream, file.path, self.max_line, self.mapping)
                case "text" | "markdown":
                    yield from formats.text(stream, file, self.max_line, self.encoding)
                case "csv" | "tsv":
                    yield from formats.delimited(
                        stream,
                        file,
                        self.max_line,
                        mapping=self.mapping,
                        fields=self.fields,
                        encoding=self.encoding,
                    )


def open_file(file: File) -> AbstractContextManager[BinaryIO]:
    """The bytes of a file on a disk or in an object store."""
    if file.remote is not None:
        return file.remote.stream()
    return open(file.path, "rb", buffering=0, opener=None if file.size is None else _without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    """Opens what was a regular file when it was listed. Raises OSError if it is a pipe now."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file any more")


def _advance(meter: Meter, file: File) -> Callable[[float], None]:
    def advance(share: float) -> None:
        meter.bytes = int(share * (file.size or 0))

    return advance
