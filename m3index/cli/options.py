"""The options that several commands share: one place for each name, help text and variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE

_STORE = "Store"
_ENCODER = "Encoder"
_OUTPUT = "Output"
_CORPUS = "Corpus"
_SEARCH = "Search"

DEFAULT_URI = "m3index.db"

Uri = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_URI",
        metavar="URI",
        rich_help_panel=_STORE,
        help="Milvus: a local file (Milvus Lite), or the URI of a server.",
    ),
]
Token = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_TOKEN",
        metavar="TOKEN",
        rich_help_panel=_STORE,
        show_default="none",
        help="Login of the server, USER:PASSWORD or an API key. Better in the variable than here.",
    ),
]
Db = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_DB", metavar="NAME", rich_help_panel=_STORE, show_default="the server's default",
        help="Database of the server.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        envvar="M3INDEX_TIMEOUT", metavar="SECONDS", rich_help_panel=_STORE, min=0.1,
        help="How long to try again when the store does not answer.",
    ),
]
Collection = Annotated[
    str,
    typer.Option(
        "--collection", "-c", envvar="M3INDEX_COLLECTION", metavar="NAME", rich_help_panel=_STORE,
        help="Name of the collection (an alias over its generations).",
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder", "-e", envvar="M3INDEX_ENCODER", metavar="MODEL", rich_help_panel=_ENCODER,
        show_default="the collection's own; for a new one: teacher",
        help="Preset, hub id or directory of the model (see: m3index models).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_DEVICE", metavar="DEVICE", rich_help_panel=_ENCODER,
        help="auto, cpu, cuda, mps, or a list: cuda:0,cuda:1.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_PRECISION", metavar="PRECISION", rich_help_panel=_ENCODER,
        help="auto, fp32, bf16 or fp16.",
    ),
]
Dim = Annotated[
    Optional[int],  # noqa: UP045  (typer evaluates it)
    typer.Option(
        envvar="M3INDEX_DIM", metavar="N", min=1, rich_help_panel=_ENCODER, show_default="the model's",
        help="Width of the dense vector, for models trained with Matryoshka.",
    ),
]
BatchTokens = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_BATCH_TOKENS", metavar="N", rich_help_panel=_ENCODER,
        help="Token budget of one forward pass; auto finds it from the free memory.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_SOURCE", metavar="NAME", rich_help_panel=_CORPUS,
        help="Name of the corpus: several may share a collection, each prunes its own.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", envvar="M3INDEX_JSON", rich_help_panel=_OUTPUT,
        help="JSON lines on standard output, nothing else there.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", envvar="M3INDEX_QUIET", rich_help_panel=_OUTPUT, help="Warnings and errors only."),
]
Where = Annotated[
    list[str],
    typer.Option(
        metavar="FIELD=VALUE", rich_help_panel=_SEARCH, envvar="M3INDEX_WHERE", show_default="none",
        help="Only where a declared field compares so (=, !=, <, <=, >, >=). Repeat it for and.",
    ),
]
FilterText = Annotated[
    str,
    typer.Option(
        "--filter", metavar="EXPRESSION", rich_help_panel=_SEARCH, envvar="M3INDEX_FILTER",
        show_default="none", help="Only where this Milvus expression holds.",
    ),
]
