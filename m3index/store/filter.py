"""Builds and renders filters. Values enter expressions only here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

from m3index.dates import FORMS, period
from m3index.errors import FilterError
from m3index.schema import column_of
from m3index.types import FieldType

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Scalar: TypeAlias = str | int | float | bool

BASE_FIELDS: Mapping[str, FieldType] = {"doc_id": "str", "source": "str", "title": "str", "ordinal": "int"}
"""The fields of every collection that filters can use, besides its declared fields."""


@dataclass(frozen=True, slots=True)
class Compare:
    """field op value, on a typed column. On `str[]` columns (`array`), == means contains."""

    field: str
    op: Operator
    value: Scalar
    array: bool = False


@dataclass(frozen=True, slots=True)
class In:
    """field in [values], on a typed column. On `str[]` columns (`array`): contains one of them."""

    field: str
    values: Sequence[Scalar]
    array: bool = False


@dataclass(frozen=True, slots=True)
class Within:
    """field in one of the spans [start, end), on a column of dates; `outside`: in none of them."""

    field: str
    spans: Sequence[tuple[str, str]]
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """A Milvus boolean expression of the user, passed on unchanged."""

    text: str


@dataclass(frozen=True, slots=True)
class All:
    """All parts must hold."""

    parts: Sequence[Filter]


Filter: TypeAlias = Compare | In | Within | Expression | All
"""A filter that can be sent: its fields are known, its values typed."""

Where: TypeAlias = str | Sequence[str] | Mapping[str, Scalar | Sequence[Scalar]] | Filter
"""The forms of a filter that users give: `"lang=en"`, a list of such conditions (all must hold), a mapping
`{"lang": "en", "year": [2008, 2009]}` (each field must have the value, or one of the values), or a built
filter. Its meaning is the same in all interfaces."""


# ---------------------------------------------------------------- building

MAX_VALUES = 4_096
"""The number of values that a `where` can list. Engines take seconds for many more, and serve nobody else."""

MAX_TERMS = 256
"""The number of conditions of a `where`, and of `and`, `or` and `not` in an expression."""

MAX_DEPTH = 64
"""How deep parentheses can be nested in an expression. Parsers of engines are recursive."""

MAX_EXPRESSION = 65_536
"""The characters of an expression."""

TAKES = 'a condition such as "lang=en", a list of conditions, or a mapping such as {"lang": "en"}'


def check_where(where: object) -> Where:
    """Checks the form of a user's filter; `bind` resolves it for a collection.

    Raises FilterError for an invalid filter, and for an empty one, which must not match everything.
    """
    match where:
        case Compare() | In() | Within() | Expression() | All():
            return where
        case str():
            _parts(where)
            return where
        case Mapping():
            return _checked_mapping(where)
        case Sequence() if not isinstance(where, bytes | bytearray):
            if not where:
                raise FilterError(f"where is empty. Leave it out, or give {TAKES}.")
            _check_count(len(where), MAX_TERMS, "conditions")
            for condition in where:
                if not isinstance(condition, str):
                    raise FilterError(f"where takes {TAKES}; {condition!r} is not a condition.")
                _parts(condition)
            return tuple(where)
    raise FilterError(f"where takes {TAKES}, not {where!r}.")


def _checked_mapping(where: Mapping[Any, Any]) -> Where:
    if not where:
        raise FilterError(f"where is empty. Leave it out, or give {TAKES}.")
    _check_count(len(where), MAX_TERMS, "conditions")
    total = 0
    for name, value in where.items():
        if not isinstance(name, str):
            raise FilterError(f"The field names in where must be strings, not {name!r}.")
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if not values:
            raise FilterError(f"where has no value for {name!r}. Leave the field out, or give a value.")
        total += len(values)
        _check_count(total, MAX_VALUES, "values")
        for one in values:
            if not isinstance(one, Scalar):
                raise FilterError(f"where takes a string, a number, true or false for {name!r}, not {one!r}.")
    return dict(where)


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise FilterError(f"A filter can have at most {most:,} {what}, not {count:,}. Ask in several parts.")


def bind(where: Where, fields: Mapping[str, FieldType]) -> Filter:
    """Resolves a user's filter with the declared `fields` of a collection. Raises FilterError."""
    match check_where(where):
        case Compare() | In() | Within() | Expression() | All() as built:
            return built
        case str() as condition:
            return parse_where(condition, fields)
        case Mapping() as values:
            return _joined([_equals(name, value, fields) for name, value in values.items()])
        case conditions:
            parts = [parse_where(condition, fields) for condition in conditions]
            _check_count(sum(len(p.values) for p in parts if isinstance(p, In)), MAX_VALUES, "values")
            return _joined(parts)


