"""Weights that are published as torch pickles, as a safetensors file in the precision that they run in.

Reading a pickle takes longer than all else of a search from a shell: transformers has to be imported and its
model made, and every weight is read and rounded. The file in the cache of prepared models is mapped instead.
The weights in it are those that the pickle gives in this precision, bit for bit.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from m3index.encoder import prepared, safetensors_file
from m3index.encoder.hardware import DTYPES, Precision
from m3index.encoder.heads import read_tensors
from m3index.encoder.layout import Layout, sample
from m3index.encoder.prepared import PreparedModel
from m3index.encoder.safetensors_file import BYTES, Stored
from m3index.encoder.weights import StoredNames, incomplete, shapes
from m3index.errors import StoppedError, UsageError

_log = logging.getLogger(__name__)
_CONVERTER = 1  # raise it with every change of what is written
_FILE = "model.safetensors"
_STORED: Mapping[torch.dtype, Stored] = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def mapped(layout: Layout, precision: Precision) -> Layout:
    """The layout with its weights in the cache; they are put there at the first call.

    Raises MismatchError for weights that do not fit config.json, and UsageError or StoppedError if the cache
    cannot be written or has no room.
    """
    dtype = DTYPES[precision]
    name = _name(layout.root)
    form = _form(layout, dtype, f"{name}-{precision}")
    if not form.directory.is_dir():
        size = BYTES[_STORED[dtype]] * sum(math.prod(shape) for shape in shapes(layout.config).values())
        folder = prepared.cache_folder()
        _check_room(folder, size)
        prepared.prepare(
            form,
            partial(_convert, layout, dtype),
            f"Preparing the model {name} in {precision}, once, in {folder} ({size / 1e6:,.0f} MB).",
        )
    return replace(layout, weights=(form.directory / _FILE,))


def mapped_if_possible(layout: Layout, precision: Precision) -> Layout:
    """`mapped`, or the layout as it is, with a warning, if the cache cannot be written."""
    try:
        return mapped(layout, precision)
    except (UsageError, StoppedError) as error:
        _log.warning("%s Until then, the model loads slowly; --no-prepare leaves it as it is.", error)
        return layout


def _form(layout: Layout, dtype: torch.dtype, name: str) -> PreparedModel:
    """The key digests what the encoder's identity does of the weights, and when the files were last changed:
    reading all of them would cost more than the form saves."""
    digest = hashlib.blake2b(f"{_CONVERTER} {dtype} {sorted(shapes(layout.config).items())}".encode())
    for path in layout.weights:
        sample(path, digest)
        digest.update(str(path.stat().st_mtime_ns).encode())
    return PreparedModel(name, digest.hexdigest()[:16])


def _name(root: Path) -> str:
    """That of the directory, or of the repository in the hub's cache (models--ORG--NAME/snapshots/COMMIT), in
    letters that the cache of prepared models takes."""
    name = root.parents[1].name.rpartition("--")[2] if root.parent.name == "snapshots" else root.name
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)[:64].strip("-") or "model"


def _check_room(folder: Path, size: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    if shutil.disk_usage(existing).free < size:
        raise StoppedError(f"{folder}: the disk has no room for {size / 1e6:,.0f} MB. Free some space.")


def _convert(layout: Layout, dtype: torch.dtype, target: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for path in layout.weights:
        tensors |= read_tensors(path, mapped=True)
    required = shapes(layout.config)
    stored = StoredNames(tensors)
    found = {name: tensors.get(stored(name)) for name in required}
    complete = {name: t for name, t in found.items() if t is not None and t.shape == required[name]}
    if len(complete) < len(required):
        raise incomplete(layout, [name for name in required if name not in complete])

    def parts() -> Iterator[memoryview]:
        for tensor in complete.values():
            yield tensor.to(dtype).contiguous().view(torch.uint8).numpy().data

    safetensors_file.write(target / _FILE, _STORED[dtype], list(required.items()), parts())
