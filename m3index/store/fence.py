"""Refuses writes of a run that may have lost its lease.

A process can be stopped for minutes between two lines of code: by a signal, by a suspended machine, by a
network. So the lease is proved right before each call that changes something, not between batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Check: TypeAlias = Callable[[], None]
"""Returns if the run still holds its lease; else raises, and the write is not sent."""

_GENERATION = re.compile(r"(.+)__g[1-9][0-9]*")


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
        generation = _GENERATION.fullmatch(name)
        if (check := self._checks.get(generation[1] if generation else name)) is not None:
            check()

    def guarded(self, name: str, attempt: Callable[[float], T]) -> Callable[[float], T]:
        """The call of a store with the check right before it, each time that it is repeated."""

        def checked(seconds: float) -> T:
            self.check(name)
            return attempt(seconds)

        return checked
