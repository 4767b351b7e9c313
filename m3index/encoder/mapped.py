"""Weights as a safetensors file in the precision that they run in, where they are published otherwise.

Reading a pickle takes longer than all else of a search from a shell: transformers has to be imported and its
model made, and every weight is read and rounded. Safetensors of another precision are rounded as a whole too.
The file in the cache of prepared models is mapped instead. The weights in it are those that the original
gives in this precision, bit for bit. A pickled lexical head lies beside it, as it is, in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from m3index.encoder import prepared, safetensors_file
from m3index.encoder.bert import StoredNames, incomplete, shapes
from m3index.encoder.hardware import DTYPES, Precision
from m3index.encoder.heads import load_linear, read_tensors
from m3index.encoder.layout import Layout, hidden_size, safetensors_header
from m3index.encoder.prepared import PreparedModel
from m3index.encoder.prepared_weights import LEXICAL, WEIGHTS, at, form, pickled_head
from m3index.encoder.safetensors_file import BYTES, Stored

_LARGE = 100_000_000  # bytes of weights that take noticeably long to round
_STORED: Mapping[torch.dtype, Stored] = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def needed(layout: Layout, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the weights load faster from a prepared file: pickles, and large safetensors files of another
    precision on the CPU. A GPU rounds weights as fast as they arrive."""
    if not layout.safetensors:
        return True
    large = sum(path.stat().st_size for path in layout.weights) >= _LARGE
    return large and device.type == "cpu" and _stored_types(layout.weights) != {_STORED[dtype]}


def mapped(layout: Layout, precision: Precision) -> Layout:
    """The layout with its weights in the cache; they are put there at the first call.

    Raises MismatchError for weights that do not fit config.json, and UsageError or StoppedError if the cache
    cannot be written or has no room.
    """
    prepared.prepare(*_preparation(layout, precision))
    return at(layout, form(layout, precision))


def mapped_if_possible(layout: Layout, precision: Precision) -> Layout:
    """`mapped`, or the layout as it is, with a warning, if the cache cannot be written."""
    if prepared.prepare_if_possible(*_preparation(layout, precision)):
        return at(layout, form(layout, precision))
    return layout


def _preparation(
    layout: Layout, precision: Precision
) -> tuple[PreparedModel, Callable[[Path], None], str, int]:
    """The arguments of `prepared.prepare`."""
    folder, dtype = prepared.cache_folder(), DTYPES[precision]
    size = BYTES[_STORED[dtype]] * sum(math.prod(shape) for shape in shapes(layout.config).values())
    return (
        form(layout, precision),
        partial(_convert, layout, dtype),
        f"Preparing the model {prepared.model_name(layout.root)} in {precision}, once, in {folder} "
        f"({size / 1e6:,.0f} MB).",
        size,
    )


def _stored_types(paths: Sequence[Path]) -> set[str]:
    headers = [json.loads(safetensors_header(path)) for path in paths]
    return {told["dtype"] for header in headers for name, told in header.items() if name != "__metadata__"}


def _place(name: str) -> tuple[str, bool]:
    """Sorts weights so that query, key and value, which are one matrix in our forward pass, lie side by
    side."""
    return name.rpartition(".")[0].rpartition(".")[0], name.endswith("bias")


def _convert(layout: Layout, dtype: torch.dtype, target: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for path in layout.weights:
        tensors |= read_tensors(path, mapped=True)
    required = shapes(layout.config)
    stored = StoredNames(tensors)
    order = sorted(required, key=_place)
    found = {name: tensors.get(stored(name)) for name in order}
    complete = {name: t for name, t in found.items() if t is not None and t.shape == required[name]}
    if len(complete) < len(required):
        raise incomplete(layout, [name for name in required if name not in complete])

    def parts() -> Iterator[memoryview]:
        for tensor in complete.values():
            yield tensor.to(dtype).contiguous().view(torch.uint8).numpy().data

    shapes_in_order = [(name, required[name]) for name in complete]
    safetensors_file.write(target / WEIGHTS, _STORED[dtype], shapes_in_order, parts())
    if file := pickled_head(layout):
        head = dict(load_linear(file, hidden_size(layout.config), 1).named_parameters())
        named = [(name, tuple(tensor.shape)) for name, tensor in head.items()]
        safetensors_file.write(target / LEXICAL, "F32", named, (t.numpy().data for t in head.values()))
