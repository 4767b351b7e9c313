"""The weights of a model in the cache of prepared models: where they are. Does not import torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from m3index.encoder import prepared
from m3index.encoder.bert import shapes
from m3index.encoder.layout import Layout
from m3index.encoder.prepared import PreparedModel

if TYPE_CHECKING:
    from m3index.encoder.hardware import Precision

WEIGHTS, LEXICAL = "model.safetensors", "sparse_linear.safetensors"
_CONVERTER = 3  # raise it with every change of what is written
_SMALLEST_FIRST: tuple[Precision, ...] = ("bf16", "fp16", "fp32")


def form(layout: Layout, precision: Precision) -> PreparedModel:
    """The form for this precision, whether it is in the cache or not."""
    text = f"{_CONVERTER} {precision} {sorted(shapes(layout.config).items())}"
    head = pickled_head(layout)
    sources = layout.weights if head is None else (*layout.weights, head)
    name = prepared.model_name(layout.root)
    return PreparedModel(f"{name}-{precision}", prepared.key(text, sources))


def at(layout: Layout, form: PreparedModel) -> Layout:
    """The layout with its weights, and the lexical head if that is pickled, in a form that is in the
    cache."""
    lexical = form.directory / LEXICAL if pickled_head(layout) else layout.lexical
    return replace(layout, weights=(form.directory / WEIGHTS,), lexical=lexical)


def pickled_head(layout: Layout) -> Path | None:
    """The file of the lexical head if only torch can read it."""
    return layout.lexical if layout.lexical and layout.lexical.suffix != ".safetensors" else None


def found(layout: Layout) -> Layout | None:
    """The layout with weights that need no torch to be read, as far as they are there. None if not."""
    for precision in _SMALLEST_FIRST:
        if (there := form(layout, precision)).directory.is_dir():
            return at(layout, there)
    return layout if layout.safetensors and pickled_head(layout) is None else None
