"""Reads `schemas/`: the collection definition, the JSON Schemas of input and output, and their version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from m3index import dates
from m3index.errors import UsageError
from m3index.types import FieldType, FieldValue, SparseKind, Storage

IndexClass: TypeAlias = Literal["small", "large", "huge"]
INDEX_CLASSES: tuple[IndexClass, ...] = get_args(IndexClass)
STORAGES: tuple[Storage, ...] = get_args(Storage)


@cache
def load(name: str) -> Any:
    """The contract `schemas/<name>`, parsed."""
    here = Path(__file__).resolve().parent
    for folder in (here / "schemas", here.parent / "schemas"):
        path = folder / name
        if path.is_file():
            return json.loads(path.read_text("utf-8"))
    raise FileNotFoundError(f"schemas/{name} is not in this installation of m3index")


def collection() -> Any:
    return load("collection.json")


def version() -> int:
    return int(collection()["version"])


SOURCE_BYTES: int = next(f["max_length"] for f in collection()["fields"] if f["name"] == "source")
VARCHAR_BYTES: int = collection()["limits"]["varchar_bytes"]
JSON_BYTES: int = collection()["limits"]["json_bytes"]
FIELD_TYPES: tuple[FieldType, ...] = tuple(collection()["declared_field"]["types"])
ROW_KEYS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "docid", "doc_id"),
    "text": ("text", "contents", "page_content", "content"),
    "title": ("title",),
    "metadata": ("metadata",),
}
"""The keys of a row that hold its parts, unless the user names others."""

RESERVED: frozenset[str] = frozenset(collection()["declared_field"]["reserved"]["words"])
BASE_FIELDS: frozenset[str] = frozenset(
    [f["name"] for f in collection()["fields"]] + ["dense", "lexical", "bm25", "bm25_input"]
)


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """Which indexes a collection has: those of a size class of the definition, with these changes.

    changes: `dense.type=HNSW_SQ`, `dense.M=24`, `dense.search.nprobe=128`, `sparse.mmap=true`, sorted.
    """

    size: IndexClass = "small"
    changes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, size: str, changes: Iterable[str] = ()) -> IndexChoice:
        """Raises UsageError."""
        values: dict[str, str] = {}
        for change in changes:
            match = _INDEX_CHANGE.fullmatch(change)
            if match is None:
                raise UsageError(
                    f"An index change is LEG.NAME=VALUE, as in dense.type=HNSW_SQ, dense.M=24, "
                    f"dense.search.ef=512, sparse.mmap=true or rows.mmap=true: {change!r} is not one."
                )
            values[match[1]] = match[2]
        for known in INDEX_CLASSES:
            if size == known:
                return cls(known, tuple(f"{name}={value}" for name, value in sorted(values.items())))
        raise UsageError(f"There is no index class {size!r}; there are {', '.join(INDEX_CLASSES)}.")

    @classmethod
    def from_json(cls, text: str) -> IndexChoice:
        """From a collection's property `index`, which is empty in collections older than the classes."""
        record = json.loads(text) if text else {}
        return cls(record.get("class", "small"), tuple(record.get("changes", ())))

    def to_json(self) -> str:
        return json.dumps({"class": self.size, "changes": self.changes})

    def __str__(self) -> str:
        return ", ".join([self.size, *self.changes])

    @property
    def options(self) -> str:
        """The options for the command line."""
        changes = [f"--index {change}" for change in self.changes]
        return " ".join([f"--index-class {self.size}", *changes])

    @property
    def dense_type(self) -> str:
        """The type of the dense index on a server."""
        of_class = collection()["index_classes"][self.size]["dense"]
        return str(self.part("dense").get("type", of_class))

    def part(self, prefix: str) -> dict[str, Any]:
        """The changes directly below a prefix (`dense`, `dense.search`); JSON values are parsed."""
        values = {}
        for change in self.changes:
            name, _, value = change.partition("=")
            above, _, last = name.rpartition(".")
            if above == prefix:
                values[last] = _json_or_text(value)
        return values


_GENERATION = re.compile(r"(.+)__g([1-9][0-9]*)")


def generation_name(alias: str, number: int) -> str:
    """The concrete collection behind an alias: `docs__g1`."""
    return f"{alias}__g{number}"


def split_generation(name: str) -> tuple[str, int] | None:
    """The alias and the number of a concrete collection; None for any other collection."""
    match = _GENERATION.fullmatch(name)
    return (match[1], int(match[2])) if match else None


