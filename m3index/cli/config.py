"""m3index init and m3index config: the configuration file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from m3index import settings
from m3index.cli import options
from m3index.cli.session import session
from m3index.errors import UsageError

_FILE = """\
# m3index.toml: defaults for every command. A flag wins over an M3INDEX_* variable, which wins over this
# file. Secrets do not belong here: set M3INDEX_TOKEN.

# Where the collection is: a local file (Milvus Lite), or a server such as "http://127.0.0.1:19530".
uri = {uri}

# The name that you search by.
collection = {collection}

# The model of a new collection: teacher (BGE-M3), student, ko, e5-small, e5-mistral, offline, a hub id or
# a directory. An existing collection is always used with its own.
encoder = {encoder}

# How a new collection is laid out (docs/scale.md): whose a document is; indexes and vectors on a server.
# tenant-field = "org"
# index-class = "large"
# storage = "fp16"

# Metadata that you filter by, as typed columns (str, int, float, bool, str[]); declared at the first ingest.
[fields]
# lang = "str"
# year = "int"

[search]
# weights = "dense=0.7,sparse=0.3"     # m3index tune --write sets them
# k = 10

[sync]
# max-delete = "10%"
# retry-lock = "5m"

# m3index --profile prod ... uses these over the above.
# [profile.prod]
# uri = "http://milvus:19530"
"""


def init(
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", metavar="", envvar="M3INDEX_YES", help="Do not ask; take the defaults."),
    ] = False,
    path: Annotated[
        Path, typer.Option("--file", envvar="M3INDEX_CONFIG", metavar="FILE", help="Where to write it.")
    ] = Path(settings.FILE_NAME),
) -> None:
    """Write a commented m3index.toml after three questions."""
    with session("init") as run:
        if path.exists():
            raise UsageError(f"{path} exists; it is left as it is.")
        answers = {"uri": "m3index.db", "collection": "docs", "encoder": "teacher"}
        if not yes:
            if not _asked():
                raise UsageError("There is nobody to ask; take the defaults with --yes.")
            questions = {
                "uri": "Where is the collection (a local file, or a server's URI)?",
                "collection": "What is it called?",
                "encoder": "Which model (teacher, student, ko, e5-small, e5-mistral, offline)?",
            }
            for name, question in questions.items():
                answers[name] = typer.prompt(question, default=answers[name])
            from m3index.index.collection import check_name

            check_name(answers["collection"])
        import json

        try:
            path.write_text(_FILE.format(**{k: json.dumps(v) for k, v in answers.items()}), "utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
        run.reporter.note(f"Wrote {path}. Next: m3index ingest CORPUS")


def _asked() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


config = typer.Typer(name="config", help="The configuration in force.", no_args_is_help=True)


@config.command("show")
def show(
    ctx: typer.Context,
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Of this command only.", show_default=False)
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Say where each value comes from: variable, file or default."""
    with session("config show", as_json=as_json) as run:
        from m3index.cli.reference import commands

        known = commands()
        if command and command not in known:
            raise UsageError(f"There is no command {command!r}; there are {', '.join(sorted(known))}.")
        root = ctx.find_root()
        from_file: dict[str, dict[str, Any]] = dict(root.default_map or {})
        file = str(root.params["config"] or settings.find() or settings.FILE_NAME)
        rows: dict[str, tuple[Any, str]] = {}
        for name, made in known.items():
            if command in ("", name):
                for option in made.params:
                    if option.param_type_name == "option" and option.envvar:
                        rows.setdefault(*_row(option, from_file.get(name, {}), file))
        for name, (value, origin) in sorted(rows.items()):
            run.reporter.result({"type": "setting", "name": name, "value": value, "from": origin})
        if not as_json:
            from m3index.cli.show import pairs

            pairs(
                [(name, f"{_written(value)}  ({origin})") for name, (value, origin) in sorted(rows.items())]
            )


def _written(value: Any) -> str:
    """As it would be given: the values of a repeated option side by side."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(option: Any, from_file: dict[str, Any], file: str) -> tuple[str, tuple[Any, str]]:
    name = max(option.opts, key=len)
    secret = name.strip("-") in settings.SECRETS or name.endswith("-token")
    if os.environ.get(option.envvar):  # an empty one counts for nothing
        return name, ("(set)" if secret else _without_password(os.environ[option.envvar]), option.envvar)
    if option.name in from_file:
        value = from_file[option.name]
        shown = _without_password(value) if isinstance(value, str) else value
        return name, (shown, file)
    default = option.default() if callable(option.default) else option.default
    described = isinstance(option.show_default, str) and default in (None, "", [], ())
    return name, (option.show_default if described else default, "default")


def _without_password(value: str) -> str:
    """`https://user:secret@host` -> `https://host`."""
    return re.sub(r"(://)[^/@]*@", r"\1", value)
