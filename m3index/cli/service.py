"""The index of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.service import IndexService

DEFAULT_QUARANTINE = "m3index-quarantine.jsonl"


@contextmanager
def opened(
    session: Session, connection: Connection, model: Model | None = None, *, create: bool = False
) -> Iterator[IndexService]:
    """The index for the duration of a command. Shows the warnings of the store at the end.

    Milvus Lite only logs that it lost rows, and users should not have to read its log. create: create a local
    database if there is none. Raises the errors of `IndexService.open`.
    """
    from m3index.service import IndexService

    with IndexService.open(connection, model or Model(), create=create) as index:
        try:
            yield index
        finally:
            for warning in dict.fromkeys(index.store.warnings):
                session.reporter.warning(
                    f"Milvus Lite reports: {warning} Rows may be lost: run m3index verify --repair."
                )
