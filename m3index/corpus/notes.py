"""What a pass over a corpus did not take, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from m3index.corpus.mapping import EMBEDDING
from m3index.corpus.places import Skipped
from m3index.wording import many

_NAMED = 3


class SkippedFiles:
    """Counts the entries that are not read, and names the first ones of each reason."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, entry: Skipped) -> None:
        self._counts[entry.reason] = self._counts.get(entry.reason, 0) + 1
        names = self._names.setdefault(entry.reason, [])
        if len(names) < _NAMED:
            names.append(entry.path)

    def sentences(self) -> Iterator[str]:
        if not self._counts:
            return
        reasons = []
        for reason, names in self._names.items():
            others = self._counts[reason] - len(names)
            listed = ", ".join(names) + (f" and {many(others, 'other')}" if others else "")
            reasons.append(f"{listed} ({reason})")
        total = many(sum(self._counts.values()), "entry was", "entries were")
        yield f"{total} skipped: {'; '.join(reasons)}."


def embedding_notes(counts: Mapping[str, int]) -> Iterator[str]:
    """counts: by key, the number of rows whose value is left out."""
    for key, rows in counts.items():
        yield (
            f"{key!r} holds an embedding in {many(rows, 'row')} ({EMBEDDING} or more decimal numbers), which "
            f"is left out of the metadata. Keep it with --include-field {key}."
        )
