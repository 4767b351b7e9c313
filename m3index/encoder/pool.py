"""Tokenises in several processes, for streams where one core cannot keep a GPU busy."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from m3index.corpus.windows import Tokens
from m3index.encoder.layout import Layout
from m3index.encoder.tokens import ModelTokenizer
from m3index.types import IntArray

_CHUNK = 64  # texts per task
_worker: ModelTokenizer


class TokenizerPool(ModelTokenizer):
    """A `ModelTokenizer` whose `documents` runs in `processes` processes and keeps the order of the texts.

    The processes start at the first call and end at `close`. They use "spawn", so a script that uses this
    needs an `if __name__ == "__main__"` guard.
    """

    def __init__(self, layout: Layout, processes: int, *, prepare: bool = False) -> None:
        super().__init__(layout, prepare=prepare)
        self._processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        if len(texts) <= _CHUNK:
            return super().documents(texts)
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self._processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._layout,),
            )
        chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
        return [tokens for packed in self._executor.map(_tokenise, chunks) for tokens in _unpack(*packed)]

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


def _begin(layout: Layout) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    global _worker
    _worker = ModelTokenizer(layout)


def _tokenise(texts: list[str]) -> tuple[IntArray, IntArray, NDArray[np.int32]]:
    """(lengths, ids, offsets) of all texts, concatenated: three arrays transfer faster than many."""
    rows = _worker.documents(texts)
    lengths = np.array([len(r.ids) for r in rows], np.int32)
    return lengths, np.concatenate([r.ids for r in rows]), np.concatenate([r.offsets for r in rows])


def _unpack(lengths: IntArray, ids: IntArray, offsets: NDArray[np.int32]) -> list[Tokens]:
    bounds = [0, *np.cumsum(lengths).tolist()]
    return [Tokens(ids[a:b], offsets[a:b]) for a, b in pairwise(bounds)]
