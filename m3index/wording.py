"""Counts in messages."""

from __future__ import annotations


def many(count: int, one: str, several: str | None = None) -> str:
    """`1 row`, `2,000 rows`; or, with a verb, `1 row is lost`, `2 rows are lost`.

    several: the words for any other count than one; by default `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
