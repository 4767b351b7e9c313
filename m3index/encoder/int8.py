"""BERT, RoBERTa and XLM-R with int8 products on CPUs with VNNI: faster than bf16, but coarser rounding.

Each token has its own scale, computed as it passes, and each output of a weight has one as well. Nothing is
calibrated on texts, so a model gives the same vectors wherever it runs, and a text's vectors do not depend on
its neighbours. 512 random tokens at load time reveal the channels that would spoil the scales:

- A few channels are much larger than the others. These are split: n columns carry an nth each, rounded at
  offsets of 1/n so that the sum is exact to the same step, and the token's scale is that of the ordinary
  channels (outlier channel splitting, Zhao et al. 2019, arXiv:1901.09504).
- Loud channels contribute more to the error than quiet ones. Before rounding, the square root of a channel's
  loudness moves to the weight (after SmoothQuant, Xiao et al. 2022, arXiv:2211.10438). The product after the
  activation is an exception, because its channels are loud for single tokens only.

Everything between the products is fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from m3index.encoder import attention, backbone, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import FUNCTIONS, Embeddings, Layer, Read
from m3index.encoder.bert import Activation, is_bert, layer_names, runs_own_code
from m3index.encoder.layout import Layout, position_padding
from m3index.encoder.weights import Weights
from m3index.errors import UsageError

_ROWS = 256  # tokens per step, few enough for the intermediate results to stay in the CPU cache
_ROWS_PER_THREAD = 128
_INPUTS, _LENGTH = 16, 32  # of random tokens
_ROOM = 32  # splitting may add one column per this many
_ZERO = 128  # oneDNN's int8 products are fast only for unsigned inputs


def load(layout: Layout, *, trust_remote_code: bool = False) -> Int8Backbone:
    """Loads a model directory on the CPU. Raises UsageError for a family without an int8 forward pass."""
    own_code = runs_own_code(layout, trust_remote_code=trust_remote_code)
    if own_code or not is_bert(layout.config):
        kind = "a model with code of its own" if own_code else f"a {layout.model_type} model"
        raise UsageError(
            f"--precision int8 is for BERT, RoBERTa and XLM-R encoders; {layout.root} is {kind}. Use auto."
        )
    if layout.safetensors:
        return Int8Backbone(Weights(layout, torch.float32, torch.device("cpu")), layout.config)
    model = backbone.load_model(layout, "fp32")
    return Int8Backbone(model.get_parameter, model.config.to_dict())


class Int8Backbone:
    """A `backbone.Backbone` with float32 hidden states."""

    def __init__(self, weights: Read, config: Mapping[str, Any]) -> None:
        """weights: returns a float32 tensor by its transformers name. config: the contents of config.json."""
        self._embeddings = Embeddings(weights, config)
        self._layers = []
        with torch.inference_mode():
            ids, positions, spans = _random_tokens(config)
            x = self._embeddings(ids, positions, None)
            for name in layer_names(config):
                layer = _Int8Layer(weights, name, config)
                x = layer.settle(x, spans)
                self._layers.append(layer)

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, spans: Spans) -> Tensor:
        x = self._embeddings(ids, positions, types)
        for layer in self._layers:
            x = layer(x, spans)
        return x


def _random_tokens(config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Spans]:
    vocabulary = int(config["vocab_size"])
    first = min(1000, vocabulary // 2)  # skips special and unused tokens
    generator = np.random.default_rng(0)
    length = min(_LENGTH, int(config["max_position_embeddings"]) - 2)  # RoBERTa reserves two
    rows = [generator.integers(first, vocabulary, length, dtype=np.int32) for _ in range(_INPUTS)]
    pack = packing.pack(rows, position_padding(config))
    ids, positions, bounds = (torch.from_numpy(x) for x in (pack.ids, pack.positions, pack.bounds))
    return ids, positions, Spans.of(pack, bounds)


class _Int8Layer(Layer):
    """Starts with float products that observe the random tokens; `settle` then replaces them."""

    _qkv: Int8Linear

    def __init__(self, weights: Read, name: str, config: Mapping[str, Any]) -> None:
        super().__init__(weights, name, config, _Watched)

    def settle(self, x: Tensor, spans: Spans) -> Tensor:
        """Returns the layer's float32 output for x, then switches the layer to int8."""
        y = super().__call__(x, spans)
        for name in ("_qkv", "_out", "_up", "_down"):
            setattr(self, name, getattr(self, name).quantised(balanced=name != "_down"))
        return y

    def __call__(self, x: Tensor, spans: Spans) -> Tensor:
        projected = x.new_empty(len(x), 3 * x.shape[1])
        for rows in _steps(len(x)):
            self._qkv.plain(x[rows], out=projected[rows])
        query, key, value = projected.view(len(x), 3, self._heads, -1).unbind(1)
        mixed = attention.attend(query, key, value, spans).flatten(1)
        return torch.cat([self._rest(mixed[rows], x[rows]) for rows in _steps(len(x))])


