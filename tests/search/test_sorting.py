from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.errors import UsageError
from m3index.options import Custom, check
from m3index.search.sorting import TAKES, SortOrder, check_sort, sort


def by_value(values: list[Any], *, descending: bool = False) -> list[int]:
    """The positions in their order."""
    return sort(range(len(values)), lambda i: values[i], descending=descending)


@pytest.mark.parametrize(
    ("values", "rising", "falling"),
    [
        ([3, 1, 2], [1, 2, 0], [0, 2, 1]),
        ([2, None, 1, None], [2, 0, 1, 3], [0, 2, 1, 3]),
        ([1, 1, 2, 1], [0, 1, 3, 2], [2, 0, 1, 3]),
        (["b", "B", "a", "ä"], [1, 2, 0, 3], [3, 0, 2, 1]),
        ([True, False, None], [1, 0, 2], [0, 1, 2]),
        ([2**62 + 1, 2**62, 0.5], [2, 1, 0], [0, 1, 2]),
        ([None, None], [0, 1], [0, 1]),
    ],
)
def test_missing_values_are_last_and_equal_ones_keep_their_order(
    values: list[Any], rising: list[int], falling: list[int]
) -> None:
    assert by_value(values) == rising
    assert by_value(values, descending=True) == falling


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=20), st.booleans())
def test_a_sort_is_stable(values: list[int | None], descending: bool) -> None:
    order = by_value(values, descending=descending)
    assert sorted(order) == list(range(len(values)))
    for a, b in pairwise(order):
        x, y = values[a], values[b]
        if x == y:
            assert a < b
        else:
            assert x is not None
            assert y is None or (x > y) == descending


def test_the_order_is_read() -> None:
    assert SortOrder.read("year") == SortOrder.read("year:asc") == SortOrder("year")
    assert SortOrder.read(" year : desc ") == SortOrder("year", descending=True)
    assert SortOrder.read("author.name:desc") == SortOrder("author__name", descending=True)
    assert check_sort("year:desc") == "year:desc"
    for wrong in ("", ":desc", "year:down", "year:", "year:asc:desc", 5, None, ["year"]):
        with pytest.raises(UsageError, match="sort takes a declared field, such as year or year:desc, not "):
            check("sort", Custom(check_sort, TAKES), wrong)
