"""Loads an encoder by preset, hub id or directory."""

from __future__ import annotations

from typing import Any

from m3index.encoder import layout as layouts
from m3index.encoder.model import ModelEncoder, Settings
from m3index.encoder.presets import DEFAULT
from m3index.encoder.source import locate


def load(
    name: str = DEFAULT,
    *,
    device: str = "auto",
    precision: str = "auto",
    dim: int | None = None,
    batch_tokens: int | str = "auto",
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    revision: str | None = None,
    tokenizer_processes: int = 0,
    trust_remote_code: bool = False,
) -> ModelEncoder:
    """An encoder; its files are read now, its weights at the first text.

    name: a preset (`teacher`, `student`, `ko`, `e5-small`, `e5-mistral`, `offline`), a hub id, or a model
    directory. device: `auto` (all CUDA devices, else mps, else the CPU), `cpu`, `mps`, `cuda`,
    `cuda:0,cuda:1`. precision: `auto`, `fp32`, `bf16`, `fp16`, or `int8` (BERT and XLM-R on CPUs with VNNI;
    the first texts are compared with fp32, and a UsageError says where it is too coarse for them: see
    `encoder.recall`). dim: Matryoshka width, the first components at unit norm. batch_tokens: tokens of one
    forward pass, `auto` from the memory at hand. query_prompt, document_prompt: instead of the model's own.
    tokenizer_processes: tokenise documents in so many
    processes of their own (a GPU with a small model outruns one); 0: in this one.

    Raises ModelNotFoundError (no such model, or the hub cannot be reached), MismatchError (files that do
    not fit together, missing weights), UsageError (what is not supported).
    """
    source = locate(name, revision=revision)
    layout = layouts.read(
        source.directory,
        preset=source.preset,
        dim=dim,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )
    return ModelEncoder(
        source.name, layout, Settings(device, precision, batch_tokens, tokenizer_processes, trust_remote_code)
    )


def describe(name: str) -> dict[str, Any]:
    """One model as its files say, in the form of `presets.describe`: a row of `schemas/model.schema.json`.

    The model is looked up as `load` does it, so a preset that is not on this machine is downloaded.
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
