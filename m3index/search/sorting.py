"""Sorts hits by the value of a declared field. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from m3index.schema import column_of
from m3index.types import FieldValue

T = TypeVar("T")

TAKES = "a declared field, such as year or year:desc"
_DIRECTIONS = {"asc": False, "desc": True}


@dataclass(frozen=True, slots=True)
class SortOrder:
    """The column of a field, and whether its greatest value comes first."""

    field: str
    descending: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Reads `year`, `year:asc` or `year:desc`. Raises ValueError."""
        field, colon, direction = text.partition(":")
        if not field.strip():
            raise ValueError
        try:
            return cls(column_of(field.strip()), _DIRECTIONS[direction.strip() if colon else "asc"])
        except KeyError:
            raise ValueError from None


def check_sort(value: object) -> str:
    """The order as text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError
    SortOrder.read(value)
    return value


def sort(items: Sequence[T], value: Callable[[T], FieldValue], *, descending: bool = False) -> list[T]:
    """The items by value: numbers by size, dates by time, texts by code point, false before true. Those
    without a value come last in either direction. Items of equal value keep their order."""
    present = [item for item in items if value(item) is not None]
    missing = [item for item in items if value(item) is None]

    def key(item: T) -> Any:
        return value(item)

    return [*sorted(present, key=key, reverse=descending), *missing]
