"""Reads one file of a format as a stream of rows: a Parsed for each good row, a Rejected for each bad one."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from pathlib import PurePath
from typing import Any, TypeAlias

from m3index.corpus.decoded import compact_columns, decoded, decoded_sizes, parts, rows_at_once
from m3index.corpus.lines import (
    KEPT,
    MAX_LINE,
    Line,
    Meter,
    NoCorpusError,
    UnreadableError,
    lines,
    open_bytes,
    reading,
)
from m3index.corpus.mapping import FieldMapping, RowError, typed_cell
from m3index.corpus.places import COMPRESSIONS, File
from m3index.corpus.quarantine import LostRowError, unwrap
from m3index.documents.front_matter import markdown
from m3index.documents.kinds import MAX_FILE, PARSED, BadFileError, Extracted
from m3index.documents.reader import DocumentReader
from m3index.schema import column_of
from m3index.types import FieldType, Place, Rejected

_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_ROWS = 1024
_BLOCK, _REMOTE_BLOCK = 1024 * 1024, 8 * 1024 * 1024
_ENDS = frozenset(",] \t\r\n")
"""What follows a value in an array, or a value alone."""
_SEPARATOR = re.compile(rb"(?i:sep)=([,;|\t])")
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_NOT_UTF8 = re.compile("(?<!\\\\)(\\\\*)([\udc80-\udcff])")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row before its fields are mapped. raw: the text as read; None if the row as JSON serves instead.

    standard: the row uses the default keys, whatever the user's mapping says. format: of the file, if that is
    one document.
    """

    place: Place
    row: Mapping[str, Any]
    raw: str | None = None
    standard: bool = False
    format: str = ""


Rows: TypeAlias = Iterator[Parsed | Rejected]


def reject(place: Place, reason: str, raw: str, doc_id: str | None = None) -> Rejected:
    return Rejected(place, reason, raw[:KEPT], doc_id, truncated=len(raw) > KEPT)


# ------------------------------------------------------------------- JSONL


def jsonl(stream: io.BufferedReader, path: str, max_line: int) -> Rows:
    """One JSON object per line. A line of a quarantine file yields the row it holds."""
    for line in lines(stream, max_line):
        if not line.cut and not line.data.strip():
            continue
        place = Place(path, line.number)
        if line.cut:
            yield Rejected(place, _longer(max_line), _readable(line.data), truncated=True)
            continue
        try:
            raw = line.data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield reject(place, f"not UTF-8 at byte {error.start + 1} of the line", _readable(line.data))
            continue
        yield _json_row(place, raw)


def _json_row(place: Place, raw: str) -> Parsed | Rejected:
    try:
        row = _object(raw)
        quarantined = unwrap(row)
        if quarantined is None:
            return Parsed(place, row, raw)
        raw = quarantined.raw
        original = _object(raw) if quarantined.row is None else quarantined.row
        return Parsed(place, original, raw, quarantined.standard)
    except LostRowError as error:
        return reject(place, str(error), raw, error.doc_id)
    except RecursionError:
        return reject(place, "not JSON: nested too deep", raw)
    except ValueError as error:
        return reject(place, f"not JSON: {error}", raw)


def _object(raw: str) -> dict[str, Any]:
    row = json.loads(raw)
    if isinstance(row, list):
        raise ValueError("a list, but each line must be one object (jq -c '.[]' splits a list)")
    if not isinstance(row, dict):
        raise ValueError("not an object")
    return row


# -------------------------------------------------------------------- JSON


def json_array(stream: io.BufferedReader, path: str, max_line: int, mapping: FieldMapping) -> Rows:
    """An array of objects, each a row, or one object. Memory holds one of them. A row that is no JSON ends
    the file, because nobody knows where the next one begins. Raises NoCorpusError if the first one has
    neither an id nor a text."""
    decoder, text = json.JSONDecoder(), _Characters(stream)
    number, in_array = 0, text.begins("[")
    while text.skip_space():
        if in_array and text.begins("]"):
            if text.skip_space():
                raise UnreadableError("not JSON: something follows the array")
            return
        if number and not (in_array and text.begins(",")):
            remedy = "" if in_array else "; if each line is one object, set --input-format jsonl"
            raise UnreadableError(f"not JSON: no comma or end after row {number:,}{remedy}")
        text.skip_space()
        number += 1
        try:
            value = text.value(decoder, max_line)
        except RecursionError:
            raise UnreadableError(f"not JSON: row {number:,} is nested too deep") from None
        place = Place(path, number)
        if number == 1 and not (isinstance(value, dict) and mapping.has_part(value)):
            raise NoCorpusError("JSON without rows")
        if isinstance(value, dict):
            yield Parsed(place, value)
        else:
            raw = json.dumps(value, ensure_ascii=False)
            yield reject(place, f"not an object, but {raw[:40]}", raw)
    if in_array:
        raise UnreadableError(f"not JSON: it ends within the array, after row {number:,}")


