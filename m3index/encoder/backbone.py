"""The transformer: maps packed tokens to hidden states in one of three ways.

`FusedBackbone` is our own short forward pass for BERT, RoBERTa and XLM-R. `PackedBackbone` runs the model
code of transformers with our attention function, for every family that accepts one. `SingleBackbone` runs one
input at a time, for model code with its own attention (remote code).
"""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from m3index.encoder import attention, packing
from m3index.encoder.attention import Spans
from m3index.encoder.bert import (
    ACTIVATIONS,
    Activation,
    attention_heads,
    is_bert,
    layer_names,
    layer_norm_eps,
    runs_own_code,
)
from m3index.encoder.hardware import DTYPES, Precision, sum_in_fp32
from m3index.encoder.layout import Layout, hidden_size, position_padding
from m3index.encoder.mapped import mapped_if_possible, needed
from m3index.encoder.memory import is_shortage
from m3index.encoder.weights import Weights, joined
from m3index.errors import MismatchError

Read: TypeAlias = Callable[[str], Tensor]

_log = logging.getLogger(__name__)
_UNPACKED_TOKENS = 512
"""Tokens after which reordered weights are worth it."""


class Backbone(Protocol):
    """ids, positions, types: (t,) int32 on the device (types None means all zero) -> hidden (t, width)."""

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, spans: Spans) -> Tensor: ...


_BROKEN = (
    OSError, ValueError, RuntimeError, ImportError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError,
)  # fmt: skip
"""What transformers raises for files that do not fit together."""

_REMOTE_CODE = {
    False: " Code that a model ships runs only with --trust-remote-code (in Python: trust_remote_code=True).",
    True: " Code that a reranker ships is never run.",
}


