"""Reading a command line of the documentation as the program does, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer.main

from m3index.cli import all_commands, app
from m3index.cli.command import read


def parse(words: Sequence[str]) -> str:
    """The full name of the command. Raises where the command, an option or a value is not one that exists."""
    commands = all_commands()  # declares them
    group: Any = typer.main.get_command(app)
    rest, names = list(words), []
    while rest and rest[0] in ("--profile", "--config"):
        del rest[:2]
    while hasattr(group, "commands"):
        assert rest, "a command is missing"
        assert rest[0] in group.commands, f"there is no command {' '.join([*names, rest[0]])}"
        names.append(rest[0])
        group = group.commands[rest.pop(0)]
    name = " ".join(names)
    context = group.make_context(name, rest)
    given = {key: value for key, value in context.params.items() if value not in (None, False, [], ())}
    for options in commands[name].groups:
        read(options, given)
    return name
