"""Turns a row of any format into a Document, or says why it is not one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from m3index import schema
from m3index.schema import JsonMetadata
from m3index.types import Document, FieldType, FieldValue, Place, Row

EMBEDDING = 64
"""From how many decimal numbers on a list is an embedding, which is not metadata unless asked for."""

_LISTS = frozenset((list, tuple))
_TYPE_NAMES = {
    "bool": "true or false",
    "float": "a decimal number",
    "int": "a number",
    "list": "a list",
    "dict": "an object",
}


class RowError(ValueError):
    """The row is not a document. doc_id: its id, if it has a usable one."""

    def __init__(self, reason: str, doc_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.doc_id = reason, doc_id


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """Which keys of a row hold what. Of several keys, the first that is present and not null counts.

    Every other key goes into the document's metadata, next to the contents of the `metadata` object. exclude:
    keys of a row that count as absent. include: keys that are kept although they hold an embedding.
    """

    id: tuple[str, ...] = schema.ROW_KEYS["id"]
    text: tuple[str, ...] = schema.ROW_KEYS["text"]
    title: tuple[str, ...] = schema.ROW_KEYS["title"]
    metadata: tuple[str, ...] = schema.ROW_KEYS["metadata"]
    exclude: frozenset[str] = frozenset()
    include: frozenset[str] = frozenset()
    _roles: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys = frozenset((*self.id, *self.text, *self.title, *self.metadata))
        object.__setattr__(self, "_roles", keys)

    @classmethod
    def named(
        cls,
        *,
        id: str | None = None,  # noqa: A002
        text: str | None = None,
        title: str | None = None,
        metadata: str | None = None,
        exclude: Collection[str] = (),
        include: Collection[str] = (),
    ) -> FieldMapping:
        """A key that the user names replaces the default keys of that part."""
        keys = {"id": id, "text": text, "title": title, "metadata": metadata}
        named: dict[str, Any] = {part: (key,) for part, key in keys.items() if key}
        return cls(**named, exclude=frozenset(exclude), include=frozenset(include))

    def columns(self, names: Sequence[str], fields: Collection[str] = ()) -> list[str]:
        """The columns of a table by the names of keys and declared fields that they have but for case and for
        spaces around them, such as `ID`. A name that another column has exactly is not given twice."""
        nested = [field.replace(schema.PATH, ".") for field in fields]
        known = (*self._roles, *fields, *nested, *self.exclude, *self.include)
        keys = {key.casefold(): key for key in known}
        taken, columns = set(names), []
        for name in names:
            key = keys.get(name.strip().casefold(), name)
            columns.append(name if key in taken else key)
            taken.add(key)
        return columns

    def missing(self, names: Sequence[str], as_written: Sequence[str]) -> str:
        """Why a table with these columns cannot hold documents; empty if it can. as_written: as the file has
        them."""
        for what, keys in (("id", self.id), ("text", self.text)):
            if not any(key in names and key not in self.exclude for key in keys):
                shown = ", ".join(as_written[:20]) + (", ..." if len(names) > 20 else "")
                return (
                    f"no column {_either(keys)} for the {what}; its columns are: {shown}. Name the right one "
                    f"with --{what}-field"
                )
        return ""

    def row_id(self, row: Mapping[str, Any]) -> str:
        """The id of a row: of a document, of a deletion, in a list of ids. Raises RowError."""
        row = self._kept(row)
        return self._row_id(row, _first(row, self.id))

    def _row_id(self, row: Mapping[str, Any], key: str | None) -> str:
        if key is None:
            raise RowError(f"no id: the row has no {_either(self.id)}")
        return _id(key, row[key])

    def document(
        self, row: Mapping[str, Any], place: Place | None = None, left_out: Counter[str] | None = None
    ) -> Document:
        """left_out: counts the keys that are left out of the metadata because they hold an embedding. Raises
        RowError."""
        row = self._kept(row)
        id_key = _first(row, self.id)
        doc_id = self._row_id(row, id_key)
        try:
            text_key, title_key = _first(row, self.text), _first(row, self.title)
            if text_key is None:
                raise RowError(f"no text: the row has no {_either(self.text)}")
            text = _string(text_key, row[text_key])
            if not text or text.isspace():
                raise RowError(f"no text: {text_key!r} is empty")
            title = "" if title_key is None else _string(title_key, row[title_key])
            if 4 * len(title) > schema.VARCHAR_BYTES and len(title.encode()) > schema.VARCHAR_BYTES:
                raise RowError(f"the title has more than {schema.VARCHAR_BYTES:,} bytes")
            embeddings = self._embeddings(row)
            metadata = self._metadata(row, id_key, text_key, title_key, *embeddings)
        except RowError as error:
            raise RowError(error.reason, doc_id) from None
        if left_out is not None:
            left_out.update(embeddings)
        return Document(doc_id, text, title, metadata, place)

    def _embeddings(self, row: Mapping[str, Any]) -> list[str]:
        return [
            key
            for key, value in row.items()
            if _is_embedding(value) and not self.has_role(key) and key not in self.include
        ]

    def has_part(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a key for an id or a text: none has both without being meant for an index."""
        return any(key in row for key in (*self.id, *self.text))

    def has_role(self, key: str) -> bool:
        """Whether this key of a row can hold the id, text, title or metadata."""
        return key in self._roles

    def _kept(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.exclude or self.exclude.isdisjoint(row):
            return row
        return {key: value for key, value in row.items() if key not in self.exclude}

    def _metadata(self, row: Mapping[str, Any], *left_out: str | None) -> JsonMetadata:
        key = _first(row, self.metadata)
        nested = {} if key is None else _object(key, row[key])
        others = {
            k: v
            for k, v in row.items()
            if k not in left_out and k != key and (v is not None or k not in self._roles)
        }
        for name in others.keys() & nested.keys():
            if others[name] != nested[name]:
                raise RowError(f"{name!r} is both in the row and in its {key!r}, with different values")
        metadata = nested | others
        try:
            return JsonMetadata(schema.metadata_json(metadata), metadata)
        except ValueError as error:
            raise RowError(str(error)) from None


STANDARD = FieldMapping()
"""The keys that a row has unless the user names others."""


def declared(
    document: Document | Row, fields: Mapping[str, FieldType], tenant: str | None = None
) -> dict[str, FieldValue]:
    """The values of the declared fields, from the metadata. Raises ValueError with the reason.

    tenant: the field that names the document's tenant; every document must have it.
    """
    values = {
        name: schema.field_value(name, kind, schema.value_at(document.metadata, name))
        for name, kind in fields.items()
    }
    if tenant is not None and values[tenant] in (None, ""):
        raise ValueError(f"no {tenant!r} in its metadata, which says whose it is (the tenant field)")
    return values


def typed_cell(cell: str, kind: FieldType) -> Any:
    """A CSV cell, which is always a string, as its declared type. A cell that does not fit is returned
    unchanged, for `declared` to refuse."""
    try:
        match kind:
            case "int" if "_" not in cell:
                return int(cell)
            case "float" if "_" not in cell:
                return float(cell)
            case "bool":
                return {"true": True, "false": False, "1": True, "0": False}[cell.strip().lower()]
            case "str[]" if isinstance(value := json.loads(cell), list):
                return value
    except (ValueError, KeyError, RecursionError):
        pass
    return cell


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        if row.get(key) is not None:
            return key
    return None


def _is_embedding(value: Any) -> bool:
    return (
        type(value) in _LISTS
        and len(value) >= EMBEDDING
        and all(isinstance(number, float | int) for number in value)
        and any(isinstance(number, float) for number in value)
    )


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(repr(k) for k in keys[:-1]), repr(keys[-1])]))


