"""The command reference as Markdown, from the commands themselves: `make docs-reference`."""

from __future__ import annotations

from typing import Any

import typer.main

from m3index.errors import Exit

_EXITS = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "unexpected error",
    Exit.USAGE: "usage, bad filter",
    Exit.QUARANTINED: "done, rows quarantined",
    Exit.NOT_FOUND: "no such collection or model",
    Exit.LOCKED: "locked by another run",
    Exit.NOT_AUTHORISED: "not authorised",
    Exit.MISMATCH: "encoder or schema mismatch",
    Exit.DELETES_WITHHELD: "deletions withheld (guard, read error, rows without id; wins over 3)",
    Exit.DRIFT: "drift of data or counts",
    Exit.GATE: "quality gate refused",
    Exit.STOPPED: "stopped: disk space or --max-errors",
    Exit.UNREACHABLE: "store unreachable after retries",
    Exit.INTERRUPTED: "interrupted (SIGINT)",
    Exit.TERMINATED: "terminated (SIGTERM)",
}


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag or option.default in (None, "", (), []):
        return ""
    value = option.default
    return f"`{' '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + "..." * (argument.nargs != 1)
    return name if argument.required else f"[{name}]"


def _command(name: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(["m3index", name, "[OPTIONS]", *map(_usage, arguments)])
    lines = [f"## m3index {name}", "", (command.help or "").strip(), "", f"    {usage}", ""]
    lines += [f"- `{a.metavar or a.name.upper()}`: {a.help or ''}" for a in arguments]
    if arguments:
        lines.append("")
    if options:
        lines += ["| option | default | variable | what it does |", "|---|---|---|---|"]
        for option in options:
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            variable = f"`{option.envvar}`" if option.envvar else ""
            text = (option.help or "").replace("|", "\\|")
            lines.append(f"| {flags} | {_default(option)} | {variable} | {text} |")
        lines.append("")
    return lines


def commands() -> dict[str, Any]:
    """Every command by name, as typer makes it."""
    from m3index.cli import app

    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {n}": c for n, c in inner.items()}
    return found


def markdown() -> str:
    """The page docs/reference.md; a test holds the file to it."""
    lines = [
        "# Command reference",
        "",
        "Written by `make docs-reference` from the commands themselves. Each option can also be set by",
        "its variable, or by its name in `m3index.toml`: flag > variable > profile > default.",
        "",
    ]
    for name, command in sorted(commands().items()):
        lines += _command(name, command)
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {_EXITS[code]} |" for code in Exit]
    return "\n".join(lines) + "\n"