class _Characters:
    """A stream of UTF-8, from which JSON values are taken."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self._decode = stream, codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._ended = "", 0, False

    def skip_space(self) -> bool:
        """Whether anything but white space follows."""
        while True:
            found = _NO_SPACE.search(self._text, self._at)
            if found is not None:
                self._at = found.start()
                return True
            self._text, self._at = "", 0
            if not self._more():
                return False

    def begins(self, mark: str) -> bool:
        """Takes this character if it is the next one after white space."""
        found = self.skip_space() and self._text[self._at] == mark
        self._at += found
        return found

    def value(self, decoder: json.JSONDecoder, limit: int) -> Any:
        while True:
            problem = ""
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                following = self._text[end : end + 1]
                if following in _ENDS or (self._ended and not following):  # `12` may be a part of `123`
                    self._text, self._at = self._text[end:], 0
                    return value
            except ValueError as error:
                problem = str(error)
            if len(self._text) - self._at > limit:
                raise UnreadableError(f"a row is {_longer(limit)}, or not JSON: {problem or 'no comma'}")
            was_ended = self._ended
            if not self._more() and (problem or was_ended):
                raise UnreadableError(f"not JSON: {problem or 'no comma after a row'}")

    def _more(self) -> bool:
        """Reads on: as much again, so that a long value is not looked at too often."""
        if self._ended:
            return False
        with reading():
            data = self._stream.read(max(_BLOCK, len(self._text)))
        self._ended = not data
        try:
            self._text = self._text[self._at :] + self._decode(data, self._ended)
        except UnicodeDecodeError:
            raise UnreadableError("not UTF-8") from None
        self._at = 0
        return bool(data)


# ---------------------------------------------------------------- CSV, TSV


class _Feed:
    """Lines for csv.reader, which joins the lines of a quoted cell. Keeps those of the current record, so
    that lines which a stray quote has swallowed can be read again."""

    def __init__(self, source: Iterator[Line], limit: int, encoding: str) -> None:
        self._source, self._limit, self._encoding = source, limit, encoding
        self._again: deque[Line] = deque()
        self.begin()

    def begin(self) -> None:
        self.record: list[Line] = []
        self.is_decoded, self._size = True, 0

    @property
    def first(self) -> int:
        """The number of the record's first line."""
        return self.record[0].number if self.record else 0

    @property
    def raw(self) -> str:
        return _readable(b"".join(line.data for line in self.record))

    def give_back(self) -> None:
        """Keeps the first line of the record only; the others are read again."""
        self._again.extendleft(reversed(self.record[1:]))
        del self.record[1:]

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self._size += len(line.data)
        self.record.append(line)
        if line.cut or self._size > self._limit:
            raise UnreadableError(
                f"the record at line {self.first} is {_longer(self._limit)}, or its quote is never closed"
            )
        try:
            return line.data.decode(self._encoding)
        except UnicodeDecodeError:
            self.is_decoded = False
            return _readable(line.data)


