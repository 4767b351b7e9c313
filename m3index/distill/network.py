"""A model over packed inputs that gives all outputs per batch: with gradients, or frozen and fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3index.distill.losses import Outputs
from m3index.encoder import backbone, heads, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import Backbone
from m3index.encoder.hardware import Precision
from m3index.encoder.layout import Layout, hidden_size, position_padding
from m3index.encoder.tokens import ModelTokenizer
from m3index.encoder.transfer import to_device
from m3index.errors import UsageError
from m3index.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Concatenated texts on the device. ids, positions: (t,) int32. spoken: the places of all tokens that are
    not special ones, int64."""

    ids: Tensor
    positions: Tensor
    spans: Spans
    spoken: Tensor

    @property
    def texts(self) -> int:
        return len(self.spans.cumulative) - 1

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Network(nn.Module):
    """A backbone with its pooling and heads. All parameters are frozen initially.

    projection: a linear layer that maps the dense vector to the teacher's width if it differs.
    Created by `trainable` or `frozen`.
    """

    def __init__(self, layout: Layout, tokenizer: ModelTokenizer, model: Any, forward: Backbone) -> None:
        super().__init__()
        self.layout, self.tokenizer = layout, tokenizer
        self.width = hidden_size(layout.config)
        self.model = model
        self.after = heads.AfterPooling(layout.modules, layout.dim)
        self.lexical = heads.load_linear(layout.lexical, self.width, 1) if layout.lexical else None
        self.multi_vector = (
            heads.load_linear(layout.multi_vector, self.width, None) if layout.multi_vector else None
        )
        self.projection: nn.Linear | None = None
        self._backbone = forward
        self.device = torch.device("cpu")
        self._skip = 0 if layout.pool_prompt else tokenizer.prompt_tokens
        self._watched: dict[int, list[Tensor]] = {}

    @property
    def dim(self) -> int:
        return self.projection.out_features if self.projection is not None else self.layout.dim

    def to_device(self, device: torch.device) -> Network:
        self.to(device)
        self.device = device
        return self

    def batch(self, rows: Sequence[IntArray]) -> Batch:
        """Token ids of texts (including special tokens) -> a batch on the device. Waits for nothing."""
        pack = packing.pack(rows, position_padding(self.layout.config))
        places = np.flatnonzero(~np.isin(pack.ids, self.tokenizer.silent_ids))
        ids, positions, bounds, spoken = (
            to_device(x, self.device) for x in (pack.ids, pack.positions, pack.bounds, places)
        )
        return Batch(ids, positions, Spans.of(pack, bounds), spoken)

    def watch(self, numbers: Sequence[int]) -> None:
        """Adds the states after these layers, in this order, to all later outputs."""
        holder, name = stack(self.model)
        all_layers = getattr(holder, name)
        for number in numbers:
            states = self._watched[number] = []

            def record(_layer: nn.Module, _inputs: Any, out: Any, states: list[Tensor] = states) -> None:
                hidden = out[0] if isinstance(out, tuple) else out
                states.append(hidden.flatten(0, 1))

            all_layers[number].register_forward_hook(record)

    def forward(self, batch: Batch) -> Outputs:
        """The outputs of every existing head, in float32."""
        for states in self._watched.values():
            states.clear()
        hidden = self._backbone(batch.ids, batch.positions, None, batch.spans).float()
        with torch.autocast(hidden.device.type, enabled=False):
            dense = self.after(heads.pool(hidden, batch.spans.cumulative, self.layout.pooling, self._skip))
            if self.projection is not None:
                dense = F.normalize(self.projection(dense), dim=-1)
            weights = vectors = None
            if self.lexical is not None:
                weights = self.lexical(hidden).squeeze(-1)
            if self.multi_vector is not None:
                vectors = F.normalize(self.multi_vector(hidden), dim=-1)
        watched = tuple(torch.cat(states).float() for states in self._watched.values())
        return Outputs(dense, weights, vectors, hidden, watched)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)


def trainable(layout: Layout, *, trust_remote_code: bool = False) -> Network:
    """A float32 model on the CPU whose forward pass has gradients. Dropout stays off, so that the student
    sees the same inputs as the teacher."""
    model = backbone.load_model(layout, "fp32", trust_remote_code=trust_remote_code)
    forward = backbone.of_model(model, torch.device("cpu"), modules=True)
    return Network(layout, ModelTokenizer(layout), model, forward)


def frozen(
    layout: Layout,
    device: torch.device,
    precision: Precision,
    *,
    modules: bool = False,
    trust_remote_code: bool = False,
) -> Network:
    """A model without gradients that uses the encoder's fastest forward pass, or with `modules` the fastest
    whose layers can be watched."""
    model = backbone.load_model(layout, precision, trust_remote_code=trust_remote_code)
    forward = backbone.of_model(model, device, modules=modules)
    network = Network(layout, ModelTokenizer(layout), model if modules else None, forward)
    return network.to_device(device).eval()


def token_embeddings(layout: Layout, *, trust_remote_code: bool = False) -> FloatArray:
    """(vocabulary, width) float32."""
    model = backbone.load_model(layout, "fp32", trust_remote_code=trust_remote_code)
    embeddings: FloatArray = model.get_input_embeddings().weight.detach().numpy()
    return embeddings


def stack(model: Any) -> tuple[nn.Module, str]:
    """Finds the transformer's layers: the module that holds their list, and the name of the list in it."""
    total = model.config.num_hidden_layers
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return module, name
    raise UsageError(f"Cannot find the layers of a {type(model).__name__}. Name a --student instead.")


def keep(model: Any, layers: Sequence[int]) -> None:
    """Reduces the model and its config to these layers, in this order."""
    total = model.config.num_hidden_layers
    holder, name = stack(model)
    all_layers = getattr(holder, name)
    setattr(holder, name, nn.ModuleList(all_layers[i] for i in layers))
    model.config.num_hidden_layers = len(layers)
    kinds = getattr(model.config, "layer_types", None)
    if isinstance(kinds, list) and len(kinds) == total:
        model.config.layer_types = [kinds[i] for i in layers]


def same_tokens(a: ModelTokenizer, b: ModelTokenizer) -> bool:
    """Whether two tokenizers give the same ids, judged by vocabulary size and a sample of scripts."""
    sample = ["", "The cat's hat, 42.", "Über Straße déjà-vu", "検索 엔진 поиск بحث ค้นหา", "x\n\ny  z"]
    pairs = zip(a.document_ids(sample), b.document_ids(sample), strict=True)
    return a.vocabulary == b.vocabulary and all(np.array_equal(x, y) for x, y in pairs)
