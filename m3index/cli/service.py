"""The index of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from m3index import one_shot
from m3index.cli.session import Session
from m3index.corpus.options import Input, Rejects
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.options import changed
from m3index.search.options import SynonymFile
from m3index.serve.options import RemoteServer
from m3index.store.options import Connection, is_server
from m3index.wording import many

if TYPE_CHECKING:
    from m3index.progress import Reporter
    from m3index.serve.client import RemoteIndex
    from m3index.service import IndexService

R = TypeVar("R", bound=Rejects)


def check_input(paths: Sequence[str], options: Input, changes: str | None = None) -> None:
    """Checks the corpus, or the feed of changes, before a store or a model is imported and opened. Raises
    UsageError."""
    from m3index.corpus.check import check_corpus, check_feed

    if changes is None:
        check_corpus(paths, options.input_format, options.selection, options.mapping, options.encoding)
    else:
        check_feed(changes)


@contextmanager
def opened(
    session: Session,
    connection: Connection,
    model: Model | None = None,
    *,
    create: bool = False,
    brief: bool = False,
    synonyms: SynonymFile | None = None,
) -> Iterator[IndexService]:
    """The index for the duration of a command. Shows the warnings of the store at the end.

    Milvus Lite only logs that it lost rows, and users should not have to read its log. create: create a local
    database if there is none. brief: the command answers one question. synonyms: those of its queries. Raises
    the errors of `IndexService.open`.
    """
    said = (synonyms or SynonymFile()).read_synonyms()
    if brief:
        one_shot.be_brief()
        one_shot.import_without_pandas("pymilvus", *([] if is_server(connection.uri) else ["pyarrow"]))
    from m3index.service import IndexService

    with IndexService.open(connection, model or Model(), create=create, synonyms=said) as index:
        try:
            yield index
        finally:
            for warning in dict.fromkeys(index.store.warnings):
                session.reporter.warning(
                    f"Milvus Lite reports: {warning} Rows may be lost: run m3index verify --repair."
                )


@contextmanager
def quarantined(session: Session, options: R, place: str, *names: str) -> Iterator[tuple[R, Reporter]]:
    """The options and the reporter of a run whose bad rows go to a file, by default one in the state
    directory. Names that file at the end, if there are any.

    place: the database, or the folder, that the run writes to. names: what the default file is called by,
    such as the collection and the source. A default file that cannot be written does not stop the run.
    Raises UsageError if the file that the user named cannot be.
    """
    from m3index.corpus.quarantine import Quarantine, Quarantining, default_path

    named = options.quarantine_file
    if options.quarantine is not None and named is None:
        yield options, session.reporter
        return
    path = default_path(place, *names) if named is None else named
    file = Quarantine(path, is_optional=named is None)
    try:
        with file:
            yield changed(options, {"quarantine": "none"}), Quarantining(session.reporter, file)
    finally:
        if file.count:
            session.summary["quarantine"] = str(file.path)
        if rows := file.count - file.documents:
            said, them = ("1 bad row is", "it") if rows == 1 else (f"{rows:,} bad rows are", "them")
            session.reporter.warning(f"{said} in {file.path}. Correct {them} there and ingest the file.")
        if file.documents:
            said = many(file.documents, "file that cannot be read is", "files that cannot be read are")
            session.reporter.warning(
                f"{said} listed in {file.path}. Correct or --exclude what is listed, and run again."
            )


def serving(
    session: Session,
    remote: RemoteServer,
    connection: Connection,
    synonyms: SynonymFile | None = None,
) -> RemoteIndex:
    """The index of the server. Raises UsageError if it serves another collection than the explicit one, and
    for synonyms, which are not sent."""
    from m3index.serve.client import RemoteIndex

    if synonyms is not None and synonyms.synonyms is not None:
        raise UsageError(
            "A server has its own synonyms, from m3index serve --synonyms FILE. Leave out --synonyms here."
        )
    server = RemoteIndex(
        remote.server or "", remote.shared_token, timeout=connection.timeout, insecure=remote.insecure
    )
    if "collection" in session.explicit and (served := server.info()["collection"]) != connection.collection:
        raise UsageError(f"{remote.server} serves the collection {served!r}, not {connection.collection!r}.")
    return server