def delimited(
    stream: io.BufferedReader,
    file: File,
    max_line: int,
    *,
    mapping: FieldMapping,
    fields: Mapping[str, FieldType],
    encoding: str | None = None,
) -> Rows:
    """A table with a header. The delimiter is the first one that gives the header an id and a text.

    Empty cells count as absent. Cells of declared fields are read as their type, all others as strings.
    tsv: a tab divides cells without quotes; with any other delimiter a cell in quotes can hold delimiters and
    line feeds. A cell in quotes that joins lines which are rows by themselves is a stray quote: its row is
    rejected, and the lines that it swallowed are read again. A record over the limit ends the file, because
    what follows may be the inside of a quoted cell.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_line))
    path, tsv = file.path, file.format == "tsv"
    source = lines(stream, max_line)
    first, delimiters = _first(source, file)
    if first is None:
        return
    header, delimiter = _header(first, delimiters, mapping, fields, encoding, tsv=tsv)
    quoting = _quoting(delimiter, tsv=tsv)
    feed = _Feed(source, max_line, encoding or "utf-8")
    while True:
        feed.begin()
        try:
            cells = next(csv.reader(feed, delimiter=delimiter, quoting=quoting, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            feed.give_back()
            yield reject(Place(path, feed.first), f"not CSV: {error}", feed.raw)
            continue
        place = Place(path, feed.first)
        if not any(cells):
            continue
        if not feed.is_decoded:
            yield reject(place, _not_decoded(encoding), feed.raw)
        elif _swallows_rows(feed.record, delimiter, len(header)):
            feed.give_back()
            yield reject(place, "a stray quote: the cell in quotes would hold the rows that follow", feed.raw)
        elif any(cells[len(header) :]):
            yield reject(place, f"{len(cells)} cells in a table of {len(header)} columns", feed.raw)
        else:
            yield Parsed(place, _cells(header, cells, fields))


def _swallows_rows(record: Sequence[Line], delimiter: str, columns: int) -> bool:
    """Whether the lines that a quoted cell joins are rows by themselves, with as many cells as the header.

    The text of a cell can look like that only if all its lines hold so many delimiters, the first one
    together with the cells before it. Two such lines are more likely an address or a verse than the only two
    stray quotes of a table, one at the beginning of a cell and one at the end of another.
    """
    mark = delimiter.encode()
    return (
        len(record) > 2
        and all(line.data.count(mark) == columns - 1 for line in record)
        and all(_can_be_row(_readable(line.data), delimiter, columns) for line in record)
    )


def _can_be_row(text: str, delimiter: str, columns: int) -> bool:
    """Whether a line is a record with so many cells, at most with a quote that it does not close."""
    for record in (text.rstrip("\r\n"), text.rstrip("\r\n") + '"'):
        try:
            cells = next(csv.reader([record], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        return len(cells) == columns and all(cells)
    return False


def _quoting(delimiter: str, *, tsv: bool) -> Any:
    return csv.QUOTE_NONE if tsv and delimiter == "\t" else csv.QUOTE_MINIMAL


def _header(
    line: Line,
    delimiters: str,
    mapping: FieldMapping,
    fields: Mapping[str, FieldType],
    encoding: str | None,
    *,
    tsv: bool,
) -> tuple[list[str], str]:
    try:
        text = line.data.decode(encoding or "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UnreadableError(f"the header is {_not_decoded(encoding)}") from None
    problems: list[tuple[int, str]] = []
    for delimiter in delimiters:
        try:
            quoting = _quoting(delimiter, tsv=tsv)
            [names] = csv.reader([text], delimiter=delimiter, quoting=quoting, strict=True)
        except (csv.Error, ValueError) as error:
            problems.append((0, f"the first line is not a header: {error}"))
            continue
        written = [name.strip() or f"column_{i}" for i, name in enumerate(names, 1)]
        names = mapping.columns(written, fields)
        missing = mapping.missing(names, written)
        if not missing:
            _check_unique(names)
            return names, delimiter
        problems.append((len(names), missing))
    raise UnreadableError(max(problems, key=lambda problem: problem[0])[1])


def _not_decoded(encoding: str | None) -> str:
    """A text that is not in this encoding, and what to do about it."""
    if encoding is not None:
        return f"not {encoding}"
    return "not UTF-8; if Excel made it, set --encoding (cp1252 in western Europe), or save it as CSV UTF-8"


def check_columns(file: File, mapping: FieldMapping, encoding: str | None) -> str:
    """Why no row of this table can be read; empty if some may be."""
    try:
        if file.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                names = pq.read_schema(file.path).names
                return mapping.missing(mapping.columns(names), names)
            except (pa.ArrowException, ValueError, OSError):
                return ""  # reading it says more
        with (
            reading(),
            open(file.path, "rb", buffering=0) as source,
            open_bytes(source, Meter(), file.compression) as stream,
        ):
            first, delimiters = _first(lines(stream, MAX_LINE), file)
            if first is not None:
                _header(first, delimiters, mapping, {}, encoding, tsv=file.format == "tsv")
    except UnreadableError as error:
        return str(error)
    return ""


def _first(source: Iterator[Line], file: File) -> tuple[Line | None, str]:
    """The header of a table, None if it is empty, and what may divide its cells: Excel says it in a line of
    its own, `sep=;`."""
    filled = (line for line in source if line.data.strip())
    first = next(filled, None)
    if first is not None and (said := _SEPARATOR.fullmatch(first.data.strip())):
        return next(filled, None), said[1].decode()
    return first, "\t,;" if file.format == "tsv" else ",;\t"


def _check_unique(names: Sequence[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UnreadableError(f"two columns have the name {duplicates[0]!r}")


def _cells(header: Sequence[str], cells: Sequence[str], fields: Mapping[str, FieldType]) -> dict[str, Any]:
    return {
        name: typed_cell(cell, fields[column]) if (column := column_of(name)) in fields else cell
        for name, cell in zip(header, cells, strict=False)
        if cell
    }


# ----------------------------------------------------------------- Parquet


def parquet(
    of: File,
    mapping: FieldMapping,
    fields: Mapping[str, FieldType],
    max_line: int,
    advance: Callable[[float], None],
) -> Rows:
    """Reads row group by row group, in batches of about 16 MB, decoded.

    Nulls count as absent. Dates and times become ISO 8601 strings, decimals become strings. advance:
    called with the share of the file read so far.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, remote = of.path, of.remote
    block = _BLOCK if remote is None else _REMOTE_BLOCK
    try:
        with (
            reading(),
            nullcontext(path) if remote is None else remote.random() as source,
            pq.ParquetFile(source, buffer_size=block, pre_buffer=False) as described,
            pq.ParquetFile(
                source,
                metadata=described.metadata,
                read_dictionary=(compact := compact_columns(described.metadata)),
                buffer_size=block,
                pre_buffer=False,
            ) as file,
        ):
            columns_read = file.schema_arrow.names
            names = mapping.columns(columns_read, fields)
            if missing := mapping.missing(names, columns_read):
                raise UnreadableError(missing)
            _check_unique(names)
            renamed = dict(zip(columns_read, names, strict=True))
            columns = [old for old, new in renamed.items() if new not in mapping.exclude]
            rows, number = file.metadata.num_rows, 0
            for group in range(file.num_row_groups):
                size = rows_at_once(file.metadata.row_group(group), compact, _BATCH_ROWS, _BATCH_BYTES)
                for batch in file.iter_batches(size, [group], columns):
                    for row in _bounded(batch, max_line):
                        number += 1
                        place = Place(path, number)
                        if isinstance(row, UnreadableRow):
                            yield row.rejected(place, mapping, renamed)
                        else:
                            yield Parsed(place, {renamed[name]: cell for name, cell in row.items()})
                    advance(number / rows)
    except (pa.ArrowException, ValueError) as error:  # the latter from column names and bounds
        raise UnreadableError(f"cannot be read as Parquet: {error}") from None


