"""m3index why: the stage that keeps a document from the first hits of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Output
from m3index.cli.search import Words
from m3index.cli.service import opened, serving
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.search.options import SynonymFile, WhyOptions
from m3index.serve.options import RemoteServer
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.search.stages import Why


@command(apps.app, "why", panel=apps.QUALITY)
def why(
    session: Session,
    options: WhyOptions,
    synonyms: SynonymFile,
    remote: RemoteServer,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001  (the session has it)
    words: Words,
    doc_id: Annotated[
        str, typer.Argument(metavar="DOC_ID", help="Document to look for.", show_default=False)
    ],
) -> None:
    """Say which stage of a search keeps a document from the first hits, and which search shows it."""
    del doc_id  # it is one of the options
    answer = _answer(session, " ".join(words), options, synonyms, remote, connection, model)
    for note in answer.notes:
        session.reporter.note(note)
    session.reporter.result(answer.to_json())
    session.summary |= {"collection": connection.collection, "stage": answer.stage.value}
    if not session.as_json:
        _show(answer)


def _answer(
    session: Session,
    query: str,
    options: WhyOptions,
    synonyms: SynonymFile,
    remote: RemoteServer,
    connection: Connection,
    model: Model,
) -> Why:
    if remote.server is not None:
        return serving(session, remote, connection, synonyms).why_with(query, options)
    files = options.quarantines(connection.uri, connection.collection)
    with opened(session, connection, model, brief=True, synonyms=synonyms) as index:
        return index.why(query, options, quarantines=files)


def _show(answer: Why) -> None:
    from m3index.cli.show import pairs

    values = [(answer.stage.value, answer.reason)]
    for name, standing in answer.legs.items():
        rank = "not found" if standing.rank is None else f"rank {standing.rank:,}"
        parts = [rank if standing.asked else f"{rank} (this leg is not asked)"]
        if standing.score is not None:
            parts.append(f"score {standing.score:.4f}")
        if standing.last_score is not None:
            parts.append(f"the last of the leg has {standing.last_score:.4f}")
        if standing.vote is not None:
            parts.append(f"vote {standing.vote:.4f}")
        values.append((name, ", ".join(parts)))
    if answer.fused_rank is not None:
        values.append(("fused", f"rank {answer.fused_rank:,}"))
    if answer.rank is not None and answer.rank != answer.fused_rank:
        values.append(("final", f"rank {answer.rank:,}"))
    if answer.remedy:
        values.append(("remedy", answer.remedy))
    pairs(values)
