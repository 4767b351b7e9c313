"""The command line. A command parses its options, calls the library and prints the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import m3index
from m3index import settings
from m3index.cli.apps import app
from m3index.cli.command import COMMANDS
from m3index.cli.trusting import Configuration
from m3index.errors import M3IndexError
from m3index.progress import one_line

# Each module registers its commands; the order is that of the help text.
# isort: off
from m3index.cli import ingest, search, status, verify, delete, reindex, evaluate, models, serve
from m3index.cli import shards, generations, collections, config, doctor
# isort: on

__all__ = [
    "app", "collections", "config", "delete", "doctor", "evaluate", "generations", "ingest", "models",
    "reindex", "search", "serve", "shards", "status", "verify",
]  # fmt: skip


def _version(show: bool) -> None:
    if show:
        typer.echo(f"m3index {m3index.__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    config: Annotated[
        Optional[Path],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_CONFIG",
            metavar="FILE",
            show_default=False,
            help="Configuration file. Default: m3index.toml here, else in the configuration directory.",
        ),
    ] = None,
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            envvar="M3INDEX_PROFILE",
            metavar="NAME",
            show_default=False,
            help="Table profile.NAME of the configuration file.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001  (its callback acts)
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.resilient_parsing or context.invoked_subcommand is None:
        return
    try:
        located = settings.Located(config) if config else settings.find()
        file = settings.read(None if located is None else located.path, profile, COMMANDS.keys())
        context.obj = None if located is None else Configuration.of(located, file.content)
        context.default_map = _defaults(file)
    except M3IndexError as error:
        typer.echo(one_line(f"error: {error}"), err=True)
        raise typer.Exit(int(error.exit_code)) from None


def _defaults(file: settings.ConfigFile) -> dict[str, Any]:
    """The values of the configuration file by command, nested for groups of commands. Raises UsageError."""
    allowed = {
        name: {option.name for option in command.options.values() if option.file}
        for name, command in COMMANDS.items()
    }
    nested: dict[str, Any] = {}
    for name, values in file.defaults(allowed).items():
        *groups, last = name.split()
        table = nested
        for group in groups:
            table = table.setdefault(group, {})
        options = COMMANDS[name].options
        table[last] = {
            option: [value] if options[option].kind.is_repeatable and isinstance(value, str) else value
            for option, value in values.items()
        }
    return nested
