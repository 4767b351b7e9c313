"""The options of runs that write: the layout of a collection, the documents a run covers, and what it may
remove."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, Protocol, TypeAlias

from m3index import schema
from m3index.corpus.options import Input, Passages, Rejects
from m3index.dates import DURATION_UNITS
from m3index.errors import Exit, UsageError
from m3index.options import (
    CountOrPercent,
    Custom,
    Flag,
    Group,
    OneOf,
    OptionError,
    Text,
    Texts,
    Whole,
    group,
    option,
)
from m3index.schema import INDEX_CLASSES, STORAGES, IndexChoice, IndexClass
from m3index.store.filter import TAKES, Where, check_where
from m3index.types import DEFAULT_SOURCE, FieldType, SparseKind, Storage
from m3index.wording import many

Mode: TypeAlias = Literal["ingest", "sync", "prune"]
Fields: TypeAlias = Mapping[str, str | type] | Sequence[str]
"""Declared fields: `{"lang": str, "year": int}`, `{"lang": "str"}` or `["lang:str", "year:int"]`."""

SPARSE_KINDS: tuple[SparseKind, ...] = ("lexical", "bm25", "none")
FLOOR = 10
_PYTHON_TYPES: Mapping[Any, FieldType] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    date: "date",
    datetime: "date",
    list[str]: "str[]",
}
_WHERE_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object"},
    ]
}


class Stop(Protocol):
    """Called between batches; returning True ends the run after the current batch with the code `exit`."""

    def __call__(self) -> bool: ...

    @property
    def exit(self) -> Exit: ...


class Never:
    """A `Stop` that never ends a run."""

    exit = Exit.INTERRUPTED

    def __call__(self) -> bool:
        return False


# ------------------------------------------------------------- the guard


@dataclass(frozen=True, slots=True)
class MaxDelete(CountOrPercent):
    """The maximum number of documents a run may remove: a count, or a percentage of the documents of its
    source in the collection, but at least 10."""

    percent: float = 10.0

    def refusal(self, documents: int, total: int) -> str:
        """Why this many of `total` documents may not be removed; empty if they may."""
        limit = max(FLOOR, int(total * self.percent / 100)) if self.count is None else self.count
        if documents <= limit:
            return ""
        return (
            f"one run may remove at most {limit:,} of {many(total, 'document')}. "
            f"To remove them, pass --max-delete {documents}."
        )


# ----------------------------------------------------------------- values


def read_fields(value: object) -> dict[str, FieldType]:
    """The declared fields by name. Raises ValueError for another form, UsageError for a bad name or type."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        declared = {}
        for name, kind in value.items():
            if not isinstance(name, str):
                raise ValueError
            type_name = _PYTHON_TYPES.get(kind) if not isinstance(kind, str) else kind
            if type_name is None:
                raise UsageError(
                    f"Field {name!r} cannot have the type {getattr(kind, '__name__', kind)!r}. "
                    f"Use {', '.join(schema.FIELD_TYPES)}."
                )
            column, known = schema.check_field(name, type_name)
            declared[column] = known
        return declared
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return dict(map(schema.parse_field, value))
    raise ValueError