def _steps(tokens: int) -> Iterator[slice]:
    size = max(_ROWS, _ROWS_PER_THREAD * torch.get_num_threads())
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


class _Watched:
    """x W^T + b in float32. Records the greatest magnitude and the loudness (root mean square) of each input
    channel."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias
        self._peak = self._loudness = torch.ones(weight.shape[1])

    def plain(self, x: Tensor) -> Tensor:
        self._peak, self._loudness = x.abs().amax(0), x.square().mean(0).sqrt()
        return F.linear(x, self._weight, self._bias)

    def activated(self, x: Tensor, name: Activation) -> Tensor:
        return FUNCTIONS[name][0](self.plain(x))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.plain(x) + residual

    def quantised(self, *, balanced: bool) -> Int8Linear:
        balance = self._loudness.clamp(min=1e-6).sqrt() if balanced else torch.ones_like(self._loudness)
        return Int8Linear(self._weight, self._bias, self._peak, balance)


class Int8Linear:
    """x W^T + b with an int8 product.

    weight: (outputs, inputs). bias: (outputs,). peak: (inputs,), the expected magnitudes of x. balance:
    (inputs,), the factors that divide x and multiply the weight before rounding. All are float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor, peak: Tensor, balance: Tensor) -> None:
        inputs = weight.shape[1]
        weight, peak = weight * balance, peak / balance
        parts = _parts(peak, room := max(4, inputs // _ROOM // 4 * 4))
        channels = torch.arange(inputs)
        self._again = torch.repeat_interleave(channels, parts - 1)
        nth = torch.arange(len(self._again)) - torch.searchsorted(self._again, self._again) + 1
        unused = room - len(self._again)  # padding: a product is fastest for a multiple of four columns
        column = torch.cat([channels, self._again])
        offset = (torch.cat([torch.zeros(inputs), nth]) - (parts[column] - 1) / 2) / parts[column]
        self._share = 1 / (balance * parts)
        self._offset = F.pad(offset, (0, unused))
        self._again = F.pad(self._again, (0, unused))
        self._bias = bias
        self._scale = weight.abs().amax(1).clamp(min=1e-30) / 127
        rounded = (weight / self._scale[:, None]).round().to(torch.int8)
        columns = F.pad(rounded[:, column], (0, unused)).contiguous()
        self._packed = torch.ops.onednn.qlinear_prepack(columns, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)

    def plain(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        product, scale = self._product(x)
        return torch.addcmul(self._bias, product, scale, out=product if out is None else out)

    def activated(self, x: Tensor, name: Activation) -> Tensor:
        return FUNCTIONS[name][0](self.plain(x))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        product, scale = self._product(x)
        return torch.addcmul(residual + self._bias, product, scale, out=product)

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The unscaled product (t, outputs) and the scale (t, 1) to multiply it by."""
        inputs = x.shape[1]
        parts = x.new_empty(len(x), len(self._offset))
        torch.mul(x, self._share, out=parts[:, :inputs])
        parts[:, inputs:] = parts[:, self._again]
        peak = torch.maximum(parts.amax(1, keepdim=True), -parts.amin(1, keepdim=True))
        scale = peak.clamp(min=1e-30) / 126.5  # plus half a step of offset: 127 at most
        torch.addcmul(self._offset, parts, scale.reciprocal(), out=parts).round_()
        # Convert to unsigned via signed: torch converts floats to signed ten times as fast.
        rounded = parts.to(torch.int8).view(torch.uint8).bitwise_xor_(_ZERO)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, _ZERO, self._packed, self._scale, self._zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        return product, scale


def _parts(peak: Tensor, room: int) -> Tensor:
    """How many columns to split each channel into, so that the greatest part is as small as `room` extra
    columns allow."""
    low, high = 0.0, float(peak.max())
    for _ in range(40):
        middle = (low + high) / 2
        if middle <= 0 or int(torch.ceil(peak / middle).clamp(min=1).sum()) - len(peak) > room:
            low = middle
        else:
            high = middle
    return torch.ceil(peak / max(high, 1e-30)).clamp(min=1).long()
