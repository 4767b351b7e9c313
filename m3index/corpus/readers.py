"""`read`: files, directories, globs (local or in an object store) and stdin as one stream of documents, with
a record of what could not be read."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from m3index.corpus import formats
from m3index.corpus.apart import ReadingProcess, is_read_apart
from m3index.corpus.digest import CorpusDigest, corpus_digest, is_as_before
from m3index.corpus.formats import Parsed
from m3index.corpus.lines import MAX_LINE, Meter, NoCorpusError, UnreadableError, open_bytes, reading
from m3index.corpus.listing import Listing
from m3index.corpus.mapping import STANDARD, FieldMapping
from m3index.corpus.notes import SkippedFiles, embedding_notes
from m3index.corpus.options import ROW_FORMATS, Input
from m3index.corpus.places import STDIN, CorpusFiles, File, Skipped, Unmatched
from m3index.corpus.rows import FileReader, PassCounts, open_file
from m3index.corpus.selection import ALL, Selection
from m3index.documents.kinds import PARSED
from m3index.documents.reader import DocumentReader, DocumentReaders
from m3index.errors import UsageError
from m3index.types import Document, FieldType, Place, Rejected

_AHEAD = 4
"""The number of files, for each process that reads documents, that are begun before their turn."""
_KEPT = 1000
_LINED = ("jsonl", "csv", "tsv")


def open_corpus(
    paths: Sequence[str | os.PathLike[str]],
    options: Input,
    *,
    fields: Mapping[str, FieldType] | None = None,
    base: str | None = None,
    only: Collection[str] | None = None,
) -> FileCorpus:
    """The corpus of a command or a method with these options. fields: see `read`. base: in place of the
    working directory, for the names of files. only: the paths of the files to read; None for all."""
    selection = replace(options.selection, base=base)
    corpus = read(
        paths,
        options.mapping,
        format=options.input_format,
        selection=selection,
        fields=fields,
        encoding=options.encoding,
    )
    corpus.only = only
    return corpus


def read(
    paths: Sequence[str | os.PathLike[str]],
    mapping: FieldMapping = STANDARD,
    *,
    format: str | None = None,  # noqa: A002
    selection: Selection = ALL,
    fields: Mapping[str, FieldType] | None = None,
    encoding: str | None = None,
    max_line: int = MAX_LINE,
    stdin: BinaryIO | None = None,
) -> FileCorpus:
    """A corpus of files, directories (recursive, sorted) and globs, local or at `s3://`, `gs://`, and `-`.

    format: one of `corpus.options.FORMATS`; by default each file's name decides, and stdin is JSONL. fields:
    the declared types, used to read the cells of CSV files. encoding: of CSV files and texts, if it is not
    UTF-8. max_line: the limit in bytes for a line, a CSV
    record or a file that is one document; anything longer is rejected. Raises UsageError immediately for a
    path that does not exist; nothing is read before the corpus is iterated.
    """
    files = CorpusFiles(paths, format, selection)
    return FileCorpus(files, mapping, fields or {}, max_line, stdin, encoding)


class FileCorpus:
    """Iterates as a stream of Document and Rejected; memory holds one row (Parquet: one batch).

    A file that cannot be read, or not to its end, is recorded in `read_errors`, and the pass continues
    with the next one. The counts are those of the current pass; iterating again resets them.

    documents, rejected: how many were yielded. read_errors: the files, with reasons. skip_counts: how many
    files and folders are not read, by reason. listing: which files gave rows, and what was not read. only:
    the paths of the files to read; None for all. apart: whether large files are read in a process of their
    own; asked for each.
    """

    def __init__(
        self,
        places: CorpusFiles,
        mapping: FieldMapping,
        fields: Mapping[str, FieldType],
        max_line: int,
        stdin: BinaryIO | None,
        encoding: str | None,
    ) -> None:
        self._places, self._stdin = places, stdin
        self._reader = FileReader(mapping, dict(fields), max_line, encoding)
        self._stdin_read = False
        self.only: Collection[str] | None = None
        self.apart: Callable[[], bool] = lambda: False
        self._start()

    def _start(self) -> None:
        self.documents = self.rejected = 0
        self.read_errors: list[Rejected] = []
        self.listing = Listing()
        self._finished, self._unidentified = False, 0
        self._done_bytes, self._counts = 0, PassCounts()
        self._skips = SkippedFiles()
        self._no_corpora: list[Skipped] = []

    @property
    def complete(self) -> bool:
        """The pass has ended, every file was read to its end, and every row had an id. Only then has a
        document that did not appear left the corpus."""
        return self._finished and not self.read_errors and not self._unidentified

    @property
    def total_bytes(self) -> int | None:
        """The size of all files on disk; None if one of them is a pipe."""
        total = 0
        for entry in self._places.walk():
            if isinstance(entry, File):
                size = self._stdin_size() if entry.path == STDIN else entry.size
                if size is None:
                    return None
                total += size
        return total

    @property
    def notes(self) -> list[str]:
        """What people should know of the pass so far: what it skipped and left out."""
        return [*self._skips.sentences(), *embedding_notes(self._counts.left_out)]

    @property
    def skip_counts(self) -> Mapping[str, int]:
        return self._skips.counts

    def skips(self) -> Iterator[Skipped]:
        """Lists what is not read, anew: memory does not hold it, but for files that had to be opened to know
        (the first 1,000)."""
        yield from (entry for entry in self._places.walk() if isinstance(entry, Skipped))
        yield from self._no_corpora

    @property
    def repeatable(self) -> bool:
        """Whether a second pass reads the same; not from a pipe."""
        return self.total_bytes is not None and not self._places.stdin

    def digest(self) -> CorpusDigest | None:
        """A digest of the files and of how they are read; reads all of them. None for what is not in regular
        files on this machine. `notes` tells what was skipped, as after a pass."""
        of = self._reader
        reading = repr((of.mapping, sorted(of.fields.items()), of.max_line, of.encoding))
        self._start()
        return corpus_digest(self._places.walk(), reading, self._skips.add)

    def is_as_before(self, digest: CorpusDigest) -> bool:
        """Whether no file has been changed since this digest of it was made."""
        return is_as_before(self._places.walk(), digest)

    @property
    def bytes_read(self) -> int:
        """How much of `total_bytes` has been read so far; compressed bytes count as they are."""
        return self._done_bytes + self._counts.meter.bytes

    def __iter__(self) -> Iterator[Document | Rejected]:
        if self._places.stdin and self._stdin_read:
            raise UsageError("Standard input can be read only once; save it to a file first.")
        self._start()
        with closing(DocumentReaders()) as readers, closing(ReadingProcess(self._reader)) as process:
            yield from self._walk(readers, process)
        self._finished = True

    def _walk(self, readers: DocumentReaders, process: ReadingProcess) -> Iterator[Document | Rejected]:
        """Reads the files in their order; some that libraries read are begun ahead."""
        begun: deque[tuple[File, Future[list[Parsed | Rejected]] | None]] = deque()
        for entry in self._places.walk():
            if isinstance(entry, File):
                if self.only is None or entry.path in self.only:
                    parsed = entry.format in PARSED
                    begun.append((entry, readers.submit(partial(self._parse, entry)) if parsed else None))
                if len(begun) > _AHEAD * readers.count:
                    yield from self._file(*begun.popleft(), process)
            elif isinstance(entry, Skipped):
                self.listing.add_unread(entry.name, entry.path, entry.reason)
                self._skips.add(entry)
            elif isinstance(entry, Unmatched):
                self.listing.add_unread(entry.name, entry.path, "the pattern does not match it")
            else:
                self._unreadable(entry.path, entry.reason)
        while begun:
            yield from self._file(*begun.popleft(), process)

    def _parse(self, file: File, reader: DocumentReader) -> list[Parsed | Rejected]:
        """Raises UnreadableError."""
        with (
            reading(),
            self._open(file) as source,
            open_bytes(source, Meter(), file.compression) as stream,
        ):
            return list(formats.document(stream, file, reader))

    def _file(
        self, file: File, begun: Future[list[Parsed | Rejected]] | None, process: ReadingProcess
    ) -> Iterator[Document | Rejected]:
        last: Place | None = None
        try:
            for item in self._items(file, begun, process):
                last = item.place
                if isinstance(item, Rejected):
                    self.rejected += 1
                    self._unidentified += not item.identified
                else:
                    self.documents += 1
                yield item
        except NoCorpusError as error:
            if self._places.is_one_path:
                self._unreadable(file.path, str(error))
            else:
                skipped = Skipped(file.path, file.name, str(error))
                self._skips.add(skipped)
                if len(self._no_corpora) < _KEPT:
                    self._no_corpora.append(skipped)
        except UnreadableError as error:
            after = f" (after {'line' if file.format in _LINED else 'row'} {last.line})" if last else ""
            self._unreadable(file.path, f"{error}{after}")
        if last is None:
            self.listing.add_unread(file.name, file.path, "it has no rows")
        elif file.format in ROW_FORMATS:
            self.listing.gave.add(file.name)
        self._done_bytes += self._counts.meter.bytes if file.size is None else file.size
        self._counts.meter = Meter()

    def _items(
        self, file: File, begun: Future[list[Parsed | Rejected]] | None, process: ReadingProcess
    ) -> Iterator[Document | Rejected]:
        """Raises UnreadableError, NoCorpusError."""
        if begun is not None:
            return (self._reader.item(row, self._counts.left_out) for row in begun.result())
        if is_read_apart(file) and self.apart():
            return process.items(file, self._counts)
        return self._reader.items(file, self._counts, self._open)

    def _unreadable(self, path: str, reason: str) -> None:
        self.read_errors.append(Rejected(Place(path), reason))

    def _open(self, file: File) -> AbstractContextManager[BinaryIO]:
        if file.path != STDIN or file.remote is not None:
            return open_file(file)
        self._stdin_read = True
        return nullcontext(self._standard_input())

    def _standard_input(self) -> BinaryIO:
        if self._stdin is not None:
            return self._stdin
        if sys.stdin is None:
            raise UsageError("There is no standard input to read.")
        return sys.stdin.buffer

    def _stdin_size(self) -> int | None:
        """Known if stdin is a file (`< corpus.jsonl`)."""
        try:
            status = os.fstat(self._standard_input().fileno())
        except (OSError, ValueError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None
