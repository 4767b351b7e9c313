"""The one builder of filters. Values enter an expression here and nowhere else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from m3index.errors import FilterError
from m3index.types import FieldType

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Scalar: TypeAlias = str | int | float | bool

BASE_FIELDS: Mapping[str, FieldType] = {"doc_id": "str", "source": "str", "title": "str", "ordinal": "int"}
"""What every collection can be filtered by, beside its declared fields."""


@dataclass(frozen=True, slots=True)
class Compare:
    """field op value, on a typed column. On `str[]` columns (`array`), == means: contains."""

    field: str
    op: Operator
    value: Scalar
    array: bool = False


@dataclass(frozen=True, slots=True)
class In:
    """field in [values], on a typed column; on `str[]` columns (`array`): contains one of them."""

    field: str
    values: Sequence[Scalar]
    array: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """A Milvus boolean expression that the user wrote, passed on as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class All:
    """Every part must hold."""

    parts: Sequence[Filter]


Filter: TypeAlias = Compare | In | Expression | All


# ---------------------------------------------------------------- building

_WHERE = re.compile(r"\s*(\w+)\s*(==|!=|>=|<=|=|<|>|\sin\s)\s*(.*?)\s*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_where(text: str, fields: Mapping[str, FieldType]) -> Filter:
    """`lang=en`, `year>=2020`, `lang in en,de` as a filter over the declared `fields`.

    The value is read as the field's type; one in double quotes is read as a JSON string, so that it
    may hold commas and outer spaces. `=` on a `str[]` field means: contains. Raises FilterError.
    """
    found = _WHERE.fullmatch(text)
    if found is None:
        raise FilterError(f"{text!r} is no condition: write it as lang=en, year>=2020 or 'lang in en,de'.")
    name, sign, value = found[1], found[2].strip(), found[3]
    known = {**BASE_FIELDS, **fields}
    if name not in known:
        raise FilterError(f"There is no field {name!r} to filter by; there are {', '.join(known)}.")
    kind = known[name]
    if sign == "in":
        parts = _split(name, value)
        if not parts:
            raise FilterError(f"{text!r}: there is no value after `in`.")
        return In(name, tuple(_value(name, kind, part) for part in parts), array=kind == "str[]")
    op: Operator = "==" if sign == "=" else sign  # type: ignore[assignment]
    if op not in ("==", "!=") and kind in ("bool", "str[]"):
        raise FilterError(f"{name!r} is declared {kind}: it can be compared by = and != only.")
    return Compare(name, op, _value(name, kind, value), array=kind == "str[]")


def combine(*filters: Filter | None) -> Filter | None:
    """All of them; None where there is none."""
    parts = [f for f in filters if f is not None]
    if len(parts) > 1:
        return All(tuple(parts))
    return parts[0] if parts else None


def _split(name: str, text: str) -> list[str]:
    """The values of `in`: divided by commas, those in double quotes whole."""
    if not text:
        return []
    parts: list[str] = []
    rest = text
    while True:
        quoted = re.match(r'\s*("(?:[^"\\]|\\.)*")\s*(?:,|$)', rest, re.DOTALL)
        plain = re.match(r"([^,]*)(?:,|$)", rest, re.DOTALL)
        part = quoted or plain
        if part is None:
            raise FilterError(f"The values for {name!r} cannot be read: {text!r}.")
        parts.append(part[1].strip())
        ended = part.end() == len(rest) and not part[0].endswith(",")
        rest = rest[part.end() :]
        if ended:
            return parts


def _value(name: str, kind: FieldType, text: str) -> Scalar:
    try:
        match kind:
            case "str" | "str[]":
                if len(text) >= 2 and text[0] == text[-1] == '"':
                    return str(json.loads(text))
                return text
            case "int":
                number = int(text)
                if -(2**63) <= number < 2**63:
                    return number
            case "float":
                real = float(text)
                if math.isfinite(real):
                    return real
            case "bool":
                return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        pass
    raise FilterError(f"{name!r} is declared {kind}: {text!r} is none.")


# --------------------------------------------------------------- rendering

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def render(where: Filter) -> str:
    """The filter as a Milvus expression. Raises FilterError for a value that cannot be said."""
    match where:
        case Compare(field, op, value, array):
            if not array:
                return f"{_field(field)} {op} {_literal(value)}"
            if op not in ("==", "!="):
                raise FilterError(f"{field!r} holds lists: it can be compared by = and != only.")
            contains = f"array_contains({_field(field)}, {_literal(value)})"
            return contains if op == "==" else f"({_field(field)} is not null and not {contains})"
        case In(field, values, array):
            listed = ", ".join(_literal(value) for value in values)
            return (
                f"array_contains_any({_field(field)}, [{listed}])"
                if array
                else f"{_field(field)} in [{listed}]"
            )
        case Expression(text):
            return _checked(text)
        case All(parts):
            return " and ".join(f"({render(part)})" for part in parts)


def _field(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise FilterError(f"{name!r} is not the name of a field.")
    return name


def _literal(value: Scalar) -> str:
    """Only the escapes that every engine reads: Milvus Lite knows no \\u."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError(f"A filter cannot hold the number {value}.")
        return repr(value)
    if "\0" in value:
        raise FilterError("A filter cannot hold a NUL character.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise FilterError("A filter cannot hold a lone surrogate.") from None
    return f'"{value.translate(_ESCAPES)}"'


def _checked(text: str) -> str:
    """A user's expression, its parentheses and quotes closed, so that it stays inside an `and`."""
    if not text.strip():
        raise FilterError("The filter is empty.")
    if "\0" in text:
        raise FilterError("A filter cannot hold a NUL character.")
    bare = re.sub(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'", "", text, flags=re.DOTALL)
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    if depth or '"' in bare or "'" in bare:
        raise FilterError(f"A parenthesis or a quote is not closed in the filter {text!r}.")
    return text


# ---------------------------------------------------------------- matching


def matches(where: Filter, row: Mapping[str, Any]) -> bool:
    """What the expression means, on a row in memory; a comparison with null is false, as in SQL."""
    match where:
        case Compare(field, op, value, array):
            found = _read(row, field)
            if found is None:
                return False
            if array:
                return (value in found) == (op == "==")
            return _compare(found, op, value)
        case In(field, values, array):
            found = _read(row, field)
            if found is None:
                return False
            return any(v in found for v in values) if array else found in values
        case All(parts):
            return all(matches(part, row) for part in parts)
        case Expression():
            raise FilterError("The in-memory store takes no Milvus expressions.")


def _read(row: Mapping[str, Any], field: str) -> Any:
    if field not in row:
        raise FilterError(f"There is no field {field!r} to filter by.")
    return row[field]


def _compare(found: Any, op: Operator, value: Scalar) -> bool:
    try:
        match op:
            case "==":
                return bool(found == value)
            case "!=":
                return bool(found != value)
            case "<":
                return bool(found < value)
            case "<=":
                return bool(found <= value)
            case ">":
                return bool(found > value)
            case ">=":
                return bool(found >= value)
    except TypeError:
        raise FilterError(f"{value!r} cannot be compared with what the field holds.") from None
