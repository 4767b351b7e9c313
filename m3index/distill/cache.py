"""A cache of a teacher's outputs for a prepared corpus, in Parquet, so that several runs share their cost.

`manifest.json` names the teacher, the data and the cached outputs. `part-*.parquet` hold one row per input:
dense (float16) and, per token, the lexical weights before the relu (float16). A row group is a block of
neighbours (`data.BLOCK`). Parts are written atomically, so an interrupted build continues where it stopped.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3index.distill.data import BLOCK, Tokenised
from m3index.distill.losses import Outputs
from m3index.distill.teachers import FrozenModel, Pending, Teacher
from m3index.encoder.packing import plan
from m3index.encoder.transfer import to_device
from m3index.errors import MismatchError, UsageError

_PART_BLOCKS = 16
_HELD_BLOCKS = 32
_VERSION = 2


def manifest(teacher: str, data: str, inputs: Tokenised, lexical: bool, precision: str) -> dict[str, Any]:
    """Identifies the contents of a cache. teacher: its space id. data: the digest of the prepared corpus."""
    return {
        "version": _VERSION,
        "teacher": teacher,
        "data": data,
        "inputs": len(inputs),
        "tokens": int(inputs.bounds[-1]),
        "lexical": lexical,
        "precision": precision,
    }


def build(
    folder: Path,
    stated: Mapping[str, Any],
    teacher: FrozenModel,
    inputs: Tokenised,
    *,
    budget: int,
    done: Callable[[int], None] = lambda _: None,
) -> CachedTeacher:
    """Adds the missing parts of a cache and opens it. done: called with the number of cached inputs.

    Raises MismatchError if the folder holds the cache of another teacher or other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    if path.is_file():
        _refuse_stale(folder, stated)
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and is not a cache of teacher outputs. Use another folder.")
    else:
        path.write_text(json.dumps(dict(stated), indent=1) + "\n", "utf-8")
    for part, first in enumerate(range(0, len(inputs), _PART_BLOCKS * BLOCK)):
        last = min(first + _PART_BLOCKS * BLOCK, len(inputs))
        if not _part(folder, part).is_file():
            _write_part(_part(folder, part), teacher, inputs, range(first, last), budget, stated["lexical"])
        done(last)
    return CachedTeacher(folder, teacher.device, lexical=stated["lexical"])


def _refuse_stale(folder: Path, stated: Mapping[str, Any]) -> None:
    try:
        cached = json.loads((folder / "manifest.json").read_text("utf-8"))
    except ValueError:
        raise MismatchError(f"{folder}/manifest.json is not valid JSON. Delete the folder.") from None
    different = sorted(k for k in {*stated, *cached} if stated.get(k) != cached.get(k))
    if different:
        raise MismatchError(
            f"The cache in {folder} is stale: {', '.join(different)} differ from this run. "
            "Delete the folder or use another one."
        )


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _write_part(
    path: Path, teacher: FrozenModel, inputs: Tokenised, places: range, budget: int, lexical: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"dense": pa.list_(pa.float16(), teacher.dim)}
    if lexical:
        columns["weights"] = pa.list_(pa.float16())
    schema = pa.schema(list(columns.items()))
    partial = path.with_suffix(".partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for first in places[::BLOCK]:
            block = range(first, min(first + BLOCK, places.stop))
            dense, weights = _encode(teacher, inputs, block, budget, lexical)
            flat = pa.array(dense.ravel(), pa.float16())
            arrays: list[Any] = [pa.FixedSizeListArray.from_arrays(flat, teacher.dim)]
            if lexical:
                offsets = np.cumsum([0, *map(len, weights)], dtype=np.int32)
                values = pa.array(np.concatenate(weights), pa.float16())
                arrays.append(pa.ListArray.from_arrays(pa.array(offsets), values))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=BLOCK)
    partial.replace(path)


def _encode(
    teacher: FrozenModel, inputs: Tokenised, block: range, budget: int, lexical: bool
) -> tuple[NDArray[np.float16], list[NDArray[np.float16]]]:
    rows = inputs.rows(block)
    dense = np.empty((len(rows), teacher.dim), np.float16)
    weights: list[NDArray[np.float16]] = [np.empty(0, np.float16)] * len(rows)

    def keep(places: NDArray[np.int64], out: Outputs) -> None:
        assert out.dense is not None
        dense[places] = out.dense.half().cpu().numpy()
        if lexical:
            assert out.weights is not None
            ends = np.cumsum([len(rows[i]) for i in places])[:-1]
            parts = np.split(out.weights.half().cpu().numpy(), ends)
            for place, part in zip(places, parts, strict=True):
                weights[place] = part

    begun: deque[tuple[NDArray[np.int64], Pending]] = deque()
    for places in plan(np.array([len(r) for r in rows], np.int32), budget):
        begun.append((places, teacher.begin([rows[i] for i in places])))
        if len(begun) > 1:  # one batch runs while the one before it is read
            done, pending = begun.popleft()
            keep(done, pending())
    for done, pending in begun:
        keep(done, pending())
    if not (np.isfinite(dense).all() and all(np.isfinite(each).all() for each in weights)):
        raise MismatchError(
            "The teacher's outputs exceed the range of the cache, which holds float16. Leave out --cache."
        )
    return dense, weights


class CachedTeacher(Teacher):
    """A teacher whose outputs are read from the cache, with the most recently used blocks in memory."""

    def __init__(self, folder: Path, device: torch.device, *, lexical: bool) -> None:
        self._folder, self._device, self._lexical = folder, device, lexical
        self._blocks: OrderedDict[int, tuple[NDArray[np.float16], list[NDArray[np.float16]]]] = OrderedDict()

    def begin(self, places: NDArray[np.int64]) -> Pending:
        entries = [(self._block(int(i) // BLOCK), int(i) % BLOCK) for i in places]
        dense = to_device(np.stack([block[0][row] for block, row in entries]), self._device).float()
        weights = None
        if self._lexical:
            flat = np.concatenate([block[1][row] for block, row in entries])
            weights = to_device(flat, self._device).float()
        # float16 rounding changes the unit norm.
        outputs = Outputs(torch.nn.functional.normalize(dense, dim=-1), weights)
        return lambda: outputs

    def _block(self, number: int) -> tuple[NDArray[np.float16], list[NDArray[np.float16]]]:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        import pyarrow.parquet as pq

        part, group = divmod(number, _PART_BLOCKS)
        table = pq.ParquetFile(_part(self._folder, part)).read_row_group(group)
        column = table.column("dense").combine_chunks()
        dense = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
        weights: list[NDArray[np.float16]] = []
        if self._lexical:
            lists = table.column("weights").combine_chunks()
            values = lists.flatten().to_numpy(zero_copy_only=False)
            weights = np.split(values, np.cumsum(lists.value_lengths().to_numpy())[:-1])
        self._blocks[number] = dense, weights
        if len(self._blocks) > _HELD_BLOCKS:
            self._blocks.popitem(last=False)
        return dense, weights
