"""m3index config init, config trust and config show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from m3index import settings
from m3index.addresses import redacted
from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Confirmation, Output, Quiet
from m3index.cli.session import Session, is_interactive
from m3index.cli.trusting import origin_of
from m3index.encoder.options import DEFAULT_ENCODER
from m3index.errors import UsageError
from m3index.options import FileName, Group, Option, group, option
from m3index.store.options import DEFAULT_URI
from m3index.trust import remember
from m3index.types import DEFAULT_COLLECTION

_FILE = """\
# m3index.toml: defaults for all commands. Flags override M3INDEX_* variables, which override this file.
# Do not put secrets here: set M3INDEX_TOKEN.

# The store: a local file (Milvus Lite), or a server such as "http://127.0.0.1:19530".
uri = {uri}

# The name of the collection.
collection = {collection}

# The model of a new collection: teacher (BGE-M3), student, ko, e5-small, e5-mistral, offline, offline-en, a
# hub id or a directory. An existing collection always uses its own model.
encoder = {encoder}

# The layout of a new collection (docs/scale.md): tenant field, indexes and storage of vectors on a server.
# tenant-field = "org"
# index-class = "large"
# storage = "fp16"

# Metadata to filter by, as typed columns (str, int, float, bool, date, str[]); declared at the first ingest.
[fields]
# lang = "str"
# year = "int"

[search]
# weights = "dense=0.7,sparse=0.3"     # written by m3index tune --write
# k = 10

[sync]
# max-delete = "10%"
# retry-lock = "5m"

# With m3index --profile prod, these override the values above.
# [profile.prod]
# uri = "http://milvus:19530"
"""


@group
class NewFile(Group):
    """The configuration file to create."""

    panel = "Run"

    file: str = option(FileName(), "Path of the new file.", default=settings.FILE_NAME, file=False)


@command(apps.config, "init")
def init(session: Session, new: NewFile, confirmation: Confirmation, quiet: Quiet) -> None:  # noqa: ARG001
    """Create a commented m3index.toml, after three questions."""
    path = Path(new.file)
    if path.exists():
        raise UsageError(f"{path} already exists. Choose another path with --file.")
    answers = {"uri": DEFAULT_URI, "collection": DEFAULT_COLLECTION, "encoder": DEFAULT_ENCODER}
    if not confirmation.yes:
        if not is_interactive():
            raise UsageError("The questions need a terminal. Use --yes for the defaults.")
        questions = {
            "uri": "Where is the store (a local file, or the URI of a server)?",
            "collection": "What is the name of the collection?",
            "encoder": "Which model (teacher, student, ko, e5-small, e5-mistral, offline, offline-en)?",
        }
        for name, question in questions.items():
            answers[name] = typer.prompt(question, default=answers[name])
        from m3index.index.collection import check_name

        check_name(answers["collection"])
    settings.write_trusted(path, _FILE.format(**{k: json.dumps(v) for k, v in answers.items()}))
    session.reporter.note(f"Wrote {path}. Next: m3index ingest CORPUS")


@command(apps.config, "trust")
def trust(
    session: Session,
    quiet: Quiet,  # noqa: ARG001
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file; by default m3index.toml here.", show_default=False),
    ] = Path(settings.FILE_NAME),
) -> None:
    """Trust the m3index.toml of this folder, which may be a stranger's, until it changes. Read it first."""
    found = settings.read(file, None, apps.all_commands().keys())
    remember(file, found.content)
    session.reporter.note(f"{file} is trusted until it changes.")


@command(apps.config, "show")
def show(
    session: Session,
    context: typer.Context,
    output: Output,  # noqa: ARG001  (the session has it)
    name: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Show only this command.", show_default=False)
    ] = "",
) -> None:
    """Show the current values and their origins: variable, file or default. Names are those of the file."""
    declared_commands = apps.all_commands()
    if name and name not in declared_commands:
        known = ", ".join(sorted(declared_commands))
        raise UsageError(f"There is no command {name!r}. The commands are {known}.")
    root = context.find_root()
    file = origin_of(root.obj)
    rows: dict[tuple[str, str, str], tuple[Any, list[str]]] = {}
    for full, listed in declared_commands.items():
        if name in ("", full):
            table: Any = root.default_map or {}
            for word in full.split():
                table = table.get(word, {})
            for declared in (*listed.options.values(), *listed.secrets.values()):
                has_value = declared.name in table or not declared.is_required
                if has_value and (declared.variable or declared.file):
                    value, origin = _row(declared, table, file)
                    key = declared.name, origin, _as_text(value)
                    rows.setdefault(key, (value, []))[1].append(full)
    for (setting, origin, _), (value, commands) in sorted(rows.items()):
        session.reporter.result(
            {"type": "setting", "name": setting, "value": value, "from": origin, "commands": commands}
        )
    if not session.as_json:
        from m3index.cli.show import pairs

        names = [setting for setting, _, _ in rows]  # commands with different values have several rows
        pairs(
            [
                (setting, f"{text}  ({origin}{'; ' + ', '.join(of) if names.count(setting) > 1 else ''})")
                for (setting, origin, text), (_, of) in sorted(rows.items())
            ]
        )


def _as_text(value: Any) -> str:
    """A value as text; those of a repeated option are separated by spaces."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(declared: Option, from_file: dict[str, Any], file: str) -> tuple[Any, str]:
    """A value to show, and its origin."""
    if declared.envvar and os.environ.get(declared.envvar):  # an empty variable is ignored
        value = "(set)" if declared.secret else redacted(os.environ[declared.envvar])
        return value, declared.envvar
    if declared.name in from_file:
        value = from_file[declared.name]
        return (redacted(value) if isinstance(value, str) else value), file
    return declared.default_text or str(declared.default).lower(), "default"
