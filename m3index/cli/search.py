"""m3index search: the hits of a query, or a run file for a file of queries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Output
from m3index.cli.service import opened, serving
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.options import FileName, OneOf, Text, changed, group, option
from m3index.progress import Progress
from m3index.search.hits import facets_json
from m3index.search.options import RUN_HITS, SearchOptions, SynonymFile
from m3index.serve.options import RemoteServer
from m3index.store.options import Connection
from m3index.wording import many

if TYPE_CHECKING:
    from m3index.search.result import SearchResult

Format = Literal["table", "jsonl", "ids", "trec"]


@group
class SearchCommand(SearchOptions):
    """The query and the output of a search."""

    panel = "Query"

    similar: str | None = option(
        Text("DOC_ID"),
        "Id of a document to find similar documents for, instead of a query.",
        default=None,
        shown="none",
        file=False,
    )
    queries: str | None = option(
        FileName(),
        f"File of queries, instead of a query (BEIR queries.jsonl, TSV, TREC topics); k is then {RUN_HITS}.",
        default=None,
        shown="none",
        file=False,
    )
    output: str | None = option(
        FileName(),
        "Run file for --queries: .trec, .jsonl or .parquet.",
        default=None,
        flags=("--output", "-o"),
        shown="none",
        file=False,
    )
    tag: str = option(
        Text("NAME"), "Run name, the last column of a TREC run.", default="m3index", harmless=True
    )
    format: Format = option(
        OneOf(("table", "jsonl", "ids", "trec"), "FORMAT"),
        "Output format: table, jsonl, ids or trec (a TREC run).",
        default="table",
        harmless=True,
    )


Words = Annotated[
    list[str],
    typer.Argument(metavar="QUERY", help="Words of the query; quotes are not needed.", show_default=False),
]


@command(apps.app, "search", panel=apps.EVERYDAY)
def search(
    session: Session,
    options: SearchCommand,
    synonyms: SynonymFile,
    remote: RemoteServer,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001  (the session has it)
    words: Words = [],  # noqa: B006  (typer copies it)
) -> None:
    """Search a collection with the dense and the sparse leg, fused by evidence, or by rank with weights."""
    query = " ".join(words)
    if bool(query.strip()) + (options.similar is not None) + (options.queries is not None) != 1:
        raise UsageError("Give exactly one of a query, --similar DOC_ID and --queries FILE.")
    if (options.queries is None) != (options.output is None):
        raise UsageError("--queries FILE and --output FILE must be given together.")
    if options.queries is not None:
        if options.facets:
            raise UsageError("--facets are of a single query. Leave them out, or give a query.")
        _run(session, options, synonyms, remote, connection, model)
        return
    result = _search(session, query, options, synonyms, remote, connection, model)
    for note in result.notes:
        session.reporter.note(note)
    _show(session, result, options.format, options.tag)
    session.summary |= {"collection": connection.collection, "hits": len(result)}
    if result.notes:
        session.summary["notes"] = list(result.notes)
    if result.facets:
        session.summary["facets"] = facets_json(result.facets)


def _search(
    session: Session,
    query: str,
    options: SearchCommand,
    synonyms: SynonymFile,
    remote: RemoteServer,
    connection: Connection,
    model: Model,
) -> SearchResult:
    if remote.server is not None:
        server = serving(session, remote, connection, synonyms)
        if options.similar is not None:
            return server.similar_with(options.similar, options)
        return server.search_with(query, options)
    with opened(session, connection, model, brief=True, synonyms=synonyms) as index:
        if options.similar is not None:
            return index.similar(options.similar, options)
        return index.search(query, options)


def _run(
    session: Session,
    options: SearchCommand,
    synonyms: SynonymFile,
    remote: RemoteServer,
    connection: Connection,
    model: Model,
) -> None:
    """Searches for many queries and writes a run file."""
    from m3index.evaluate.formats import read_queries
    from m3index.evaluate.runs import RunWriter

    queries = read_queries(options.queries or "")
    hits = options.k if "k" in session.explicit else RUN_HITS
    run_options = changed(options, {"k": hits, "texts": False, "explain": False})
    started, total, unanswered = time.perf_counter(), 0, 0
    with RunWriter(options.output or "", tag=options.tag) as writer:

        def write(results: Iterable[SearchResult]) -> Iterator[int]:
            nonlocal unanswered
            for done, result in enumerate(results, 1):
                writer.write(result.query.query_id, result.hits)
                if not result.hits:
                    unanswered += 1
                    reason = " ".join(result.notes)
                    session.reporter.warning(f"query {result.query.query_id}: no hits. {reason}".rstrip())
                session.reporter.progress(Progress(documents=done, total=len(queries), unit="queries"))
                yield len(result.hits)

        if remote.server is not None:
            server = serving(session, remote, connection, synonyms)
            total = sum(write(server.search_many_with(queries, run_options)))
        else:
            with opened(session, connection, model, synonyms=synonyms) as index:
                total = sum(write(index.run(queries, run_options)))
    seconds = time.perf_counter() - started
    session.reporter.note(
        f"{many(len(queries), 'query', 'queries')}, {many(total, 'hit')}, {seconds:.1f} s "
        f"({len(queries) / seconds:.1f} queries/s): {options.output}"
    )
    session.summary |= {
        "collection": connection.collection, "queries": len(queries), "hits": total,
        "unanswered": unanswered, "output": options.output,
    }  # fmt: skip


def _show(session: Session, result: SearchResult, form: Format, tag: str) -> None:
    from m3index.cli import show

    if session.as_json:
        for hit in show.hits(result):
            session.reporter.result(hit)
        return
    if form != "table":
        for line in show.facet_lines(result):
            session.reporter.note(line)
    match form:
        case "table":
            show.table(result)
        case "jsonl":
            show.jsonl(result)
        case "ids":
            show.ids(result)
        case "trec":
            show.trec(result, tag)