def load_model(
    layout: Layout, precision: Precision, *, trust_remote_code: bool = False, classifier: bool = False
) -> Any:
    """Loads a model directory with transformers: on the CPU, in evaluation mode, all weights from its files.

    Raises MismatchError if a weight is missing or has the wrong shape, because transformers would initialise
    it at random.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if classifier else AutoModel
    options: dict[str, Any] = {
        "dtype": DTYPES[precision],
        "local_files_only": True,
        "output_loading_info": True,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": layout.safetensors,
    }
    with quiet_transformers():
        try:
            model, info = auto.from_pretrained(str(layout.backbone), **options)
        except _BROKEN as e:
            hint = "" if trust_remote_code else _REMOTE_CODE[classifier]
            raise MismatchError(f"{layout.backbone} cannot be loaded: {_first_line(e)}{hint}") from e
    # No embedding depends on the pooler of BERT-like models, and many checkpoints omit it.
    unused = () if classifier else ("pooler.",)
    missing = sorted(k for k in info["missing_keys"] if not k.startswith(unused))
    if missing or info["mismatched_keys"]:
        names = missing or [str(k[0]) for k in info["mismatched_keys"]]
        raise MismatchError(
            f"{layout.backbone} lacks {len(names)} weights that its config.json requires, such as "
            f"{names[0]}. Check that the directory holds the complete model."
        )
    if not classifier and getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps progress bars and load reports off stderr; anything that matters is raised instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load(
    layout: Layout,
    precision: Precision,
    device: torch.device,
    *,
    trust_remote_code: bool = False,
    prepare: bool = False,
) -> Backbone:
    """Loads our own forward pass, without transformers, if it fits. Otherwise uses `of_model`.

    prepare: pickled weights are read from the cache of prepared models, and put there if need be.
    """
    sum_in_fp32(device)
    dtype = DTYPES[precision]
    ours_fits = is_bert(layout.config) and not runs_own_code(layout, trust_remote_code=trust_remote_code)
    if ours_fits and _kernels_agree(layout.config, dtype, device):
        readable = layout
        if prepare and needed(layout, dtype, device):
            readable = mapped_if_possible(layout, precision)
        if readable.safetensors:
            packed = not _plain_weights_agree(layout.config, dtype, device)
            return FusedBackbone(Weights(readable, dtype, device), layout.config, packed=packed)
    return of_model(load_model(layout, precision, trust_remote_code=trust_remote_code), device)


def of_model(model: Any, device: torch.device, *, modules: bool = False) -> Backbone:
    """The fastest exact forward pass for this model. `modules` restricts the choice to those that run the
    model's own modules, which gradients and hooks require.

    Each candidate runs on two short inputs and is kept only if its output matches that of the model's own
    code for one input at a time, on this device and in this precision.
    """
    sum_in_fp32(device)
    model = model.to(device)
    own_attention = model.config._attn_implementation
    truth = _probe(SingleBackbone(model), model, device)
    candidates: list[Callable[[Any], Backbone]] = [PackedBackbone]
    if not modules and is_bert(model.config.to_dict()):
        candidates.insert(0, _fused)
    for candidate in candidates:
        try:
            backbone = candidate(model)
            if _same(_probe(backbone, model, device), truth, exact=model.dtype == torch.float32):
                return backbone
        except (RuntimeError, TypeError, ValueError) as e:
            if is_shortage(e):
                raise
            _log.debug("%s: %s", candidate.__name__, e)
    _log.warning("%s cannot be packed; it encodes one input at a time, which is slow", type(model).__name__)
    model.set_attn_implementation(own_attention)
    return SingleBackbone(model)


def _probe(backbone: Backbone, model: Any, device: torch.device) -> Tensor:
    """Hidden states of two inputs of 5 and 3 tokens: (8, width) in float32."""
    rows = [np.arange(4, 9, dtype=np.int32), np.arange(9, 6, -1, dtype=np.int32)]
    pack = packing.pack(rows, position_padding(model.config.to_dict()))
    ids, positions, bounds = (torch.from_numpy(x).to(device) for x in (pack.ids, pack.positions, pack.bounds))
    with torch.inference_mode():
        return backbone(ids, positions, None, Spans.of(pack, bounds)).float()


def _same(ours: Tensor, truth: Tensor, *, exact: bool) -> bool:
    """Rounding in half precision turns a state by a degree or two; attention to a wrong token by far more. If
    the model overflows, the comparison says nothing, and the later check for finite values catches it."""
    if not bool(torch.isfinite(truth).all()):
        return True
    least = 0.9999 if exact else 0.99
    return bool(F.cosine_similarity(ours, truth, dim=-1).min() > least)


def prepares(layout: Layout, precision: Precision, device: torch.device) -> bool:
    """Whether `load` reads the weights from the cache of prepared models, if it may."""
    if not is_bert(layout.config) or precision not in DTYPES:
        return False
    dtype = DTYPES[precision]
    return needed(layout, dtype, device) and _kernels_agree(layout.config, dtype, device)


def _fused(model: Any) -> Backbone:
    return FusedBackbone(model.get_parameter, model.config.to_dict())


def _kernels_agree(config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the fused operations match the plain ones here, with this model's heads: the fused ones are not
    part of torch's stable interface."""
    heads, width = attention_heads(config), hidden_size(config)
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    x, residual, bias = random(8, width), random(8, width), random(3 * width)
    weight = random(3 * width, width) / width**0.5
    bounds = torch.tensor([0, 5, 8], dtype=torch.int32, device=device)
    spans = Spans(((0, 1, 5), (5, 1, 3)), bounds, 5)
    try:
        with torch.inference_mode():
            full = _Linear(weight.to(device, dtype), bias.to(device, dtype))
            square = _Linear(weight[:width].to(device, dtype), bias[:width].to(device, dtype))
            packed = x.to(device, dtype)
            query, key, value = full.plain(packed).view(8, 3, heads, -1).unbind(1)
            outputs = [
                attention.attend(query, key, value, spans).flatten(1),
                full.activated(packed, "gelu"),
                square.added(packed, residual.to(device, dtype)),
            ]
    except (RuntimeError, TypeError, ValueError) as e:
        if is_shortage(e):
            raise
        _log.debug("fused operations: %s", e)
        return False
    plain = F.linear(x, weight, bias)
    parts = [
        part.view(-1, 3, heads, width // heads).permute(1, 2, 0, 3) for part in torch.split(plain, [5, 3])
    ]
    attended = [F.scaled_dot_product_attention(*part).transpose(0, 1).flatten(1) for part in parts]
    truth = [torch.cat(attended), F.gelu(plain), F.linear(x, weight[:width], bias[:width]) + residual]
    return all(
        _same(a.float().cpu(), b, exact=dtype == torch.float32) for a, b in zip(outputs, truth, strict=True)
    )


def _plain_weights_agree(config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN's products here are the same, bit for bit, for a weight as it is and reordered. Then a
    model can begin with its weights as they are, and no text's vectors depend on what was encoded before."""
    width = hidden_size(config)
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(512, width, generator=rng).to(device, dtype) / width**0.5
    if not _onednn_takes(weight):
        return True
    with torch.inference_mode():
        for matrix in (weight, weight.view(128, 4 * width)):
            bias = torch.zeros(len(matrix), dtype=dtype)
            plain, packed = (_Linear(matrix, bias, packed=packed) for packed in (False, True))
            for rows in (2, 7, 40):
                x = torch.randn(rows, matrix.shape[1], generator=rng).to(dtype)
                residual = torch.randn(rows, len(matrix), generator=rng).to(dtype)
                pairs = (
                    (plain.plain(x), packed.plain(x)),
                    (plain.activated(x, "gelu"), packed.activated(x, "gelu")),
                    (plain.added(x, residual), packed.added(x, residual)),
                )
                if not all(torch.equal(*pair) for pair in pairs):
                    return False
    return True


class PackedBackbone:
    """Runs transformers' model code on one row of packed inputs."""

    def __init__(self, model: Any) -> None:
        attention.register()
        model.set_attn_implementation(attention.NAME)
        self._model = model
        self._takes_types = getattr(model.config, "type_vocab_size", 0) > 1

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, spans: Spans) -> Tensor:
        extra: dict[str, Any] = {}
        if self._takes_types and types is not None:
            extra["token_type_ids"] = types.long()[None]
        if hasattr(self._model.config, "use_cache"):
            extra["use_cache"] = False
        out = self._model(
            input_ids=ids.long()[None], position_ids=positions.long()[None], packed_spans=spans, **extra
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden


class SingleBackbone:
    """Runs one input at a time (inputs of equal length together) with the model's own attention."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, spans: Spans) -> Tensor:  # noqa: ARG002
        parts = []
        for start, inputs, length in spans.runs:
            rows = ids[start : start + inputs * length].view(inputs, length).long()
            out = self._model(input_ids=rows, attention_mask=torch.ones_like(rows))
            parts.append(out.last_hidden_state.flatten(0, 1))
        return torch.cat(parts)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


# The function, and oneDNN's post-operation with its variant.
FUNCTIONS: Mapping[Activation, tuple[Callable[[Tensor], Tensor], tuple[str, str]]] = {
    "gelu": (_gelu, ("gelu", "none")),
    "gelu_tanh": (_gelu_tanh, ("gelu", "tanh")),
    "relu": (torch.relu, ("relu", "")),
}


class Linear(Protocol):
    """x (t, inputs) -> (t, outputs): x W^T + b, plain, through a named activation, or plus a residual."""

    def plain(self, x: Tensor) -> Tensor: ...

    def activated(self, x: Tensor, name: Activation) -> Tensor: ...

    def added(self, x: Tensor, residual: Tensor) -> Tensor: ...


class _Linear:
    """x W^T + b and the next operation, in a single pass over memory if oneDNN can fuse them.

    On x86 CPUs oneDNN's fused operations run (the ones that torch.compile's CPU backend calls). This is 5 to
    25 % faster than F.linear followed by the operation, and fp32 stays fp32 without a process-wide switch.
    They take the weight as it is, or, faster, reordered; to reorder it takes as long as dozens of queries.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, packed: bool = True) -> None:
        self._weight, self._bias = weight, bias
        self._onednn = _onednn_takes(weight)
        if packed:
            self.pack()

    def pack(self) -> None:
        """Reorders the weight, once."""
        if self._onednn and not self._weight.is_mkldnn:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous())

    def plain(self, x: Tensor) -> Tensor:
        if self._onednn:
            return self._pointwise(x, "none", "")
        return F.linear(x, self._weight, self._bias)

    def activated(self, x: Tensor, name: Activation) -> Tensor:
        function, operation = FUNCTIONS[name]
        if self._onednn:
            return self._pointwise(x, *operation)
        return function(F.linear(x, self._weight, self._bias))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        if self._onednn:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self._weight, self._bias, "add"
            )
            return y
        return F.linear(x, self._weight, self._bias) + residual

    def _pointwise(self, x: Tensor, operation: str, variant: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, operation, [], variant)
        return y