def seconds(value: object) -> float:
    """Converts `90`, `90s`, `5m`, `1h` or `2d` to seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    return float(match[1]) * DURATION_UNITS[match[2] or "s"]


def _tenant(value: object) -> str:
    if value == "":
        raise OptionError("tenant", "is empty. Name a tenant, or omit the option for all tenants.")
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError


# ----------------------------------------------------------------- groups


@group
class TenantLimit(Group):
    """The tenant whose documents a command covers."""

    panel = "Filter"

    tenant: str | int | None = option(
        Custom(_tenant, "the name of a tenant", "VALUE"),
        "Tenant to which the command is limited, by the tenant field of the collection.",
        default=None,
        shown="all",
        variable=True,
    )

    @property
    def tenant_name(self) -> str | None:
        """The tenant as text."""
        return None if self.tenant is None else str(self.tenant)


@group
class Filtering(Group):
    """Selects documents by their fields."""

    panel = "Filter"

    where: Where | None = option(
        Custom(check_where, TAKES, "CONDITION", _WHERE_SCHEMA, is_repeatable=True),
        "Condition on a declared field (=, !=, <, <=, >, >=, in), such as lang=en; repeatable, and all "
        "conditions must hold.",
        default=None,
        shown="none",
        file=False,
    )
    filter: str | None = option(
        Text("EXPRESSION"),
        "Milvus filter expression that documents must match.",
        default=None,
        shown="none",
        file=False,
    )


@group
class Columns(Group):
    """The layout of a collection except its passages.

    Omitted options keep the collection's value, or take the default in a new collection. A run whose options
    differ from the collection raises MismatchError.
    """

    panel = "Collection"

    fields: Fields | None = option(
        Custom(
            read_fields,
            'fields such as {"lang": str} or ["lang:str"]',
            "NAME:TYPE",
            {"type": "object"},
            is_repeatable=True,
        ),
        f"Metadata key to store as a typed column for filters ({', '.join(schema.FIELD_TYPES)}); repeatable.",
        default=None,
        flags=("--field",),
        shown="the collection's own",
    )
    sparse: SparseKind | None = option(
        OneOf(SPARSE_KINDS, "KIND"),
        "Kind of sparse vectors: lexical, bm25 or none.",
        default=None,
        shown="lexical if the model has a lexical head, else bm25",
    )
    analyzer: str | None = option(
        Text("NAME"),
        "BM25 analyzer of a new collection.",
        default=None,
        shown="the best one the store supports",
    )
    tenant_field: str | None = option(
        Text("FIELD"),
        "Metadata key that holds the tenant of a document (:int for integers), the partition key of a new "
        "collection.",
        default=None,
        shown="the collection's own",
    )
    storage: Storage | None = option(
        OneOf(STORAGES, "TYPE"),
        "Storage type of dense vectors on a server: fp32, or fp16 or bf16 for half the bytes.",
        default=None,
        shown="the collection's own; for a new one: fp32",
    )
    index_class: IndexClass | None = option(
        OneOf(INDEX_CLASSES, "CLASS"),
        "Index class on a server: small (HNSW), large (IVF_RABITQ) or huge (DISKANN); see docs/scale.md.",
        default=None,
        shown="the collection's own; for a new one: small",
    )
    index: Sequence[str] | None = option(
        Texts("LEG.NAME=VALUE"),
        "Change to the index class, such as dense.type=HNSW_SQ, dense.M=24 or sparse.mmap=true; repeatable.",
        default=None,
        shown="none",
    )

    def check(self) -> None:
        self.index_choice  # noqa: B018  (raises for an invalid change)
        super().check()

    @property
    def declared(self) -> dict[str, FieldType] | None:
        """The declared fields by name and type; None if the option is not given."""
        return None if self.fields is None else read_fields(self.fields)

    @property
    def index_choice(self) -> IndexChoice | None:
        """The index class and its changes; None if neither option is given."""
        if self.index_class is None and not self.index:
            return None
        return IndexChoice.parse(self.index_class or "small", self.index or ())


@group
class CollectionLayout(Columns, Passages):
    """The layout of a collection, including how its documents are split into passages."""


@group
class CorpusName(Group):
    """The corpus a run covers."""

    panel = "Input"

    source: str = option(
        Text("NAME", most=schema.SOURCE_BYTES),
        "Name of the corpus; several can share a collection, and a run affects only the documents of one.",
        default=DEFAULT_SOURCE,
    )


@group
class DocumentScope(TenantLimit, CorpusName):
    """The documents a run covers; it neither reads nor writes others."""


@group
class Waiting(Group):
    """What a run does while another run writes."""

    panel = "Store"

    retry_lock: float | str = option(
        Custom(seconds, "a duration such as 90s, 5m or 1h", "TIME", {"type": ["number", "string"]}),
        "Maximum time to wait for another run to finish, in seconds or as 90s, 5m or 1h.",
        default=0.0,
        shown="0s",
    )

    @property
    def lock_seconds(self) -> float:
        """`retry_lock` in seconds."""
        return seconds(self.retry_lock)


@group
class DeleteGuard(Group):
    """How many documents a run may remove."""

    panel = "Input"

    max_delete: int | str | MaxDelete | None = option(
        Custom(MaxDelete.parse, "a number of documents or a percentage up to 100%", "N|P%"),
        "Maximum number or percentage of documents to remove in one run; if exceeded, none are (exit 14).",
        default=None,
        shown="10%, but at least 10 documents",
    )

    @property
    def guard(self) -> MaxDelete | None:
        """The limit; None if it is not given, in which case an empty corpus removes nothing."""
        return None if self.max_delete is None else MaxDelete.parse(self.max_delete)


@group
class Force(Group):
    """Flags for a single run, which cannot be set in a file."""

    panel = "Run"

    force: bool = option(Flag(), "Encode unchanged documents again.", default=False, file=False)
    dry_run: bool = option(
        Flag(), "Report what would be done without writing anything.", default=False, file=False
    )


@group
class Calibrating(Group):
    """The measurement that fusion by evidence rests on."""

    panel = "Run"

    no_calibrate: bool = option(
        Flag(),
        "Do not measure how well the dense leg finds stored passages again, which takes some seconds after "
        "the first run and whenever the collection has doubled (docs/fusion.md).",
        default=False,
    )


@group
class IngestOptions(Calibrating, Force, Waiting, CollectionLayout, Rejects, Input, DocumentScope):
    """A run over a corpus that removes nothing."""

    @property
    def guard(self) -> MaxDelete | None:
        return None

    @property
    def mode(self) -> Mode:
        return "ingest"

    @property
    def may_end_early(self) -> bool:
        """Whether the run may end without comparing documents if the corpus is what it was."""
        return False

    @property
    def command(self) -> str:
        """The command line of such a run."""
        return "sync --removals-only" if self.mode == "prune" else self.mode


@group
class SyncOptions(DeleteGuard, IngestOptions):
    """A run over a corpus that also removes the documents that have left it."""

    panel = "Run"

    removals_only: bool = option(
        Flag(),
        "Only remove documents that have left the corpus; encode and write nothing.",
        default=False,
        file=False,
    )

    thorough: bool = option(
        Flag(),
        "Compare every document although the files are byte for byte those of the last run.",
        default=False,
        file=False,
    )

    @property
    def mode(self) -> Mode:
        return "prune" if self.removals_only else "sync"

    @property
    def may_end_early(self) -> bool:
        return not (self.thorough or self.force or self.removals_only)


@group
class VerifyOptions(Waiting, DeleteGuard, Input, DocumentScope):
    """A comparison of the index with the corpus."""

    panel = "Verification"

    subset: str | tuple[int, int] = option(
        Custom(lambda value: subset(value), "a slice such as 3/64", "I/N"),
        "Verify only slice I of N of the documents, so that N runs verify all of them.",
        default="1/1",
    )
    repair: bool = option(Flag(), "Repair the differences.", default=False, file=False)

    @property
    def slice(self) -> tuple[int, int]:
        """The number of the slice, from 1, and the number of slices."""
        return subset(self.subset)


def subset(value: object) -> tuple[int, int]:
    """Converts `3/64`, the third of 64 slices, to (3, 64). Raises ValueError."""
    if isinstance(value, tuple) and len(value) == 2:
        value = f"{value[0]}/{value[1]}"
    if not isinstance(value, str):
        raise ValueError
    number, _, total = value.partition("/")
    if number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
        return int(number), int(total)
    raise ValueError


@group
class DeleteOptions(Waiting, Filtering, DocumentScope):
    """The documents to remove."""

    panel = "Documents"

    ids: Sequence[str] | None = option(
        Texts("DOC_ID"),
        "Ids of the documents to remove.",
        default=None,
        flag=False,
        file=False,
        kw_only=False,
    )
    dry_run: bool = option(
        Flag(), "Report what would be removed without removing anything.", default=False, file=False
    )

    def check(self) -> None:
        if (self.ids is not None) == (self.where is not None or self.filter is not None):
            raise UsageError("Select the documents either by ids or by where and filter.")
        super().check()


@group
class ReindexOptions(Calibrating, Force, Waiting, DeleteGuard, CollectionLayout, Rejects, Input, CorpusName):
    """A new generation of a collection, always for all tenants."""

    panel = "Generation"

    gate: str | None = option(
        Text("CONDITION"),
        "Condition for serving the new generation, such as nDCG@10>=old-0.005 (exit 16 if it fails).",
        default=None,
        shown="none",
    )
    keep: int = option(
        Whole(0), "Number of earlier generations to keep for rollback: those that served last.", default=1
    )
