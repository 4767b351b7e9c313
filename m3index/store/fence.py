"""Refuses writes of a run that may have lost its lease.

A process can be stopped for minutes between two lines of code: by a signal, by a suspended machine, by a
network. So the lease is proved right before each call that changes something, not between batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from m3index.schema import split_generation

T = TypeVar("T")

Check: TypeAlias = Callable[[], None]
"""Returns if the run still holds its lease; else raises, and the write is not sent."""


class Fences:
    """The checks of a store, by alias. The runs of one process can each have one."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def set(self, alias: str, check: Check | None) -> None:
        if check is None:
            self._checks.pop(alias, None)
        else:
            self._checks[alias] = check

    def check(self, name: str) -> None:
        """Raises what the check of this alias, or of the alias that this generation belongs to, raises."""
        split = split_generation(name)
        if (check := self._checks.get(split[0] if split else name)) is not None:
            check()

    def guarded(self, name: str, attempt: Callable[[float], T]) -> Callable[[float], T]:
        """The call of a store with the check right before it, each time that it is repeated."""

        def checked(seconds: float) -> T:
            self.check(name)
            return attempt(seconds)

        return checked
