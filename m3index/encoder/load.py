"""Loads an encoder by preset, hub id or directory."""

from __future__ import annotations

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
    `cuda:0,cuda:1`. precision: `auto`, `fp32`, `bf16`, `fp16`. dim: Matryoshka width, the first components
    at unit norm. batch_tokens: tokens of one forward pass, `auto` from the memory at hand. query_prompt,
    document_prompt: instead of the model's own. tokenizer_processes: tokenise documents in so many
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
        name, layout, Settings(device, precision, batch_tokens, tokenizer_processes, trust_remote_code)
    )
