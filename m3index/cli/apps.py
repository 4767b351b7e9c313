"""The typer applications for the commands, and the headings of the list of commands."""

from __future__ import annotations

from typing import Any

import typer
import typer.core

from m3index.cli.command import COMMANDS

EVERYDAY, QUALITY, MODELS, OPERATIONS = "Everyday", "Quality", "Models", "Operations"
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _group(name: str, summary: str, panel: str) -> typer.Typer:
    sub_app = typer.Typer(name=name, help=summary, no_args_is_help=True, context_settings=_SETTINGS)
    app.add_typer(sub_app, rich_help_panel=panel)
    return sub_app


class _InOrder(typer.core.TyperGroup):
    """Lists commands and groups of commands in the order of their declaration."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (of typer)
        return list(dict.fromkeys(name.split()[0] for name in COMMANDS))


app = typer.Typer(
    name="m3index",
    cls=_InOrder,
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
