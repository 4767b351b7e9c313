"""Writes a student's directory for our encoder, sentence-transformers and FlagEmbedding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from m3index.distill.network import Network
from m3index.encoder.backbone import quiet_transformers
from m3index.encoder.layout import DenseSpec, Layout

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_IDENTITY = "torch.nn.modules.linear.Identity"
_MODULES = "sentence_transformers.models"


def write(network: Network, folder: Path) -> Path:
    """Writes the whole model. The heads that exist go into `sparse_linear.pt` and `colbert_linear.pt`, as in
    FlagEmbedding."""
    layout = network.layout
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        network.model.save_pretrained(str(folder))
    for path in [*(layout.backbone / name for name in _TOKENIZER_FILES), *layout.backbone.glob("*.py")]:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    _write_modules(network, folder)
    for head, name in ((network.lexical, "sparse_linear.pt"), (network.multi_vector, "colbert_linear.pt")):
        if head is not None:
            torch.save({"weight": _plain(head.weight), "bias": _plain(head.bias)}, folder / name)
    return folder


def _write_modules(network: Network, folder: Path) -> None:
    """Writes the sentence-transformers modules: Transformer, Pooling, the model's Dense layers, Normalize,
    and the projection to the teacher's width if there is one."""
    layout = network.layout
    kinds: list[tuple[str, DenseSpec | nn.Linear | None]] = [("Transformer", None), ("Pooling", None)]
    kinds += [("Dense", m) if isinstance(m, DenseSpec) else ("Normalize", None) for m in layout.modules]
    if kinds[-1][0] != "Normalize":
        kinds.append(("Normalize", None))
    if network.projection is not None:
        kinds += [("Dense", network.projection), ("Normalize", None)]
    modules = []
    for i, (kind, source) in enumerate(kinds):
        path = f"{i}_{kind}" if i else ""
        modules.append({"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}.{kind}"})
        (folder / path).mkdir(exist_ok=True)
        if kind == "Pooling":
            _json(folder / path / "config.json", _pooling(layout, network.width))
        elif isinstance(source, DenseSpec):
            shutil.copytree(source.directory, folder / path, dirs_exist_ok=True)
        elif isinstance(source, nn.Linear):
            _write_dense(source, folder / path)
    _json(folder / "modules.json", modules)
    _json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": layout.limit, "do_lower_case": layout.lower_case},
    )
    prompts = {"query": layout.query_prompt, "document": layout.document_prompt}
    _json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _pooling(layout: Layout, width: int) -> dict[str, Any]:
    names = {
        "cls": "cls_token",
        "mean": "mean_tokens",
        "max": "max_tokens",
        "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "weightedmean": "weightedmean_tokens",
        "lasttoken": "lasttoken",
    }
    modes = {f"pooling_mode_{name}": mode in layout.pooling for mode, name in names.items()}
    return {"word_embedding_dimension": width, **modes, "include_prompt": layout.pool_prompt}


def _write_dense(linear: nn.Linear, folder: Path) -> None:
    _json(
        folder / "config.json",
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": True,
            "activation_function": _IDENTITY,
        },
    )
    tensors = {"linear.weight": _plain(linear.weight), "linear.bias": _plain(linear.bias)}
    save_file(tensors, str(folder / "model.safetensors"))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
