"""m3index models: the presets and what each can do."""

from __future__ import annotations

from typing import Annotated

import typer

from m3index.cli import options
from m3index.cli.session import session


def models(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="Look into this preset or directory instead.", show_default=False
        ),
    ] = "",
    as_json: options.Json = False,
) -> None:
    """List the models that have a name, and what each can do."""
    with session("models", as_json=as_json) as run:
        from m3index.encoder.presets import describe

        rows = [row for row in describe() if not name or row["name"] == name]
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
                (row["name"] + default, row["summary"]),
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