_INDEX_CHANGE = re.compile(
    r"\s*((?:dense|sparse)(?:\.search)?\.[A-Za-z]\w*|rows\.mmap)\s*=\s*(\S(?:.*\S)?)\s*"
)


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """The parameters of a collection, which fill in `schemas/collection.json`.

    dim: width of the dense vector. fields: the declared typed columns, by name. analyzer: a name
    in `analyzers` of the definition (`icu`, `stems`), only if sparse is `bm25`. tenant: the
    declared field that is the partition key. storage: how dense vectors are stored.
    """

    dim: int
    sparse: SparseKind
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    analyzer: str | None = None
    tenant: str | None = None
    storage: Storage = "fp32"
    index: IndexChoice = IndexChoice()


def with_tenant(
    fields: Mapping[str, FieldType], declaration: str | None
) -> tuple[dict[str, FieldType], str | None]:
    """The declared fields, including the tenant field (`org`, `org:int`), and its name.

    Raises UsageError if it is declared with another type, or with a type that no partition key can have.
    """
    columns = dict(fields)
    if declaration is None:
        return columns, None
    typed = ":" in declaration
    name, kind = parse_field(declaration)
    declared = columns.setdefault(name, kind)
    if typed and declared != kind:
        raise UsageError(f"The tenant field {name!r} is declared {declared} and {kind}; choose one of them.")
    if declared not in collection()["tenant"]["types"]:
        raise UsageError(f"The tenant field {name!r} is declared {declared}; it must be str or int.")
    return columns, name


def tenant_value(name: str, kind: FieldType, text: str) -> str | int:
    """A tenant as a person writes it, converted to the field's type. Raises UsageError."""
    if kind != "int":
        return text
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise UsageError(f"The tenant field {name!r} holds whole numbers of 64 bits: {text!r} is none.")
    return number


def parse_field(declaration: str) -> tuple[str, FieldType]:
    """`lang:str` -> ("lang", "str"). Raises UsageError."""
    name, colon, kind = declaration.partition(":")
    return check_field(name.strip(), kind.strip() if colon else "str")


PATH = "__"
"""Parts the keys of a nested value in the name of its column, as Milvus allows no dot there."""


def column_of(name: str) -> str:
    """The column of a field as users may write it: `author.name` -> `author__name`."""
    return name.replace(".", PATH)


def value_at(metadata: Mapping[str, Any], name: str) -> Any:
    """What metadata has for a declared field; None if nothing. For `author__name`, it is the value of this
    key, of `author.name`, or of `name` in `author`. A list on the way gives a list of values."""
    value = metadata.get(name)
    if value is not None or PATH not in name:
        return value
    value = metadata.get(name.replace(PATH, "."))
    return value if value is not None else _inside(metadata, name.split(PATH))


def _inside(value: Any, path: Sequence[str]) -> Any:
    if isinstance(value, list | tuple) and path:
        found = (_inside(element, path) for element in value)
        values = (v if isinstance(v, list) else [v] for v in found if v is not None)
        return [v for part in values for v in part] or None
    if not path:
        return value
    return _inside(value.get(path[0]), path[1:]) if isinstance(value, Mapping) else None


def check_field(name: str, kind: str) -> tuple[str, FieldType]:
    """The column and the type of a declaration. Raises UsageError."""
    written, name = name, column_of(name)
    if not all(written.split(".")):
        raise UsageError(f"{written!r} is not a valid field name. Write a nested key as author.name.")
    if not (name.isascii() and name.isidentifier()) or name.startswith("_") or len(name) > 255:
        raise UsageError(
            f"{written!r} is not a valid field name. Use up to 255 letters, digits and _; the first "
            "character is a letter."
        )
    if name in BASE_FIELDS:
        raise UsageError(f"{name!r} is a field of every collection; choose another name for yours.")
    for part, keys in ROW_KEYS.items():
        if name in keys:
            raise UsageError(
                f"{name!r} is a key that a row's {part} is read from, never a field; rename it in the corpus."
            )
    if name.lower() in RESERVED:
        raise UsageError(
            f"{name!r} is a word of Milvus's filters, so that a field of this name cannot be filtered by; "
            "rename it in the corpus."
        )
    for known in FIELD_TYPES:
        if kind == known:
            return name, known
    raise UsageError(f"Field {name!r}: there is no type {kind!r}; choose one of {', '.join(FIELD_TYPES)}.")


