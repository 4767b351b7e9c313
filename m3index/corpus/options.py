"""How a corpus is read, and how its documents are split into passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from m3index.corpus.mapping import EMBEDDING, FieldMapping
from m3index.options import Custom, FileName, Group, OneOf, Text, Texts, Whole, group, option

if TYPE_CHECKING:
    from m3index.corpus.windows import PassageSettings

FORMATS = ("jsonl", "parquet", "csv", "tsv", "text")
Format = Literal["jsonl", "parquet", "csv", "tsv", "text"]


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
    """The format of a corpus and the keys of its rows."""

    panel = "Input"

    input_format: Format | None = option(
        OneOf(FORMATS, "FORMAT"),
        "Format of the corpus: jsonl, parquet, csv, tsv or text.",
        default=None,
        shown="by the file name; jsonl for stdin",
    )


@group
class Rejects(Group):
    """What happens to rows that cannot be indexed."""

    panel = "Input"

    quarantine: str | None = option(
        FileName(),
        "File for bad rows with file, line and reason; correct it and ingest it.",
        default=None,
        shown="m3index-quarantine.jsonl for commands, none in Python",
    )
    max_errors: int | None = option(
        Whole(0),
        "Maximum number of bad rows; after more, the run stops (exit 17).",
        default=None,
        shown="no limit",
    )


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
    def passages(self) -> PassageSettings | None:
        """The settings for splitting; None if neither option is given."""
        from m3index.corpus.windows import PassageSettings

        if self.passage_tokens is None and self.overlap is None:
            return None
        return PassageSettings(self.passage_tokens, self.overlap)
