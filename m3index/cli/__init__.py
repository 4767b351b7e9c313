"""The command line: one thin file per command. A command parses, calls the library, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import typer.main

import m3index
from m3index import settings
from m3index.cli import (
    bench,
    delete,
    distill,
    doctor,
    drift,
    encode,
    eval,  # noqa: A004  (a module)
    export,
    generations,
    ingest,
    load,
    mcp,
    models,
    plan,
    reference,
    reindex,
    run,
    search,
    serve,
    status,
    tune,
    verify,
)
from m3index.cli import (
    config as configuration,
)
from m3index.errors import M3IndexError

app = typer.Typer(
    name="m3index",
    help="Index a multilingual corpus into Milvus with BGE-M3, search it, and keep it right every night.",
    epilog="Options can also be set by M3INDEX_* variables and in m3index.toml.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("ingest")(ingest.ingest)
app.command("sync")(ingest.sync)
app.command("plan")(plan.plan)
app.command("search")(search.search)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("verify")(verify.verify)
app.command("delete")(delete.delete)
app.command("prune")(ingest.prune)
app.command("reindex")(reindex.reindex)
app.command("generations")(generations.generations)
app.command("rollback")(generations.rollback)
app.command("unlock")(generations.unlock)
app.command("eval")(eval.evaluate)
app.command("tune")(tune.tune)
app.command("distill")(distill.distill)
app.command("drift")(drift.drift)
app.command("bench")(bench.bench)
app.command("encode")(encode.encode)
app.command("load")(load.load)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command("init")(configuration.init)
app.add_typer(configuration.config)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"m3index {m3index.__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    config: Annotated[
        Optional[Path],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_CONFIG",
            metavar="FILE",
            show_default="m3index.toml here, else in the user's configuration",
            help="Configuration file.",
        ),
    ] = None,
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            envvar="M3INDEX_PROFILE",
            metavar="NAME",
            show_default="none",
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
    if ctx.resilient_parsing or ctx.invoked_subcommand is None:
        return
    try:
        ctx.default_map = _defaults(config or settings.find(), profile)
    except M3IndexError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(error.exit_code)) from None


def _defaults(path: Path | None, profile: str | None) -> dict[str, Any]:
    """The configuration file's values, by the parameter names that typer knows."""
    known = {
        command: {flag.lstrip("-").replace("-", "_"): param for param in made.params for flag in param.opts}
        for command, made in reference.commands().items()
    }
    found = settings.read(path, profile, known.keys()).defaults(known)
    return {
        command: {
            known[command][name].name: _value(known[command][name], value) for name, value in values.items()
        }
        for command, values in found.items()
    }


def _value(option: Any, value: Any) -> Any:
    """What may be repeated may be given once without the brackets of a list."""
    return [value] if getattr(option, "multiple", False) and isinstance(value, str) else value
