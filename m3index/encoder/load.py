"""Loads an encoder from a preset, hub id or directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m3index.encoder import layout as layouts
from m3index.encoder.model import ModelEncoder
from m3index.encoder.options import Device, Loading
from m3index.encoder.pieces import pieces
from m3index.encoder.presets import DEFAULT
from m3index.encoder.source import locate
from m3index.options import only_keywords


@only_keywords(Loading)
def load(name: str, options: Loading) -> ModelEncoder:
    """Loads an encoder. Its files are read now, its weights at the first text.

    name: a preset (`teacher`, `student`, `ko`, `e5-small`, `e5-mistral`, `offline`, `offline-en`), a hub id,
    or a model directory. With int8 (BERT and XLM-R on CPUs with VNNI) the first texts are compared with fp32,
    and UsageError says where it is too coarse for them, see `encoder.recall`.

    Raises ModelNotFoundError (no such model, or the hub is unreachable), MismatchError (files that do not fit
    together, missing weights), UsageError (unsupported models or options).
    """
    return load_model(name, options)


def load_model(name: str, options: Loading) -> ModelEncoder:
    """`load`, with the options as a group."""
    source = locate(name, revision=options.revision)
    layout = layouts.read(
        source.directory,
        preset=source.preset,
        dim=options.dim,
        query_prompt=options.query_prompt,
        document_prompt=options.document_prompt,
    )
    return ModelEncoder(source.name, layout, options)


def prepare_model(name: str, options: Device) -> Path:
    """Downloads, converts or prepares a model as its first use on this device and in this precision would.
    Returns the directory that holds its weights.

    Raises the errors of `load`, and UsageError or StoppedError if the cache cannot be written.
    """
    source = locate(name)
    layout = layouts.read(source.directory, preset=source.preset)
    pieces(layout)
    if options.precision == "fp32":
        return source.directory
    from m3index.encoder import backbone, hardware
    from m3index.encoder.mapped import mapped

    device = hardware.devices(options.device)[0]
    precision = hardware.precision(options.precision, device, int8=True)
    if not backbone.prepares(layout, precision, device):
        return source.directory
    return mapped(layout, precision).weights[0].parent


def describe(name: str) -> dict[str, Any]:
    """Describes a model from its files like `presets.describe`: as a row of `schemas/model.schema.json`.

    The model is located as in `load`, so a preset that is not on this machine is downloaded.
    """
    source = locate(name)
    layout = layouts.read(source.directory, preset=source.preset)
    preset = source.preset
    lexical = layout.lexical is not None
    return {
        "name": name,
        "model": preset.hub if preset else str(source.directory),
        "revision": preset.revision if preset else None,
        "summary": preset.summary if preset else f"a {layout.model_type} model",
        "default": name == DEFAULT,
        "dim": layout.full_dim,
        "matryoshka": preset.matryoshka if preset else False,
        "limit": layout.limit,
        "pooling": "+".join(layout.pooling),
        "outputs": ["dense", *["lexical"] * lexical, *["multi_vector"] * (layout.multi_vector is not None)],
        "sparse": "lexical" if lexical else "bm25",
        "query_prompt": layout.query_prompt,
        "document_prompt": layout.document_prompt,
        "parameters": layouts.count_parameters(layout.weights),
        "languages": preset.languages if preset else "not stated",
    }
