"""m3index models: the presets and what each can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3index.cli import options
from m3index.cli.session import session


def _rows(name: str) -> list[dict[str, Any]]:
    from m3index.encoder import presets

    if not name:
        return presets.describe()
    if named := [row for row in presets.describe() if row["name"] == name]:
        return named
    from m3index.encoder.load import describe

    return [describe(name)]


def models(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Only this preset, or what this hub id or directory says of itself.",
            show_default=False,
        ),
    ] = "",
    as_json: options.Json = False,
) -> None:
    """List the models that have a name, and what each can do."""
    with session("models", as_json=as_json) as run:
        rows = _rows(name)
        if as_json:
            for row in rows:
                run.reporter.result({"type": "model", **row})
            return
        from m3index.cli import show

        for row in rows:
            default = " (default)" if row["default"] else ""
            outputs = ", ".join(row["outputs"]).replace("_", "-")
            sparse = "lexical head" if row["sparse"] == "lexical" else "BM25 of the store"
            lines = [
                (Path(row["name"]).name + default, row["summary"]),
                ("  model", row["model"]),
                ("  outputs", f"{outputs}; sparse: {sparse}"),
                (
                    "  dense",
                    f"{row['dim']}-d{', Matryoshka' if row['matryoshka'] else ''}, {row['pooling']} pooling",
                ),
                ("  limit", f"{row['limit']:,} tokens"),
            ]
            if row["query_prompt"] or row["document_prompt"]:
                lines.append(
                    ("  prompts", f"query {row['query_prompt']!r}, document {row['document_prompt']!r}")
                )
            show.pairs(lines)
