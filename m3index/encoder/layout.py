"""Reads the description of a model from its directory. Does not import torch or transformers.

The files are the Hugging Face `config.json`, the sentence-transformers files (`modules.json`, the modules'
`config.json`, `config_sentence_transformers.json`, `sentence_bert_config.json`) and BGE-M3's heads
(`sparse_linear`, `colbert_linear`, as `.safetensors` or `.pt`).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3index.encoder.plausible import check_config, check_size
from m3index.encoder.presets import Preset
from m3index.errors import MismatchError, ModelNotFoundError, UsageError

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU", "SiLU", "Sigmoid")
# Position tables of these models begin at padding_idx + 1; the rows before it are not positions.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "xmod", "mpnet", "longformer")
# Keys of config.json that do not affect the vectors.
_COSMETIC = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures",
             "_attn_implementation_autoset", "id2label", "label2id", "auto_map")  # fmt: skip
_ROLES = ("query", "document", "passage", "corpus")
_SLICES, _SLICE_BYTES = 64, 4096


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """A sentence-transformers `Dense` module: activation(x W^T + b), plus x if `residual`."""

    directory: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True, slots=True)
class NormalizeSpec:
    """A `Normalize` module."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The contents of a model directory.

    root: the directory. backbone: the directory of the transformer within it. pooling: one or more modes,
    concatenated. modules: the modules after the pooling, in order. dim: the requested width, or the full one.
    limit: the maximum number of tokens per input, including special tokens and prompt. lexical, multi_vector:
    the files of the heads, None if the model does not have them.
    """

    root: Path
    backbone: Path
    config: Mapping[str, Any]
    pooling: tuple[str, ...]
    pool_prompt: bool
    modules: tuple[DenseSpec | NormalizeSpec, ...]
    full_dim: int
    dim: int
    limit: int
    query_prompt: str
    document_prompt: str
    lower_case: bool
    append_eos: bool
    lexical: Path | None
    multi_vector: Path | None
    weights: tuple[Path, ...]

    @property
    def safetensors(self) -> bool:
        """Whether the weight files are safetensors. Otherwise they are torch pickles."""
        return all(path.suffix == ".safetensors" for path in self.weights)

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))


def read(
    root: Path,
    *,
    preset: Preset | None = None,
    dim: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
) -> Layout:
    """Reads a model directory; `preset` supplies whatever the directory does not specify.

    Raises ModelNotFoundError if files are missing, UsageError for unsupported models, MismatchError for files
    that contain something else than they should.
    """
    try:
        return _read(root, preset, dim, query_prompt, document_prompt)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise MismatchError(
            f"{root} is not a complete model: its JSON files lack something ({reason})."
        ) from None


def _read(
    root: Path, preset: Preset | None, dim: int | None, query_prompt: str | None, document_prompt: str | None
) -> Layout:
    modules = _modules(root)
    backbone = _backbone(root, modules)
    config = dict(_json(backbone / "config.json"))
    weights = weight_files(backbone)
    check_config(config, backbone, sum(path.stat().st_size for path in weights))
    hidden = hidden_size(config)
    pooling, pool_prompt = _pooling(root, modules, config, preset)
    after, full_dim = _after_pooling(root, modules, hidden * len(pooling))
    query, document = _prompts(root, preset)
    sentence = _optional_json(backbone / "sentence_bert_config.json")
    return Layout(
        root=root,
        backbone=backbone,
        config=config,
        pooling=pooling,
        pool_prompt=pool_prompt,
        modules=after,
        full_dim=full_dim,
        dim=_checked_dim(dim, full_dim),
        limit=_limit(backbone, config, sentence, preset),
        query_prompt=query if query_prompt is None else query_prompt,
        document_prompt=document if document_prompt is None else document_prompt,
        lower_case=bool(sentence.get("do_lower_case", False)),
        append_eos=_append_eos(backbone, preset),
        lexical=_head(root, "sparse_linear"),
        multi_vector=_head(root, "colbert_linear"),
        weights=weights,
    )


def hidden_size(config: Mapping[str, Any]) -> int:
    for key in ("hidden_size", "dim", "d_model"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise UsageError(
        f"config.json does not give a hidden size. Models of type {config.get('model_type')!r} are not "
        "supported."
    )


def position_padding(config: Mapping[str, Any]) -> int | None:
    """The padding id from which the RoBERTa family counts positions, or None if positions begin at 0."""
    if config.get("model_type") in _OFFSET_POSITIONS:
        return int(config.get("pad_token_id", 1))
    return None


def weight_files(backbone: Path) -> tuple[Path, ...]:
    """The weight files, preferring safetensors. Raises ModelNotFoundError."""
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (backbone / single).is_file():
            return (backbone / single,)
        if (backbone / index).is_file():
            names = sorted(set(_json(backbone / index)["weight_map"].values()))
            paths = tuple(backbone / name for name in names)
            missing = [p.name for p in paths if not p.is_file()]
            if missing:
                raise ModelNotFoundError(
                    f"{backbone} lacks {missing[0]}, which its index lists. Download it again."
                )
            return paths
    raise ModelNotFoundError(f"{backbone} has no weights (model.safetensors or pytorch_model.bin).")


def count_parameters(weights: Sequence[Path]) -> int:
    """Counts from the safetensors headers. For pickles, roughly the file size divided by four bytes."""
    total = 0
    for path in weights:
        if path.suffix == ".safetensors":
            header = json.loads(safetensors_header(path))
            total += sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
        else:
            total += path.stat().st_size // 4
    return total


def space_digest(layout: Layout) -> str:
    """A digest of everything that makes vectors comparable, independent of where the directory is.

    Weight files contribute their size, header and sampled slices, so 14 GB take milliseconds.
    """
    digest = hashlib.blake2b(digest_size=16)
    settings = {
        "config": {k: v for k, v in layout.config.items() if k not in _COSMETIC},
        "pooling": layout.pooling,
        "pool_prompt": layout.pool_prompt,
        "modules": [
            (m.in_features, m.out_features, m.bias, m.activation, m.residual)
            if isinstance(m, DenseSpec)
            else "normalize"
            for m in layout.modules
        ],
        "dim": layout.dim,
        "prompts": (layout.query_prompt, layout.document_prompt),
        "tokens": (layout.lower_case, layout.append_eos),
    }
    digest.update(json.dumps(settings, sort_keys=True, ensure_ascii=True).encode())
    files = [*layout.weights, *(_module_weights(m) for m in layout.modules if isinstance(m, DenseSpec))]
    if layout.lexical:
        files.append(layout.lexical)
    for path in files:
        sample(path, digest)
    for name in ("tokenizer.json", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt"):
        if (layout.backbone / name).is_file():
            sample(layout.backbone / name, digest)
            break
    return digest.hexdigest()


def sample(path: Path, digest: hashlib.blake2b) -> None:
    """Adds size, header and slices of a file to a digest, at the cost of milliseconds."""
    size = path.stat().st_size
    digest.update(f"{path.suffix} {size}".encode())
    if path.suffix == ".safetensors":
        digest.update(safetensors_header(path))
    with path.open("rb") as f:
        if size <= _SLICES * _SLICE_BYTES:
            digest.update(f.read())
            return
        for i in range(_SLICES):
            f.seek((size - _SLICE_BYTES) * i // (_SLICES - 1))
            digest.update(f.read(_SLICE_BYTES))


_HEADER = 100_000_000  # as the library


def safetensors_header(path: Path) -> bytes:
    with path.open("rb") as f:
        prefix = f.read(8)
        if len(prefix) < 8:
            raise MismatchError(f"{path} is not a complete safetensors file. Download it again.")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(path.stat().st_size, _HEADER):
            raise MismatchError(f"{path} is not a complete safetensors file. Download it again.")
        return f.read(length)


def _json(path: Path) -> Any:
    check_size(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path.parent} is not a model directory: it has no {path.name}.") from None
    except (ValueError, RecursionError) as e:
        raise MismatchError(f"{path} is not valid JSON: {e}.") from None


def _optional_json(path: Path) -> dict[str, Any]:
    return dict(_json(path)) if path.is_file() else {}


def _modules(root: Path) -> list[tuple[str, Path]]:
    """(kind, directory) of each sentence-transformers module, empty if there is no modules.json."""
    path = root / "modules.json"
    if not path.is_file():
        return []
    modules = sorted(_json(path), key=lambda m: int(m["idx"]))
    return [(str(m["type"]).rpartition(".")[2], root / m["path"] if m["path"] else root) for m in modules]


def _backbone(root: Path, modules: Sequence[tuple[str, Path]]) -> Path:
    if not modules:
        return root
    kind, directory = modules[0]
    if kind != "Transformer":
        raise UsageError(f"{root}: a model that begins with a {kind} module is not supported.")
    return directory


def _pooling(
    root: Path, modules: Sequence[tuple[str, Path]], config: Mapping[str, Any], preset: Preset | None
) -> tuple[tuple[str, ...], bool]:
    for kind, directory in modules:
        if kind == "Pooling":
            return _pooling_modes(_json(directory / "config.json"), root)
    if preset:
        return (preset.pooling,), True
    if _head(root, "sparse_linear") or _head(root, "colbert_linear"):
        return ("cls",), True  # BGE-M3 as released: heads but no modules.json
    if modules or config.get("is_decoder") or "num_key_value_heads" in config:
        raise UsageError(f"{root} does not specify how its tokens are pooled: it has no Pooling module.")
    return ("mean",), True  # the default of sentence-transformers for a plain transformer


def _pooling_modes(config: Mapping[str, Any], root: Path) -> tuple[tuple[str, ...], bool]:
    configured = config.get("pooling_mode")
    if configured is None:
        modes = tuple(mode for key, mode in _LEGACY_POOLING.items() if config.get(key)) or ("mean",)
    else:
        modes = (configured,) if isinstance(configured, str) else tuple(configured)
    unknown = [m for m in modes if m not in POOLING_MODES]
    if unknown:
        raise UsageError(f"{root}: pooling {unknown[0]!r} is not one of {', '.join(POOLING_MODES)}.")
    return modes, bool(config.get("include_prompt", True))


def _after_pooling(
    root: Path, modules: Sequence[tuple[str, Path]], width: int
) -> tuple[tuple[DenseSpec | NormalizeSpec, ...], int]:
    after: list[DenseSpec | NormalizeSpec] = []
    for kind, directory in modules[1:]:
        if kind == "Normalize":
            after.append(NormalizeSpec())
        elif kind == "Dense":
            spec = _dense(directory, root)
            if spec.in_features != width:
                raise MismatchError(f"{directory} expects {spec.in_features} features but gets {width}.")
            after.append(spec)
            width = spec.out_features
        elif kind not in ("Pooling", "Dropout"):
            raise UsageError(f"{root}: a {kind} module is not supported.")
    return tuple(after), width


def _dense(directory: Path, root: Path) -> DenseSpec:
    config = _json(directory / "config.json")
    function = config.get("activation_function", "torch.nn.Tanh") or "torch.nn.Identity"
    package, _, activation = str(function).rpartition(".")
    if not package.startswith("torch.nn") or activation not in ACTIVATIONS:
        raise UsageError(f"{root}: the activation {function} of a Dense module is not supported.")
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise UsageError(f"{root}: a Dense module over tokens is not supported.")
    return DenseSpec(
        directory=directory,
        in_features=int(config["in_features"]),
        out_features=int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        activation=activation,
        residual=bool(config.get("use_residual", False)),
    )


def _module_weights(spec: DenseSpec) -> Path:
    return weight_files(spec.directory)[0]


def _prompts(root: Path, preset: Preset | None) -> tuple[str, str]:
    """(query, document): the prompts with the names that sentence-transformers looks for, otherwise the
    model's default prompt, otherwise the preset's."""
    config = _optional_json(root / "config_sentence_transformers.json")
    prompts: dict[str, str] = {k: v for k, v in (config.get("prompts") or {}).items() if v}
    default = config.get("default_prompt_name")
    if default is not None and default not in (config.get("prompts") or {}):
        raise MismatchError(f"{root}: the default prompt {default!r} is not among its prompts.")
    # A default prompt meant for one side must not be applied to the other.
    fallback = prompts.get(default, "") if default and default not in _ROLES else ""

    def pick(names: tuple[str, ...], preset_prompt: str) -> str:
        matches = [prompts[name] for name in names if name in prompts]
        return matches[0] if matches else fallback or preset_prompt

    return (
        pick(_ROLES[:1], preset.query_prompt if preset else ""),
        pick(_ROLES[1:], preset.document_prompt if preset else ""),
    )


def _limit(
    backbone: Path, config: Mapping[str, Any], sentence: Mapping[str, Any], preset: Preset | None
) -> int:
    tokenizer = _optional_json(backbone / "tokenizer_config.json")
    limits = [512]
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int):
        padding = position_padding(config)
        limits = [positions if padding is None else positions - padding - 1]
    elif preset:
        limits = [preset.limit]
    declared = [sentence.get("max_seq_length"), tokenizer.get("model_max_length"), preset and preset.limit]
    # transformers writes a model_max_length of 1e30 if it is not set.
    limits += [int(n) for n in declared if isinstance(n, int | float) and 0 < n < 10**9]
    return min(limits)


def _append_eos(backbone: Path, preset: Preset | None) -> bool:
    if preset and preset.append_eos:
        return True
    return _optional_json(backbone / "tokenizer_config.json").get("add_eos_token") is True


def _head(root: Path, name: str) -> Path | None:
    for suffix in (".safetensors", ".pt"):
        if (root / f"{name}{suffix}").is_file():
            return root / f"{name}{suffix}"
    return None


def _checked_dim(dim: int | None, full: int) -> int:
    if dim is None:
        return full
    if not 0 < dim <= full:
        raise UsageError(f"--dim {dim}: this model's vectors have {full} dimensions. Use 1 to {full}.")
    return dim
