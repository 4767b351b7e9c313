"""Values from an m3index.toml that nobody has trusted yet: only harmless ones are taken unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from m3index import settings
from m3index.addresses import redacted
from m3index.cli.session import is_interactive
from m3index.errors import UsageError
from m3index.options import Option
from m3index.progress import one_line
from m3index.trust import is_trusted, remember


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration file of a run: its path and whether its values can be used without a question."""

    path: Path
    content: bytes
    is_trusted: bool

    @classmethod
    def of(cls, located: settings.Located, content: bytes) -> Configuration:
        return cls(located.path, content, not located.is_found or is_trusted(located.path, content))


def origin_of(file: Configuration | None) -> str:
    """What `config show` calls the file."""
    if file is None:
        return settings.FILE_NAME
    return str(file.path) if file.is_trusted else f"{file.path}, not trusted"


def refusal(
    context: typer.Context, options: Mapping[str, Option], texts: Mapping[str, Any]
) -> UsageError | None:
    """The error for a run that takes more than harmless values from a file that the user does not trust. Asks
    the user first if there is a terminal. texts: the values of the run by the names of their options."""
    file: Configuration | None = context.find_root().obj
    if file is None or file.is_trusted:
        return None
    taken = [
        option
        for name, option in options.items()
        if name in texts and not option.harmless and _is_from_file(context, name)
    ]
    if not taken:
        return None
    if is_interactive() and _agrees(file, taken, texts):
        try:
            remember(file.path, file.content)
        except UsageError as error:
            return error
        return None
    return UsageError(
        f"{file.path} in this folder sets {_listed([option.name for option in taken])}, and you have not "
        f"said that you trust it. Read it, then run `m3index config trust`, or name it: --config {file.path}."
    )


def _is_from_file(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def _agrees(file: Configuration, taken: Sequence[Option], texts: Mapping[str, Any]) -> bool:
    place = one_line(str(file.path.absolute()))
    typer.echo(f"Nobody has said that {place} can be trusted. This run would take from it:", err=True)
    for option in taken:
        value = texts[option.name]
        shown = redacted(value) if isinstance(value, str) else str(value)
        typer.echo(one_line(f"  {option.name} = {shown}"), err=True)
    return typer.confirm("Do you trust the whole file, until it changes?", err=True)


def _listed(names: Sequence[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} and {last}" if first else last