def _bounded(batch: Any, max_line: int) -> Iterator[dict[str, Any] | UnreadableRow]:
    """The rows of a batch, decoded in parts. A row that is too long is not decoded."""
    for part, sizes in parts(batch, min(_BATCH_BYTES, max_line)):
        if sizes[0] > max_line:
            yield UnreadableRow("", _longer(max_line), _short_cells(part))
        else:
            yield from _batch(decoded(part))


def _short_cells(row: Any) -> dict[str, Any]:
    """The cells of a row that is too long, without the long ones: its id is among them."""
    cells: dict[str, Any] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        if int(decoded_sizes(column)[0]) <= KEPT:
            [part] = _batch(decoded(row.select([name])))
            cells |= part.row if isinstance(part, UnreadableRow) else part
    return cells


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row with a value that JSON cannot hold, or that is too long. column: that of the value, if it is one.
    row: the row without such values."""

    column: str
    problem: str
    row: Mapping[str, Any]

    def rejected(self, place: Place, mapping: FieldMapping, renamed: Mapping[str, str]) -> Rejected:
        """renamed: the keys of the mapping by the names of columns."""
        try:
            doc_id = mapping.row_id({renamed[name]: cell for name, cell in self.row.items()})
        except RowError:
            doc_id = None
        excludable = self.column and not mapping.has_role(renamed[self.column])
        remedy = f"; leave it out with --exclude-field {self.column}" if excludable else ""
        return reject(place, self.problem + remedy, json.dumps(self.row, ensure_ascii=False), doc_id)


_INEXPRESSIBLE = (ValueError, KeyError, TypeError, OverflowError)  # overflow: a date Python cannot hold


def _batch(batch: Any) -> Iterator[dict[str, Any] | UnreadableRow]:
    """Rows as dicts, and those that Python or JSON cannot express."""
    try:
        rows = [
            {name: _plain(value) for name, value in row.items() if value is not None}
            for row in batch.to_pylist(maps_as_pydicts="strict")
        ]
    except _INEXPRESSIBLE:
        for i in range(batch.num_rows):
            yield _single_row(batch.slice(i, 1))
        return
    yield from rows


def _single_row(batch: Any) -> dict[str, Any] | UnreadableRow:
    row: dict[str, Any] = {}
    bad: tuple[str, str] | None = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            [value] = column.to_pylist(maps_as_pydicts="strict")
            if value is not None:
                row[name] = _plain(value)
        except _INEXPRESSIBLE as error:
            row[name] = None
            problem = f"column {name!r} ({column.type}) has a value that JSON cannot hold: {error}"
            bad = bad or (name, problem)
    return UnreadableRow(*bad, row) if bad else row


def _plain(value: Any) -> Any:
    match value:
        case str() | bool() | int() | float() | None:
            return value
        case list() | tuple():
            return [_plain(v) for v in value]
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
    raise TypeError(f"{type(value).__name__} {str(value)[:40]}")


# -------------------------------------------------------------- plain text


def text(stream: io.BufferedReader, file: File, max_line: int, encoding: str | None = None) -> Rows:
    """The file is one document. Its id is its name, its title the last part of it without suffixes; that of
    Markdown is what its front matter says, or the heading that it begins with."""
    data = _whole(stream, max_line)
    if len(data) > max_line:
        yield _refused(file, _longer(max_line))
        return
    try:
        content = data.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not {encoding or 'UTF-8'} at byte {error.start + 1}; set --encoding, such as cp1252"
        yield reject(Place(file.path), problem, _readable(data), file.name)
        return
    yield _extracted(
        file, partial(markdown, content) if file.format == "markdown" else lambda: Extracted(content)
    )


def document(stream: io.BufferedReader, file: File, reader: DocumentReader) -> Rows:
    """The file is one document, which a library reads in a process of its own."""
    assert file.format in PARSED
    data = _whole(stream, MAX_FILE)
    if len(data) > MAX_FILE:
        yield _refused(file, _longer(MAX_FILE))
        return
    yield _extracted(file, partial(reader.read, file.format, data))


def _whole(stream: io.BufferedReader, most: int) -> bytes:
    """All bytes, or a few more than `most`: a file that grows while it is read has an end."""
    blocks, size = [], 0
    with reading():
        while size <= most and (block := stream.read(_BLOCK)):
            blocks.append(block)
            size += len(block)
    return b"".join(blocks)


def _extracted(file: File, read: Callable[[], Extracted]) -> Parsed | Rejected:
    name = file.name
    try:
        found = read()
    except BadFileError as error:
        return _refused(file, str(error))
    if not found.text or found.text.isspace():
        return _refused(file, "it has no text")
    row: dict[str, Any] = {"id": name, "title": found.title or title_of(name), "text": found.text}
    row["metadata"] = about(file) | dict(found.metadata)
    return Parsed(Place(file.path), row, standard=True, format=file.format)


def _refused(file: File, reason: str) -> Rejected:
    return Rejected(Place(file.path), reason, doc_id=file.name, truncated=True)


def about(file: File) -> dict[str, Any]:
    """The metadata that every file has which is one document."""
    metadata = {"path": file.name, "type": file.format}
    if file.modified is not None:
        modified = datetime.fromtimestamp(file.modified, UTC)
        metadata["modified"] = modified.isoformat(timespec="seconds").replace("+00:00", "Z")
    return metadata


def title_of(name: str) -> str:
    base = PurePath(name).name
    for compression in COMPRESSIONS:
        base = base.removesuffix(compression)
    return PurePath(base).stem


# ------------------------------------------------------------------ shared


def _readable(data: bytes) -> str:
    """Bytes as text for people. A byte that is not UTF-8 becomes \\xNN, which JSON does not allow, so a bad
    line stays bad; after an odd number of backslashes one more is needed for that."""
    text = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
    return _NOT_UTF8.sub(lambda m: m[1] + len(m[1]) % 2 * "\\" + f"\\x{ord(m[2]) - 0xDC00:02x}", text)


def _longer(limit: int) -> str:
    return f"longer than {limit:,} bytes"