def _id(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"no usable id: {key!r} is {_kind(value)}; give a string or a whole number")
    if isinstance(value, int):
        return str(value)
    if not value or value.isspace():
        raise RowError(f"no id: {key!r} is empty")
    if "\0" in value:
        raise RowError(f"the id in {key!r} holds a NUL character, which cannot be stored")
    if (len(value) if value.isascii() else len(_utf8(key, value))) > schema.VARCHAR_BYTES:
        raise RowError(f"the id in {key!r} has more than {schema.VARCHAR_BYTES:,} bytes")
    return value


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RowError(f"{key!r} is {_kind(value)}, not a string")
    if not value.isascii():
        _utf8(key, value)
    return value


def _utf8(key: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            f"{key!r} holds a lone surrogate (half a character) at character {error.start}, "
            "which cannot be stored"
        ) from None


def _object(key: str, value: Any) -> dict[str, Any]:
    """The metadata object. CSV and Parquet carry it as a JSON string."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            raise RowError(f"{key!r} is a string that does not hold a JSON object") from None
    if not isinstance(value, Mapping):
        raise RowError(f"{key!r} is {_kind(value)}, not an object")
    return dict(value)


def _kind(value: Any) -> str:
    return _TYPE_NAMES.get(type(value).__name__, type(value).__name__)
