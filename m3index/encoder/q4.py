"""Reads `E5S1`, a file that holds a BERT model with its tokenizer: matrices in blocks of 4-bit weights
(Q4_0), everything else in fp32. Needs only numpy; the file is mapped, so that no more is read than is used.

Little-endian, unpadded but for the data of the tensors, which the table of tensors finds by offsets:

    "E5S1", u32 version; i32 hidden, layers, heads, inner, vocabulary, positions, types; f32 eps; i32 block
    i32 pieces, bos, eos, pad, unk; u64 bytes; u32 offset[pieces + 1]; f32 score[pieces]; UTF-8 text
    i32 characters, u32 bytes; for each: u32 character, u8 count, u32 replacement[count]
    i32 tensors; for each: u16 length, name, u8 type (0 fp32, 1 Q4_0), u32 elements, u64 offset, u64 bytes

A Q4_0 block is 18 bytes for 32 weights of a row: an fp16 scale, then 16 bytes, of which byte j holds weight j
in its low half and weight j + 16 in its high half. A weight is (half - 8) x scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import MismatchError

HalfArray: TypeAlias = NDArray[np.float16]

MAGIC, VERSION = b"E5S1", 1
BLOCK = 32
FP32, Q4_0 = 0, 1
_BLOCK_TYPE = np.dtype([("scale", "<u2"), ("halves", "u1", BLOCK // 2)])
_BLOCKS_AT_ONCE = 1 << 12


@dataclass(frozen=True, slots=True)
class Q4Config:
    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    eps: float


@dataclass(frozen=True, slots=True)
class Q4Tokens:
    """A unigram vocabulary. pieces: each with its score, by id. replacements: what the normaliser makes of
    characters, by character."""

    pieces: Sequence[tuple[str, float]]
    bos: int
    eos: int
    pad: int
    unk: int
    replacements: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Stored:
    type: int
    elements: int
    offset: int
    bytes: int


class Q4Model:
    """A file in this format. Raises MismatchError if it is none, or is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        except ValueError:  # an empty file cannot be mapped
            self._data = np.empty(0, np.uint8)
        except OSError as e:
            raise MismatchError(f"{path} cannot be read: {e.strerror}.") from e
        self._at = 0
        if self._data[:4].tobytes() != MAGIC:
            self._refuse("it does not begin with E5S1")
        self._at = 4
        self.config = self._config()
        self.tokens = self._tokens()
        self._tensors = self._table()

    def weights(self, name: str, shape: tuple[int, ...]) -> Iterator[HalfArray]:
        """The weights of a tensor in fp16, flat, in small parts."""
        stored = self._tensors.get(name)
        if stored is None or stored.elements != math.prod(shape):
            self._refuse(f"it has no tensor {name} of {' x '.join(map(str, shape))} weights")
        if stored.type == Q4_0 and shape[-1] % BLOCK:
            self._refuse(f"the rows of {name} do not consist of whole blocks")
        for part in self._parts(stored):
            if not np.isfinite(part).all():
                self._refuse(f"a weight of {name} is no finite number")
            yield part

    def _parts(self, stored: _Stored) -> Iterator[HalfArray]:
        data = self._data[stored.offset : stored.offset + stored.bytes]
        if stored.type == FP32:
            with np.errstate(over="ignore"):
                yield data.view("<f4").astype(np.float16)
            return
        blocks = data.view(_BLOCK_TYPE)
        for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
            yield _unpacked(blocks[start : start + _BLOCKS_AT_ONCE])

    def _config(self) -> Q4Config:
        version = self._integer("<u4")
        if version != VERSION:
            self._refuse(f"its version is {version}, and only version {VERSION} is known")
        hidden, layers, heads, inner, vocabulary, positions, types = sizes = [
            int(n) for n in self._take("<i4", 7)
        ]
        eps = float(f"{self._take('<f4', 1)[0]:.6g}")
        if min(sizes) < 1 or hidden % heads or not 0 < eps < 1:
            self._refuse(f"its sizes make no sense: {sizes}")
        if (block := self._integer("<i4")) != BLOCK:
            self._refuse(f"its blocks have {block} weights, and not {BLOCK}")
        return Q4Config(hidden, layers, heads, inner, vocabulary, positions, types, eps)

    def _tokens(self) -> Q4Tokens:
        count, bos, eos, pad, unk = (int(n) for n in self._take("<i4", 5))
        length = self._integer("<u8")
        if not 0 < count <= self.config.vocabulary or not all(0 <= i < count for i in (bos, eos, pad, unk)):
            self._refuse("the numbers of its pieces do not fit together")
        offsets = self._take("<u4", count + 1).astype(np.int64)
        scores = self._take("<f4", count)
        text = self._take("u1", length).tobytes()
        if offsets[0] != 0 or offsets[-1] != length or (np.diff(offsets) < 0).any():
            self._refuse("the offsets of its pieces are out of order")
        try:
            pieces = [text[a:b].decode() for a, b in pairwise(offsets)]
        except UnicodeDecodeError:
            self._refuse("a piece is not valid UTF-8")
        if not np.isfinite(scores).all():
            self._refuse("a piece has no finite score")
        scored = list(zip(pieces, scores.tolist(), strict=True))
        return Q4Tokens(scored, bos, eos, pad, unk, self._replacements())

    def _replacements(self) -> dict[str, str]:
        count, length = self._integer("<i4"), self._integer("<u4")
        end = self._at + length
        found: dict[str, str] = {}
        for _ in range(count):
            character = self._take("<u4", 1).tobytes()
            replacement = self._take("<u4", self._integer("u1")).tobytes()
            try:
                found[character.decode("utf-32-le")] = replacement.decode("utf-32-le")
            except UnicodeDecodeError:
                self._refuse("its table of characters names one that Unicode does not have")
        if self._at != end or len(found) != count or "\0" in found:
            self._refuse("its table of characters does not have the size that it states")
        return found

    def _table(self) -> dict[str, _Stored]:
        found: dict[str, _Stored] = {}
        for _ in range(self._integer("<i4")):
            name = self._take("u1", self._integer("<u2")).tobytes().decode("utf-8", "replace")
            stored = _Stored(*(self._integer(kind) for kind in ("u1", "<u4", "<u8", "<u8")))
            if stored.type == FP32:
                needed = 4 * stored.elements
            elif stored.type == Q4_0 and stored.elements % BLOCK == 0:
                needed = stored.elements // BLOCK * _BLOCK_TYPE.itemsize
            else:
                self._refuse(f"the tensor {name} is neither fp32 nor Q4_0")
            if stored.bytes != needed or stored.offset + stored.bytes > len(self._data):
                self._refuse(f"the tensor {name} is incomplete")
            found[name] = stored
        return found

    def _integer(self, kind: str) -> int:
        return int(self._take(kind, 1)[0])

    def _take(self, kind: str, count: int) -> NDArray[Any]:
        dtype = np.dtype(kind)
        end = self._at + count * dtype.itemsize
        if count < 0 or end > len(self._data):
            self._refuse(f"it ends at byte {len(self._data):,}")
        taken = self._data[self._at : end].view(dtype)
        self._at = end
        return taken

    def _refuse(self, reason: str) -> NoReturn:
        raise MismatchError(f"{self._path} is no complete E5S1 model: {reason}. Install it again.")


@cache
def _products() -> HalfArray:
    """The weight of each scale and half, at scale x 16 + half: looking it up is faster than computing it."""
    scales = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # scales that no weight has
        return (scales[:, None] * np.arange(-8, 8, dtype=np.float32)).astype(np.float16).reshape(-1)


def _unpacked(blocks: NDArray[np.void]) -> HalfArray:
    halves, scales = blocks["halves"], blocks["scale"].astype(np.uint32)[:, None] << 4
    places = np.empty((len(blocks), BLOCK), np.uint32)
    np.add(scales, halves & 15, out=places[:, : BLOCK // 2])
    np.add(scales, halves >> 4, out=places[:, BLOCK // 2 :])
    return _products().take(places).reshape(-1)