def _onednn_takes(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (weight.dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


class _Norm:
    def __init__(self, weights: Read, name: str, eps: float) -> None:
        self._weight, self._bias, self._eps = weights(f"{name}.weight"), weights(f"{name}.bias"), eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self._weight, self._bias, self._eps)


class Layer:
    """One transformer layer. linear_of: builds a `Linear` from each weight and bias."""

    def __init__(
        self,
        weights: Read,
        name: str,
        config: Mapping[str, Any],
        linear_of: Callable[[Tensor, Tensor], Linear] = _Linear,
    ) -> None:
        self._heads, self._activation = attention_heads(config), ACTIVATIONS[config.get("hidden_act", "gelu")]
        eps = layer_norm_eps(config)

        def linear(*parts: str) -> Linear:
            matrices, biases = (
                [weights(f"{name}.{part}.{kind}") for part in parts] for kind in ("weight", "bias")
            )
            return linear_of(joined(matrices), joined(biases))

        self._qkv = linear(*(f"attention.self.{part}" for part in ("query", "key", "value")))
        self._out = linear("attention.output.dense")
        self._after_attention = _Norm(weights, f"{name}.attention.output.LayerNorm", eps)
        self._up = linear("intermediate.dense")
        self._down = linear("output.dense")
        self._after_mlp = _Norm(weights, f"{name}.output.LayerNorm", eps)

    def pack(self) -> None:
        for linear in (self._qkv, self._out, self._up, self._down):
            if isinstance(linear, _Linear):
                linear.pack()

    def __call__(self, x: Tensor, spans: Spans) -> Tensor:
        query, key, value = self._qkv.plain(x).view(len(x), 3, self._heads, -1).unbind(1)
        return self._rest(attention.attend(query, key, value, spans).flatten(1), x)

    def _rest(self, mixed: Tensor, x: Tensor) -> Tensor:
        """The part of the layer after the attention, which works token by token."""
        x = self._after_attention(self._out.added(mixed, x))
        return self._after_mlp(self._down.added(self._up.activated(x, self._activation), x))


class Embeddings:
    def __init__(self, weights: Read, config: Mapping[str, Any]) -> None:
        self._words, self._places, self._types = (
            weights(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")
        )
        self._norm = _Norm(weights, "embeddings.LayerNorm", layer_norm_eps(config))

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        kind = self._types[0] if types is None else F.embedding(types, self._types)
        return self._norm(F.embedding(ids, self._words) + kind + F.embedding(positions, self._places))


class FusedBackbone:
    """BERT, RoBERTa and XLM-R with query, key and value in one product and fused bias and activation."""

    def __init__(self, weights: Read, config: Mapping[str, Any], *, packed: bool = True) -> None:
        """weights: returns a tensor by its transformers name. config: the contents of config.json. packed:
        reorder the weights now, not once that many tokens have come that it pays."""
        linear_of = partial(_Linear, packed=packed)
        self._embeddings = Embeddings(weights, config)
        self._layers = [Layer(weights, name, config, linear_of) for name in layer_names(config)]
        self._unpacked_tokens = 0 if packed else _UNPACKED_TOKENS

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, spans: Spans) -> Tensor:
        if self._unpacked_tokens > 0:
            self._unpacked_tokens -= len(ids)
            # A single token is multiplied by another kernel, whose sums can differ by the last bit.
            if self._unpacked_tokens <= 0 or len(ids) == 1:
                self._unpacked_tokens = 0
                for layer in self._layers:
                    layer.pack()
        x = self._embeddings(ids, positions, types)
        for layer in self._layers:
            x = layer(x, spans)
        return x
