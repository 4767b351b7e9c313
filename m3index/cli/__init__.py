"""The command line. A command parses its options, calls the library and prints the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import m3index
from m3index import settings
from m3index.cli.apps import all_commands, app
from m3index.cli.command import Command
from m3index.cli.trusting import Configuration
from m3index.errors import M3IndexError
from m3index.progress import one_line

__all__ = ["all_commands", "app"]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"m3index {m3index.__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    config: Annotated[
        Optional[str],  # noqa: UP045  (typer evaluates it)
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
        located = settings.Located(Path(config)) if config else settings.find()
        if located is None and not profile:
            return
        commands = all_commands()
        file = settings.read(None if located is None else located.path, profile, commands.keys())
        context.obj = None if located is None else Configuration.of(located, file.content)
        context.default_map = _defaults(file, commands)
    except M3IndexError as error:
        typer.echo(one_line(f"error: {error}"), err=True)
        raise typer.Exit(int(error.exit_code)) from None


def _defaults(file: settings.ConfigFile, commands: Mapping[str, Command]) -> dict[str, Any]:
    """The values of the configuration file by command, nested for groups of commands. Raises UsageError."""
    allowed = {
        name: {option.name for option in command.options.values() if option.file}
        for name, command in commands.items()
    }
    nested: dict[str, Any] = {}
    for name, values in file.defaults(allowed).items():
        *groups, last = name.split()
        table = nested
        for group in groups:
            table = table.setdefault(group, {})
        options = commands[name].options
        table[last] = {
            option: [value] if options[option].kind.is_repeatable and isinstance(value, str) else value
            for option, value in values.items()
        }
    return nested
