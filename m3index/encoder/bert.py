"""What BERT, RoBERTa and XLM-R consist of, for each forward pass of our own. Does not import torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from m3index.encoder.layout import Layout, hidden_size
from m3index.errors import MismatchError, UsageError

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu"]
"""gelu_tanh: the approximation of GELU by a hyperbolic tangent."""

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
)
"""By their names in config.json."""

_FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
_WORDS = "embeddings.word_embeddings.weight"
_FIRST_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # from TensorFlow


def is_bert(config: Mapping[str, Any]) -> bool:
    """Whether a model with this config.json computes what our forward passes do."""
    return (
        config.get("model_type") in _FAMILY
        and not config.get("is_decoder")
        and not config.get("add_cross_attention")
        and not config.get("quantization_config")
        and config.get("position_embedding_type", "absolute") == "absolute"
        and config.get("hidden_act", "gelu") in ACTIVATIONS
    )


def runs_own_code(layout: Layout, *, trust_remote_code: bool) -> bool:
    """Whether the model runs its own code, which rules out our forward passes."""
    return trust_remote_code and "auto_map" in layout.config


def layer_names(config: Mapping[str, Any]) -> list[str]:
    return [f"encoder.layer.{i}" for i in range(int(config.get("num_hidden_layers", 12)))]


def layer_norm_eps(config: Mapping[str, Any]) -> float:
    return float(config.get("layer_norm_eps", 1e-12))


def attention_heads(config: Mapping[str, Any]) -> int:
    heads = int(config.get("num_attention_heads", 12))
    if hidden_size(config) % heads:
        raise UsageError("config.json: the hidden size is not a multiple of the number of attention heads.")
    return heads


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight that config.json requires except the pooler, which no embedding depends on."""
    width, inner = hidden_size(config), int(config.get("intermediate_size", 3072))
    norm = {"LayerNorm.weight": (width,), "LayerNorm.bias": (width,)}
    required: dict[str, tuple[int, ...]] = {
        _WORDS: (int(config.get("vocab_size", 30522)), width),
        "embeddings.position_embeddings.weight": (int(config.get("max_position_embeddings", 512)), width),
        "embeddings.token_type_embeddings.weight": (int(config.get("type_vocab_size", 2)), width),
        **{f"embeddings.{name}": shape for name, shape in norm.items()},
    }
    linear = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    for i in range(int(config.get("num_hidden_layers", 12))):
        layer = f"encoder.layer.{i}"
        for name, shape in linear.items():
            required |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for place in ("attention.output", "output"):
            required |= {f"{layer}.{place}.{name}": shape for name, shape in norm.items()}
    return required


class StoredNames:
    """Maps the name of a weight in transformers to its name in a checkpoint, which may have a prefix."""

    def __init__(self, stored: Collection[str]) -> None:
        self._stored = stored
        words = next((name for name in stored if name.endswith(_WORDS)), _WORDS)
        self._prefix = words.removesuffix(_WORDS)

    def __call__(self, name: str) -> str:
        full = self._prefix + name
        for current, original in _FIRST_NAMES.items():
            if full not in self._stored:
                full = full.replace(current, original)
        return full


def incomplete(layout: Layout, missing: Sequence[str]) -> MismatchError:
    return MismatchError(
        f"{layout.backbone} lacks {len(missing)} weights that its config.json requires, such as "
        f"{missing[0]}. Check that the directory holds the complete model."
    )
