"""Writes bad rows to a file of JSON lines, which can be corrected and read again as a corpus.

Each line holds the reason and the row: `row` if it is an object, `document` if it is a good row that
could not be indexed, else `raw`, the text as read. Correct it there, or replace the line with a plain
document, and ingest the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

from m3index import folders
from m3index.corpus.lines import KEPT
from m3index.corpus.options import Rejects
from m3index.errors import StoppedError, UsageError
from m3index.output import OutputFile
from m3index.progress import Reporter, Silent
from m3index.types import Document, Rejected

MARKER = "m3index_quarantine"


class LostRowError(ValueError):
    """A quarantine line that does not hold its row. doc_id: the id of the document, if the line has it."""

    def __init__(self, reason: str, doc_id: str | None) -> None:
        super().__init__(reason)
        self.doc_id = doc_id


@dataclass(frozen=True, slots=True)
class Held:
    """The row inside a quarantine line. raw: the row as text. standard: it uses the default keys."""

    raw: str
    row: dict[str, Any] | None = None
    standard: bool = False


def unwrap(line: dict[str, Any]) -> Held | None:
    """The row of a quarantine line; None for any other object. Raises LostRowError."""
    if line.get(MARKER) != 1:
        return None
    doc_id = line.get("id")
    doc_id = doc_id if isinstance(doc_id, str) and doc_id else None
    if line.get("truncated"):
        path, number = line.get("path"), line.get("line")
        if number is None and not line.get("raw"):
            raise LostRowError(f"a file that a quarantine cannot hold; correct it, and ingest {path}", doc_id)
        raise LostRowError(
            f"too long to be kept whole in a quarantine; correct it in {path}:{number}", doc_id
        )
    for key in ("row", "document"):
        if isinstance(row := line.get(key), dict):
            return unwrap(row) or Held(json.dumps(row, ensure_ascii=False), row, standard=key == "document")
    if isinstance(raw := line.get("raw"), str) and raw:
        return Held(raw)
    raise LostRowError("a quarantine line without its row", doc_id)


def default_path(place: str, *names: str) -> Path:
    """The file for bad rows of a run that names none. place: the database, or the folder, that the run writes
    to. names: the collection, the source and the tenant, if there is one."""
    stem = "-".join(quote(name, safe=" ") for name in [*names, _digest(place)] if name)
    return folders.state() / "quarantine" / f"{stem}.jsonl"


def default_paths(place: str, collection: str) -> list[Path]:
    """The files for bad rows of all runs over a collection that named none, newest first."""
    files = (folders.state() / "quarantine").glob(f"{quote(collection, safe=' ')}-*{_digest(place)}.jsonl")
    return sorted(files, key=lambda path: (-path.stat().st_mtime, path))


def _digest(place: str) -> str:
    where = place if "://" in place else os.path.realpath(place)
    return hashlib.blake2b(where.encode(), digest_size=3).hexdigest()


def kept_row(path: Path, doc_id: str) -> tuple[str, str] | None:
    """Where a quarantine file keeps the row of a document (`FILE:LINE`), and why it could not be indexed;
    None if it does not, or if there is no file. Raises UsageError if the file cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                with suppress(ValueError, RecursionError):
                    line = json.loads(text)
                    if isinstance(line, dict) and line.get(MARKER) == 1 and line.get("id") == doc_id:
                        return f"{path}:{number}", str(line.get("reason", ""))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The quarantine file {path} cannot be read: {error}.") from None
    return None


class Quarantine:
    """Writes rejected rows. The file is made with the first one and replaces that of an earlier run.

    It gets its name when the run ends, so that one run can read a quarantine and replace it. If another run
    has written the file meanwhile, its rows stay and these are added. Raises UsageError if the path cannot be
    written, StoppedError if the disk is full.

    is_optional: whether a run goes on without it if it cannot be written. Nothing is then checked before the
    first row. count: the number of rows written. documents: how many of them are files that it cannot hold.
    """

    def __init__(self, path: str | os.PathLike[str], *, is_optional: bool = False) -> None:
        self.path, self.is_optional = Path(path), is_optional
        self._output = None if is_optional else OutputFile(path)
        self.count = self.documents = 0
        self._file: TextIO | None = None

    def add(self, rejected: Rejected) -> None:
        with self._writing():
            if self._file is None:
                self._output = self._output or OutputFile(self.path)
                self._output.make_folder()
                self._file = self._output.writable.open("w", encoding="utf-8")
            self._file.write(_line(rejected) + "\n")
            self._file.flush()
        self.count += 1
        self.documents += rejected.is_document_file

    def close(self) -> None:
        """Can be called twice."""
        file, self._file = self._file, None
        if file is None or self._output is None:
            return
        with self._writing():
            file.close()
            if self._output.was_replaced:
                self._output.append()
            else:
                self._output.commit()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoppedError(
                f"The quarantine file {self.path} cannot be written: {error.strerror}."
            ) from None

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(StoppedError):  # what ended the run is said, not what its end came upon
            self.close()


@contextmanager
def quarantining(reporter: Reporter | None, rejects: Rejects) -> Iterator[Reporter]:
    """A reporter that also writes bad rows to the quarantine file, if one is named. Raises UsageError."""
    reporter = reporter or Silent()
    if rejects.quarantine_file is None:
        yield reporter
        return
    with Quarantine(rejects.quarantine_file) as file:
        yield Quarantining(reporter, file)


class Quarantining:
    """A reporter that also writes bad rows to a quarantine file, but not files that could not be read. If an
    optional file cannot be written, it says so once."""

    def __init__(self, reporter: Reporter, quarantine: Quarantine) -> None:
        self._quarantine, self._is_lost = quarantine, False
        self._reporter = reporter
        self.verbose, self.skipped = reporter.verbose, reporter.skipped
        self.stage, self.progress = reporter.stage, reporter.progress
        self.note, self.warning, self.error = reporter.note, reporter.warning, reporter.error
        self.result, self.close = reporter.result, reporter.close

    def rejected(self, rejected: Rejected) -> None:
        try:
            if not self._is_lost and not rejected.is_file:
                self._quarantine.add(rejected)
        except (UsageError, StoppedError) as error:
            if not self._quarantine.is_optional:
                raise
            self._is_lost = True
            self.warning(f"{error} Bad rows are not kept; name a file for them with --quarantine.")
        self._reporter.rejected(rejected)


def _line(rejected: Rejected) -> str:
    line: dict[str, Any] = {
        MARKER: 1,
        "path": rejected.place.path,
        "line": rejected.place.line,
        "reason": rejected.reason,
        "id": rejected.doc_id,
    }
    contents, truncated = _contents(rejected)
    line |= contents
    if truncated:
        line["truncated"] = True
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(line)  # writes lone surrogates as \uXXXX
    return text


def _contents(rejected: Rejected) -> tuple[dict[str, Any], bool]:
    if rejected.document is not None:
        document = _as_row(rejected.document)
        raw = json.dumps(document, ensure_ascii=False)
        return ({"raw": raw[:KEPT]}, True) if len(raw) > KEPT else ({"document": document}, False)
    try:
        row = None if rejected.truncated else json.loads(rejected.raw)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError):
        row = None
    return ({"row": row} if isinstance(row, dict) else {"raw": rejected.raw}), rejected.truncated


def _as_row(document: Document) -> dict[str, Any]:
    title = {"title": document.title} if document.title else {}
    metadata = {"metadata": dict(document.metadata)} if document.metadata else {}
    return {"id": document.doc_id, **title, "text": document.text, **metadata}
