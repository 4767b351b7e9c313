"""Generates the command reference in Markdown from the declarations: `make docs-reference`.

An option of several commands is printed once, in the section of its panel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeAlias

import typer.main

from m3index.cli import all_commands, app
from m3index.cli.command import PANELS, Command
from m3index.errors import Exit
from m3index.options import Option

_INTRODUCTION = """\
# Command reference

All commands and options. `make docs-reference` generates this page from the declarations in the code.
[Common options](#common-options) are explained once; each command lists its own.

A value comes from the flag, the variable if there is one, the profile, the rest of `m3index.toml`, or the
default, in this order ([Configuration](configuration.md)). In `m3index.toml`, an option has the name of its
flag (`max-delete = "5%"`) unless the table gives another name. *Flag only* means that neither a variable nor
the file can set the option.
"""

Entry: TypeAlias = tuple[str, ...]
"""The printed cells of an option. Options with equal cells count as the same option."""


def click_commands() -> dict[str, Any]:
    """All click commands by full name."""
    all_commands()
    commands: dict[str, Any] = {}
    for name, top in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(top, "commands", None)
        commands |= {name: top} if inner is None else {f"{name} {n}": c for n, c in inner.items()}
    return commands


def _entry(option: Option) -> Entry:
    """Panel, flags, default and description."""
    flags = [f"`{flag}`" for flag in option.flags]
    if option.kind.metavar:
        flags[0] = f"`{option.flags[0]} {option.kind.metavar}`"
    default = "" if option.shown == "none" else option.default_text
    if option.is_required:
        default = "required"
    elif default and not option.shown:
        default = f"`{default}`"
    return option.panel, ", ".join(flags), default, f"{option.help}{_origins(option)}"


def _origins(option: Option) -> str:
    """The variable, the name in the file if it differs from the flag, and where the option cannot be set."""
    if option.variable:
        return f" Variable: `{option.envvar}`{'' if option.file else '; not in the file'}."
    if not option.file:
        return " *Flag only.*"
    flag = max(option.flags, key=len).lstrip("-").replace("-", "_")
    return "" if flag == option.name else f" In the file: `{option.name}`."


def _table(entries: Iterable[Entry]) -> Iterator[str]:
    yield "| option | default | description |"
    yield "|---|---|---|"
    for _, *cells in entries:
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
    yield ""


def _cell(text: str) -> str:
    """A table cell: flags become code, pages become links, and bars are escaped."""
    text = re.sub(r"(?<![`\w-])(--?[a-z][\w-]*)(?![`\w])", r"`\1`", text)
    return re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](\1.md)", text).replace("|", "\\|")


def _usage(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    many = "" if argument.nargs == 1 else "..."
    return f"{name if argument.required else f'[{name}]'}{many}"


def _command(command: Command, clicked: Any, common: set[Entry]) -> Iterator[str]:
    arguments = [p for p in clicked.params if p.param_type_name == "argument"]
    usage = " ".join(["m3index", command.name, "[OPTIONS]", *map(_usage, arguments)])
    yield from (f"## m3index {command.name}", "", command.help, "", f"    {usage}", "")
    for argument in arguments:
        yield f"- `{argument.metavar or argument.name.upper()}`: {argument.help or ''}"
    if arguments:
        yield ""
    options = list(command.options.values())
    own = [entry for entry in map(_entry, options) if entry not in common]
    if own:
        yield from _table(own)
    shared = [option for option in options if _entry(option) in common]
    if shared:
        yield from ("Common options:", "")
        for panel, members in groupby(shared, key=lambda option: option.panel):
            flags = ", ".join(f"`{max(option.flags, key=len)}`" for option in members)
            yield f"- [{panel}](#{panel.lower()}): {flags}"
        yield ""


def _program() -> Iterator[str]:
    """The options before the name of a command."""
    yield from ("## m3index", "", "Options before the name of a command.", "")
    yield from ("    m3index [OPTIONS] COMMAND ...", "")
    entries: list[Entry] = []
    parameters: list[Any] = typer.main.get_command(app).params
    for parameter in parameters:
        if parameter.name != "help":
            flag = f"`{' '.join([parameter.opts[0], parameter.metavar or '']).strip()}`"
            text, _, default = str(parameter.help).partition(" Default: ")
            variable = f" Variable: `{parameter.envvar}`." if parameter.envvar else ""
            entries.append(("", flag, default.rstrip("."), text + variable))
    yield from _table(entries)


def markdown() -> str:
    """The page docs/reference.md; a test compares the file with it."""
    commands = all_commands()
    uses = Counter(_entry(option) for command in commands.values() for option in command.options.values())
    common = {entry for entry, count in uses.items() if count > 1}
    lines = [_INTRODUCTION, *_program()]
    by_name = click_commands()
    for name, command in commands.items():
        lines += _command(command, by_name[name], common)
    lines += ["# Common options", ""]
    for panel in PANELS:
        entries = [entry for entry in uses if entry in common and entry[0] == panel]
        if entries:
            lines += [f"## {panel}", "", *_table(entries)]
    lines += ["# Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {code.meaning} |" for code in Exit]
    return "\n".join(lines) + "\n"
