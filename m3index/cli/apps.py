"""The typer applications for the commands, and the modules that declare them, each imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

from m3index.cli.command import COMMANDS, Command, keep_texts

EVERYDAY, QUALITY, MODELS, OPERATIONS = "Everyday", "Quality", "Models", "Operations"
_SETTINGS = {"help_option_names": ["-h", "--help"]}
_MODULES = {
    "ingest": "ingest", "sync": "ingest", "search": "search", "status": "status", "verify": "verify",
    "delete": "delete", "reindex": "reindex", "eval": "evaluate", "tune": "evaluate", "why": "why",
    "models": "models", "serve": "serve", "mcp": "serve", "shards": "shards", "generations": "generations",
    "collections": "collections", "config": "config", "doctor": "doctor",
}  # fmt: skip
"""Commands and groups of commands, in the order of the help text, and the module that declares each. Only the
modules of the commands that are asked for are imported: all of them take longer than a command that cannot
work."""


def _group(name: str, summary: str, panel: str) -> typer.Typer:
    sub_app = typer.Typer(
        name=name, cls=_Group, help=summary, no_args_is_help=True, context_settings=_SETTINGS
    )
    app.add_typer(sub_app, rich_help_panel=panel)
    return sub_app


def all_commands() -> Mapping[str, Command]:
    """All commands by their full names, `ingest`, `shards encode`, in the order of the help text."""
    for module in dict.fromkeys(_MODULES.values()):
        import_module(f"m3index.cli.{module}")
    order = list(_MODULES)
    return dict(sorted(COMMANDS.items(), key=lambda item: order.index(item[0].split()[0])))


class _Group(typer.core.TyperGroup):
    """Commands whose own options, such as --help, stay as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        return keep_texts(super().get_params(ctx))


class _Root(_Group):
    """All commands, those of `_MODULES`. A command line that cannot be parsed is told in plain text: the
    framed one takes longer to import than to parse it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._declared: set[str] = set()
        self._markup, self.rich_markup_mode = self.rich_markup_mode, None

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (of typer)
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self._declared:
            if cmd_name in _MODULES:
                import_module(f"m3index.cli.{_MODULES[cmd_name]}")
            else:
                all_commands()  # typer suggests the nearest
            self.commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
            self._declared = {name.split()[0] for name in COMMANDS}
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        all_commands()
        self.rich_markup_mode = self._markup
        super().format_help(ctx, formatter)


app = typer.Typer(
    name="m3index",
    cls=_Root,
    help="Index a multilingual corpus into Milvus with BGE-M3, search it, and keep it up to date.",
    epilog="Options can also be set in m3index.toml, some also by M3INDEX_* variables: m3index config show.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
models = _group(
    "models", "Models: list, prepare, measure and distill them, and check them for drift.", MODELS
)
shards = _group(
    "shards", "Parquet shards of vectors: encode a corpus, load shards, export a collection.", OPERATIONS
)
generations = _group("generations", "The generations of a collection: list, roll back.", OPERATIONS)
collections = _group("collections", "The collections of a store: list, drop, unlock.", OPERATIONS)
config = _group(
    "config", "The configuration: create the file, trust it, show the current values.", OPERATIONS
)
