"""What a pass over a corpus did not take, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from m3index.corpus.mapping import EMBEDDING
from m3index.corpus.places import Skipped
from m3index.progress import Reporter
from m3index.wording import many

_NAMED = 3


class Noted(Protocol):
    """A corpus after a pass. notes: what people should know of it. skips: lists what was not read."""

    @property
    def notes(self) -> Sequence[str]: ...

    def skips(self) -> Iterator[Skipped]: ...


def tell(corpus: Noted, reporter: Reporter) -> None:
    """Reports what a pass skipped and left out."""
    for note in corpus.notes:
        reporter.note(note)
    if reporter.verbose:
        for entry in corpus.skips():
            reporter.skipped(entry.path, entry.reason)


class SkippedFiles:
    """Counts the entries that are not read, by reason, and names the first ones."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, entry: Skipped) -> None:
        self.counts[entry.reason] = self.counts.get(entry.reason, 0) + 1
        names = self._names.setdefault(entry.reason, [])
        if len(names) < _NAMED:
            names.append(entry.path)

    def sentences(self) -> Iterator[str]:
        if not self.counts:
            return
        reasons = []
        for reason, names in self._names.items():
            others = self.counts[reason] - len(names)
            listed = ", ".join(names) + (f" and {many(others, 'other')}" if others else "")
            reasons.append(f"{listed} ({reason})")
        total = many(sum(self.counts.values()), "entry was", "entries were")
        more = " --verbose lists them all." if any(n > _NAMED for n in self.counts.values()) else ""
        yield f"{total} skipped: {'; '.join(reasons)}.{more}"


def embedding_notes(counts: Mapping[str, int]) -> Iterator[str]:
    """counts: by key, the number of rows whose value is left out."""
    for key, rows in counts.items():
        yield (
            f"{key!r} holds an embedding in {many(rows, 'row')} ({EMBEDDING} or more decimal numbers), which "
            f"is left out of the metadata. Keep it with --include-field {key}."
        )
