"""How a corpus is read, and how its documents are split into passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from m3index.corpus.mapping import EMBEDDING, FieldMapping
from m3index.documents.kinds import PARSED, ParsedType
from m3index.options import (
    CountOrPercent,
    Custom,
    FileName,
    Flag,
    Group,
    OneOf,
    Text,
    Texts,
    Whole,
    group,
    option,
)

if TYPE_CHECKING:
    from m3index.corpus.selection import Selection
    from m3index.corpus.windows import PassageSettings

Division: TypeAlias = Literal["structure", "tokens"]
RowFormat: TypeAlias = Literal["jsonl", "json", "parquet", "csv", "tsv"]
Format: TypeAlias = RowFormat | Literal["text", "markdown"] | ParsedType
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
"""The formats of files that hold many documents. A file of any other format is one document."""
FORMATS: tuple[Format, ...] = (*ROW_FORMATS, "text", "markdown", *PARSED)


def _encoding(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    try:
        extends = '\n,;"'.encode(value) == b'\n,;"'
    except (LookupError, UnicodeError):
        raise ValueError from None
    if not extends:
        raise ValueError
    return value


@group
class Keys(Group):
    """The keys of a row that hold the parts of a document."""

    panel = "Input"

    id_field: str | None = option(
        Text("NAME"),
        "Key of a row that holds the document id.",
        default=None,
        shown="id, _id, docid or doc_id",
    )
    text_field: str | None = option(
        Text("NAME"),
        "Key of a row that holds the text.",
        default=None,
        shown="text, contents, page_content or content",
    )
    title_field: str | None = option(
        Text("NAME"), "Key of a row that holds the title.", default=None, shown="title"
    )
    metadata_field: str | None = option(
        Text("NAME"),
        "Key of a row that holds the metadata; keys without another role are added to the metadata.",
        default=None,
        shown="metadata",
    )

    exclude_field: Sequence[str] | None = option(
        Texts("NAME"),
        "Key of a row to leave out, such as a column of images; repeatable.",
        default=None,
        shown="none",
    )
    include_field: Sequence[str] | None = option(
        Texts("NAME"),
        f"Key of a row to keep as metadata although it holds an embedding, {EMBEDDING} or more decimal "
        "numbers; repeatable.",
        default=None,
        shown="none",
    )

    @property
    def mapping(self) -> FieldMapping:
        """The keys as a mapping, with the defaults for omitted options."""
        return FieldMapping.named(
            id=self.id_field,
            text=self.text_field,
            title=self.title_field,
            metadata=self.metadata_field,
            exclude=self.exclude_field or (),
            include=self.include_field or (),
        )


@group
class Input(Keys):
    """The files of a corpus, their format and the keys of their rows."""

    panel = "Input"

    root: str | None = option(
        FileName("DIR"),
        "Folder that the ids of documents are relative to where a file is one document.",
        default=None,
        shown="the directory that is read; the working directory for files",
    )
    include: Sequence[str] | None = option(
        Texts("PATTERN"),
        "Files to read, as a pattern of .gitignore files, such as *.md or guide/; repeatable.",
        default=None,
        shown="all",
    )
    exclude: Sequence[str] | None = option(
        Texts("PATTERN"),
        "Files and folders to leave out, as a pattern of .gitignore files; !PATTERN keeps some; repeatable.",
        default=None,
        shown="none",
    )
    hidden: bool = option(Flag(), "Also read files and folders whose names begin with a dot.", default=False)

    input_format: Format | None = option(
        OneOf(FORMATS, "FORMAT"),
        f"Format of the corpus: {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.",
        default=None,
        shown="by the file name; jsonl for stdin",
    )

    encoding: str | None = option(
        Custom(_encoding, "an encoding that extends ASCII, such as cp1252 or latin-1", "NAME"),
        "Encoding of CSV, TSV, text and Markdown files, such as cp1252 for files of Excel in western Europe.",
        default=None,
        shown="UTF-8",
    )

    @property
    def selection(self) -> Selection:
        """The files to read. Raises UsageError."""
        from m3index.corpus.selection import Selection

        return Selection(self.root, tuple(self.include or ()), tuple(self.exclude or ()), self.hidden)


@dataclass(frozen=True, slots=True)
class MaxErrors(CountOrPercent):
    """The maximum number of bad rows of a successful run: a count, or a percentage of its rows, which applies
    from 100 rows on. A run without a good row is never successful unless 100% is given.

    An unreadable file counts as a bad row.
    """

    percent: float = 50.0

    least_rows = 100

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.count is None else f"{self.count:,}"

    def refusal_so_far(self, bad: int) -> str:
        """Why a run with this many bad rows must stop before it has read all; empty if it may go on."""
        if self.count is None or bad <= self.count:
            return ""
        return f"There are more bad rows than --max-errors allows ({self}). {_CORRECT}"

    def refusal(self, bad: int, rows: int) -> str:
        """Why a run in which `bad` of `rows` rows cannot be indexed is not successful; empty if it is."""
        if so_far := self.refusal_so_far(bad):
            return so_far
        if rows and bad == rows and not self.takes_all:
            return f"Nothing that was read can be indexed. {_CORRECT}"
        if self.count is None and rows >= self.least_rows and bad * 100 > rows * self.percent:
            return f"{bad:,} of {rows:,} rows are bad, and --max-errors allows {self}. {_CORRECT}"
        return ""


_CORRECT = "Correct the corpus, or raise --max-errors, and run again."


@group
class Rejects(Group):
    """What happens to rows that cannot be indexed."""

    panel = "Input"

    quarantine: str | None = option(
        FileName(),
        "File for bad rows with file, line and reason, to correct and ingest; none for no file.",
        default=None,
        shown="in the user's state directory for commands, none in Python",
    )
    max_errors: int | str | MaxErrors | None = option(
        Custom(MaxErrors.parse, "a number of rows or a percentage up to 100%", "N|P%"),
        "Maximum number or percentage of bad rows; a run with more removes nothing and fails (exit 17).",
        default=None,
        shown="50%, from 100 rows on",
    )

    @property
    def quarantine_file(self) -> str | None:
        """The file for bad rows; None if it is not named or `none`."""
        return None if self.quarantine == "none" else self.quarantine

    @property
    def most_errors(self) -> MaxErrors:
        """The limit of bad rows, with its default."""
        return MaxErrors() if self.max_errors is None else MaxErrors.parse(self.max_errors)


def _passage_tokens(value: object) -> int | Literal["full"]:
    if value == "full":
        return "full"
    number = int(value) if isinstance(value, str) and value.isascii() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError
    return number


@group
class Passages(Group):
    """How documents are split. Omitted options keep the collection's value."""

    panel = "Collection"

    passages_by: Division | None = option(
        OneOf(get_args(Division), "HOW"),
        "What passages follow: structure (sections, paragraphs, code and tables) or tokens (each as long as "
        "possible).",
        default=None,
        flags=("--passages",),
        shown="the collection's own; for a new one: structure",
    )
    passage_tokens: int | Literal["full"] | None = option(
        Custom(_passage_tokens, "a number of tokens or full", "N"),
        "Maximum number of tokens per passage, including title and prompt, or full for the model's limit.",
        default=None,
        shown="the collection's own; for a new one: 512 or the model's limit",
    )
    overlap: int | None = option(
        Whole(0),
        "Number of tokens that neighbouring passages share.",
        default=None,
        shown="the collection's own; for a new one: 64",
    )

    @property
    def splitting(self) -> PassageSettings | None:
        """The settings for splitting; None if no option is given."""
        from m3index.corpus.windows import PassageSettings

        if self.passages_by is None and self.passage_tokens is None and self.overlap is None:
            return None
        return PassageSettings(self.passage_tokens, self.overlap, self.passages_by)
