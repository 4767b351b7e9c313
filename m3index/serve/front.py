"""What the first screen of the page says of a collection: how much there is, how fresh it is, what to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from m3index.index.tenant import Tenant
from m3index.schema import PATH, CollectionSpec
from m3index.store.base import Store, StoredRow
from m3index.store.filter import Compare, combine
from m3index.types import FieldType

ROWS = 64
QUERIES = 4
LONGEST = 60
"""Characters of a sample."""


@dataclass(frozen=True, slots=True)
class Front:
    """queries: titles of documents, or the beginnings of texts without one, in turn by language. condition: a
    filter that some documents match; empty without declared fields."""

    documents: int
    passages: int
    queries: Sequence[str]
    condition: str


def front(store: Store, name: str, spec: CollectionSpec, owner: Tenant | None) -> Front:
    """Counts the rows, and reads some of them. owner: the only tenant to speak of. Raises StoreError."""
    own = None if owner is None else owner.where
    first = combine(Compare("ordinal", "==", 0), own)
    fields = [field for field in spec.fields if field != spec.tenant]
    keys = [str(row["passage_id"]) for row in islice(store.scan(name, first, []), ROWS)]
    found = store.get(name, keys, ["title", "text", "metadata", *fields])
    rows = [found[key] for key in sorted(found)]  # keys are digests, so that their order is one by chance
    documents, passages = store.count(name, first), store.count(name, own)
    return Front(documents, passages, _queries(rows), _condition(rows, {f: spec.fields[f] for f in fields}))


def _queries(rows: Sequence[StoredRow]) -> list[str]:
    by_language: dict[str, list[str]] = {}
    for row in rows:
        if sample := _sample(row):
            by_language.setdefault(str(row["metadata"].get("lang", "")), []).append(sample)
    in_turn = (one for turn in zip_longest(*by_language.values()) for one in turn if one)
    return list(dict.fromkeys(in_turn))[:QUERIES]


def _sample(row: StoredRow) -> str:
    text = " ".join((row["title"] or row["text"]).split())
    if len(text) <= LONGEST:
        return text
    if row["title"]:
        return ""
    beginning = text[:LONGEST].rpartition(" ")[0]
    return beginning or text[: LONGEST // 2]


def _condition(rows: Sequence[StoredRow], fields: Mapping[str, FieldType]) -> str:
    for field, kind in fields.items():
        for row in rows:
            value = _shown(kind, row[field])
            if 0 < len(value) <= LONGEST // 2:
                return f"{field.replace(PATH, '.')}={value}"
    return ""


def _shown(kind: FieldType, value: Any) -> str:
    """The value as a condition takes it; empty for none, and for numbers that nobody would write."""
    if value is None or kind == "float":
        return ""
    match kind:
        case "date":
            return str(value)[:4]
        case "str[]":
            return str(value[0]) if value else ""
        case "bool":
            return str(value).lower()
        case _:
            return str(value)