def parts_of(where: Where) -> dict[str, Where]:
    """The conditions that must all hold, each by its text. They can be bound and left out one by one."""
    match where:
        case Compare() | In() | Within() | Expression() | All() as built:
            return {render(built): built}
        case str() as condition:
            return {condition: condition}
        case Mapping() as values:
            return {_text_of(name, value): {name: value} for name, value in values.items()}
        case conditions:
            return {condition: condition for condition in conditions}


def without_parts(where: Where, texts: Collection[str]) -> Where | None:
    """The filter without the conditions of these texts; None if none is left."""
    kept = [part for text, part in parts_of(where).items() if text not in texts]
    if isinstance(where, Mapping):
        return {
            name: value for part in kept if isinstance(part, Mapping) for name, value in part.items()
        } or None
    if isinstance(where, str | Compare | In | Within | Expression | All):
        return where if kept else None
    return [part for part in kept if isinstance(part, str)] or None


def _text_of(name: str, value: Scalar | Sequence[Scalar]) -> str:
    if isinstance(value, Scalar):
        return f"{name}={value}"
    return f"{name} in {','.join(map(str, value))}"


def _joined(filters: Sequence[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else All(tuple(filters))


def _equals(name: str, value: Scalar | Sequence[Scalar], fields: Mapping[str, FieldType]) -> Filter:
    name, kind = _kind(name, fields)
    if kind == "date":
        return _dated(name, "==", [value] if isinstance(value, Scalar) else value)
    if isinstance(value, Scalar):
        return Compare(name, "==", _typed(name, kind, value), array=kind == "str[]")
    return In(name, tuple(_typed(name, kind, one) for one in value), array=kind == "str[]")


def _kind(name: str, fields: Mapping[str, FieldType]) -> tuple[str, FieldType]:
    """The column of a field, and its type."""
    known = {**BASE_FIELDS, **fields}
    column = column_of(name)
    if column not in known:
        raise FilterError(f"There is no field {name!r} to filter by. The fields are {', '.join(known)}.")
    return column, known[column]


def _dated(name: str, op: Operator, values: Sequence[Scalar]) -> Filter:
    """A condition on a column of dates. A date in it is a period: all of 2026, of the 28th of November."""
    spans = []
    for value in values:
        try:
            spans.append(period(str(value)))
        except ValueError:
            raise FilterError(
                f"{name!r} is declared date; it cannot be {value!r}. Write a date as {FORMS}."
            ) from None
    _check_count(len(spans), MAX_TERMS, "dates")
    start, end = spans[0]
    match op:
        case "<":
            return Compare(name, "<", start)
        case "<=":
            return Compare(name, "<", end)
        case ">":
            return Compare(name, ">=", end)
        case ">=":
            return Compare(name, ">=", start)
        case _:
            return Within(name, tuple(spans), outside=op == "!=")


def _typed(name: str, kind: FieldType, value: Scalar) -> Scalar:
    """A value of a mapping as the field's type. A string is parsed as in a condition, but taken literally
    for a field of strings."""
    if isinstance(value, str):
        return value if kind in ("str", "str[]") else _value(name, kind, value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "bool" if isinstance(value, bool):
            return value
        case "int" if is_whole:
            return _value(name, kind, str(value))
        case "float" if is_whole or isinstance(value, float):
            return _value(name, kind, repr(value))
    raise FilterError(f"{name!r} is declared {kind}; it cannot be {value!r}.")


_WHERE = re.compile(r"\s*([\w.]+)\s*(==|!=|>=|<=|=|<|>|\sin\s)\s*(.*?)\s*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_where(text: str, fields: Mapping[str, FieldType]) -> Filter:
    """Parses `lang=en`, `year>=2020` or `lang in en,de`, with the declared `fields`.

    The value is parsed as the field's type. A value in double quotes is a JSON string, which can contain
    commas and outer spaces. `=` on a `str[]` field means contains. Raises FilterError.
    """
    name, sign, value = _parts(text)
    name, kind = _kind(name, fields)
    if sign == "in":
        parts = _split(name, value)
        if not parts:
            raise FilterError(f"{text!r} has no value after `in`. Give at least one.")
        if kind == "date":
            return _dated(name, "==", [str(_value(name, "str", part)) for part in parts])
        return In(name, tuple(_value(name, kind, part) for part in parts), array=kind == "str[]")
    op: Operator = "==" if sign == "=" else sign  # type: ignore[assignment]
    if op not in ("==", "!=") and kind in ("bool", "str[]"):
        raise FilterError(f"{name!r} is declared {kind}. Compare it with = or !=.")
    if kind == "date":
        return _dated(name, op, [_value(name, "str", value)])
    return Compare(name, op, _value(name, kind, value), array=kind == "str[]")


def field_of(condition: str) -> str:
    """The column of the field of a condition. Raises FilterError for a text that is none."""
    return column_of(_parts(condition)[0])


def _parts(text: str) -> tuple[str, str, str]:
    """Field, operator and value of a condition. Raises FilterError."""
    condition = _WHERE.fullmatch(text)
    if condition is None:
        raise FilterError(f"{text!r} is not a condition. Write it as lang=en, year>=2020 or 'lang in en,de'.")
    return condition[1], condition[2].strip(), condition[3]


def combine(*filters: Filter | None) -> Filter | None:
    """All filters combined; None if there is none."""
    parts = [f for f in filters if f is not None]
    if len(parts) > 1:
        return All(tuple(parts))
    return parts[0] if parts else None


def _split(name: str, text: str) -> list[str]:
    """The values after `in`, separated by commas; a value in double quotes can contain commas."""
    if not text:
        return []
    parts: list[str] = []
    position = 0
    while True:
        part = _QUOTED.match(text, position) or _PLAIN.match(text, position)
        if part is None:
            raise FilterError(f"The values for {name!r} cannot be parsed: {text!r}.")
        parts.append(part[1].strip())
        _check_count(len(parts), MAX_VALUES, "values")
        position = part.end()
        if position == len(text) and not part[0].endswith(","):
            return parts


_QUOTED = re.compile(r'\s*("(?:[^"\\]|\\.)*")\s*(?:,|$)', re.DOTALL)
_PLAIN = re.compile(r"([^,]*)(?:,|$)", re.DOTALL)


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
    raise FilterError(f"{name!r} is declared {kind}; it cannot be {text!r}.")


# --------------------------------------------------------------- rendering

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def render(where: Filter) -> str:
    """The filter as a Milvus expression. Raises FilterError for a value that cannot be expressed."""
    match where:
        case Compare(field, op, value, array):
            if not array:
                return f"{_field(field)} {op} {_literal(value)}"
            if op not in ("==", "!="):
                raise FilterError(f"{field!r} contains lists. Compare it with = or !=.")
            contains = f"array_contains({_field(field)}, {_literal(value)})"
            return contains if op == "==" else f"({_field(field)} is not null and not {contains})"
        case In(field, values, array):
            listed = ", ".join(_literal(value) for value in values)
            return (
                f"array_contains_any({_field(field)}, [{listed}])"
                if array
                else f"{_field(field)} in [{listed}]"
            )
        case Within(field, spans, outside):
            column, joined = _field(field), " and " if outside else " or "
            before, after, inner = ("<", ">=", "or") if outside else (">=", "<", "and")
            return joined.join(
                f"({column} {before} {_literal(start)} {inner} {column} {after} {_literal(end)})"
                for start, end in spans
            )
        case Expression(text):
            return _checked(text)
        case All(parts):
            if not parts:
                raise FilterError("The filter has no parts.")
            return " and ".join(f"({render(part)})" for part in parts)
    assert_never(where)


def _field(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise FilterError(f"{name!r} is not a valid field name.")
    return name


def _literal(value: Scalar) -> str:
    """Uses only escapes that every engine supports: Milvus Lite does not support \\u."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError(f"A filter cannot contain the number {value}.")
        return repr(value)
    if "\0" in value:
        raise FilterError("A filter cannot contain a NUL character.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise FilterError("A filter cannot contain a lone surrogate.") from None
    return f'"{value.translate(_ESCAPES)}"'


def _checked(text: str) -> str:
    """Checks that parentheses and quotes are closed, so that the expression stays inside an `and`."""
    if not text.strip():
        raise FilterError("The filter is empty.")
    if "\0" in text:
        raise FilterError("A filter cannot contain a NUL character.")
    _check_count(len(text), MAX_EXPRESSION, "characters")
    bare = re.sub(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'", "", text, flags=re.DOTALL)
    _check_count(_depth(bare, text), MAX_DEPTH, "parentheses inside each other")
    _check_count(len(_LOGIC.findall(bare)), MAX_TERMS, "of and, or, not")
    return text


def _depth(bare: str, text: str) -> int:
    """How deep the parentheses of an expression without its quoted values are nested. Each must be closed by
    its own kind, before the one around it. Raises FilterError."""
    expected, deepest = [""], 1
    for character in bare:
        if character in _CLOSED_BY:
            expected.append(_CLOSED_BY[character])
            deepest = max(deepest, len(expected))
        elif character == expected[-1]:
            expected.pop()
        elif character in _CLOSED_BY.values():
            expected.append(character)
            break
    if len(expected) > 1 or '"' in bare or "'" in bare:
        raise FilterError(f"A parenthesis or a quote is not closed in the filter {_shortened(text)}.")
    return deepest - 1


_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}
_LOGIC = re.compile(r"\b(?:and|or|not)\b|&&|\|\||!(?!=)|[-~+](?=\s*[-~+])", re.IGNORECASE)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:197]}...")


# ---------------------------------------------------------------- matching


def matches(where: Filter, row: Mapping[str, Any]) -> bool:
    """Evaluates the filter for a row in memory. A comparison with null is false, as in SQL. Raises
    FilterError."""
    match where:
        case Compare(field, op, value, array):
            stored = _read(row, field)
            if stored is None:
                return False
            if array:
                return (value in stored) == (op == "==")
            return _compare(stored, op, value)
        case In(field, values, array):
            stored = _read(row, field)
            if stored is None:
                return False
            return any(v in stored for v in values) if array else stored in values
        case Within(field, spans, outside):
            stored = _read(row, field)
            if stored is None:
                return False
            return any(start <= stored < end for start, end in spans) != outside
        case All(parts):
            return all(matches(part, row) for part in parts)
        case Expression():
            raise FilterError("The in-memory store does not support Milvus expressions.")
    assert_never(where)


def _read(row: Mapping[str, Any], field: str) -> Any:
    if field not in row:
        raise FilterError(f"There is no field {field!r} to filter by.")
    return row[field]


def _compare(stored: Any, op: Operator, value: Scalar) -> bool:
    try:
        match op:
            case "==":
                return bool(stored == value)
            case "!=":
                return bool(stored != value)
            case "<":
                return bool(stored < value)
            case "<=":
                return bool(stored <= value)
            case ">":
                return bool(stored > value)
            case ">=":
                return bool(stored >= value)
    except TypeError:
        raise FilterError(f"{value!r} cannot be compared with the values of the field.") from None
