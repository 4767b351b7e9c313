"""Checks the paths of a corpus, or of a feed of changes, before anything else is opened or imported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from m3index.corpus.mapping import STANDARD, FieldMapping
from m3index.corpus.places import STDIN, TABLES, CorpusFiles, File, is_pipe
from m3index.corpus.remote import is_remote
from m3index.corpus.selection import ALL, Selection
from m3index.errors import UsageError


def check_corpus(
    paths: Sequence[str],
    format: str | None = None,  # noqa: A002
    selection: Selection = ALL,
    mapping: FieldMapping | None = None,
    encoding: str | None = None,
) -> None:
    """Raises the UsageError of `corpus.readers.read` for paths on this machine, and one if they all are
    tables without the columns that are needed. Makes no requests: paths in an object store are checked when
    the corpus is opened."""
    local = [path for path in paths if not is_remote(path)]
    if not local and paths:
        return
    files = CorpusFiles(local, format, selection)
    if len(local) == len(paths) and not any(path == STDIN or os.path.isdir(path) for path in local):
        _check_columns(files, mapping or STANDARD, encoding)


def _check_columns(files: CorpusFiles, mapping: FieldMapping, encoding: str | None) -> None:
    problem = ""
    for file in files.walk():
        if isinstance(file, File):
            if file.format not in TABLES or file.size is None:
                return
            from m3index.corpus.formats import check_columns

            found = check_columns(file, mapping, encoding)
            if not found:
                return
            problem = problem or f"{file.path}: {found}."
    if problem:
        raise UsageError(problem)


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
