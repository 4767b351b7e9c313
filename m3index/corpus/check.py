"""Checks the paths of a corpus, or of a feed of changes, before anything else is opened or imported."""

from __future__ import annotations

from collections.abc import Sequence

from m3index.corpus.places import STDIN, CorpusFiles, is_pipe
from m3index.corpus.remote import is_remote
from m3index.corpus.selection import ALL, Selection
from m3index.errors import UsageError


def check_corpus(
    paths: Sequence[str],
    format: str | None = None,  # noqa: A002
    selection: Selection = ALL,
) -> None:
    """Raises the UsageError of `corpus.readers.read` for paths on this machine. Makes no requests: paths in
    an object store are checked when the corpus is opened."""
    local = [path for path in paths if not is_remote(path)]
    if local or not paths:
        CorpusFiles(local, format, selection)


def check_feed(path: str) -> None:
    """Raises UsageError if a feed on this machine cannot be opened. A pipe is left alone."""
    if path == STDIN or is_remote(path) or is_pipe(path):
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise unreadable_feed(path, error.strerror or str(error)) from None


def unreadable_feed(path: str, reason: str) -> UsageError:
    return UsageError(f"Cannot read {path}: {reason}.")