def field_value(name: str, kind: FieldType, value: Any) -> FieldValue:
    """`value` as the declared type. Raises ValueError with the reason (the row is then quarantined).

    An int becomes a float where one is declared, and a date becomes ISO 8601 in UTC with a fixed width.
    """
    if value is None:
        return None
    match kind:
        case "str" if isinstance(value, str):
            _check_utf8(name, value, VARCHAR_BYTES)
            return value
        case "bool" if isinstance(value, bool):
            return value
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"field {name!r}: {value} does not fit in 64 bits")
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = float("inf")
            if number - number != 0.0:
                raise ValueError(f"field {name!r}: {value} is not a finite number")
            return number
        case "date" if isinstance(value, str | date):
            try:
                return dates.stored(value)
            except ValueError as error:
                raise ValueError(f"field {name!r}: {error}") from None
        case "str[]" if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            capacity = collection()["declared_field"]["types"]["str[]"]["max_capacity"]
            if len(value) > capacity:
                raise ValueError(f"field {name!r}: {len(value)} elements, the limit is {capacity}")
            for v in value:
                _check_utf8(name, v, VARCHAR_BYTES)
            return tuple(value)
    raise ValueError(f"field {name!r} is declared {kind}, but the value is {type(value).__name__}")


MAX_DEPTH = 100
"""How deep metadata may be nested."""

_INTEGERS = range(-(2**63), 2**63)


class _UnfitError(Exception):
    """A value that JSON in a store cannot hold. path: where it is, from the inside out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path: list[str | int] = []


class JsonMetadata(Mapping[str, Any]):
    """Metadata whose JSON was made and checked where it was read. json: what `metadata_json` made of it; it
    is parsed when a value is first asked for."""

    __slots__ = ("_values", "json")

    def __init__(self, json: str, values: Mapping[str, Any] | None = None) -> None:
        self.json, self._values = json, values

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __repr__(self) -> str:
        return repr(dict(self))

    def _parsed(self) -> Mapping[str, Any]:
        if self._values is None:
            self._values = json.loads(self.json)
        return self._values


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """The metadata as JSON that every store holds without loss.

    Raises ValueError for anything else, naming the key: NaN, half a character, a whole number beyond 64 bits,
    a key that is not a string, more than 100 levels, more than `limits.json_bytes` bytes.
    """
    if isinstance(metadata, JsonMetadata):
        return metadata.json
    if not all(map(_is_plain, metadata, metadata.values())):
        try:
            _check_json(metadata, 0)
        except _UnfitError as error:
            parts = reversed(error.path)
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
            raise ValueError(f"{where[1:]!r} holds {error}") from None
    text = _to_json(dict(metadata))
    size = utf8_size(text)
    if size > JSON_BYTES:
        raise ValueError(f"the metadata has {size:,} bytes as JSON; the limit is {JSON_BYTES:,}")
    return text


def _object(value: object) -> dict[str, Any]:
    """A mapping that is no dict, as JSON takes it."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def json_encoder(*, sort_keys: bool = False, allow_nan: bool = False) -> Callable[[Any], str]:
    """Encodes compactly, and mappings of any type as objects."""
    return json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=allow_nan, sort_keys=sort_keys, default=_object
    ).encode


_to_json = json_encoder()
_PLAIN = frozenset((str, bool, type(None)))
_SMALL = range(-(2**53), 2**53)


def _is_plain(key: object, value: object) -> bool:
    """Whether this entry is surely JSON, seen without looking into it: most are."""
    kind = type(value)
    return (
        type(key) is str
        and key.isascii()
        and (kind in _PLAIN or (kind is int and value in _SMALL))
        and (kind is not str or value.isascii())  # type: ignore[attr-defined]
    )


def _check_json(value: Any, depth: int) -> None:
    match value:
        case str():
            if not value.isascii():
                _check_characters(value)
        case None | bool():
            pass
        case int():
            if value not in _INTEGERS:
                raise _UnfitError("a whole number beyond 64 bits, which cannot be stored without loss")
        case float():
            if value - value != 0.0:
                raise _UnfitError("NaN or an infinite number, which is not JSON")
        case Mapping() | list() | tuple():
            if depth == MAX_DEPTH:
                raise ValueError(f"the metadata is nested more than {MAX_DEPTH} levels deep")
            for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
                try:
                    if isinstance(value, Mapping):
                        _check_key(key)
                    _check_json(inner, depth + 1)
                except _UnfitError as error:
                    error.path.append(key)
                    raise
        case _:
            raise _UnfitError(f"a {type(value).__name__}, which is not JSON")


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _UnfitError("a key that is not text")
    if not key.isascii():
        _check_characters(key)


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _UnfitError("a lone surrogate (half a character), which cannot be stored") from None


def utf8_size(text: str) -> int:
    """The number of bytes. Raises UnicodeEncodeError for a lone surrogate."""
    return len(text) if text.isascii() else len(text.encode())


def _check_utf8(name: str, value: str, limit: int) -> None:
    try:
        size = utf8_size(value)
    except UnicodeEncodeError:
        raise ValueError(f"field {name!r}: a lone surrogate cannot be stored") from None
    if size > limit:
        raise ValueError(f"field {name!r}: {size} bytes, the limit is {limit}")
