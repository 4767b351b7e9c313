"""Tokenising in several processes, for streams that one core cannot feed to a GPU fast enough."""

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

_CHUNK = 64  # texts of one task
_worker: ModelTokenizer


class TokenizerPool(ModelTokenizer):
    """A `ModelTokenizer` whose `documents` runs in `processes` processes, results in order.

    They are started at the first call (by "spawn": a script that uses this needs its
    `if __name__ == "__main__"` guard) and end at `close`.
    """

    def __init__(self, layout: Layout, processes: int) -> None:
        super().__init__(layout)
        self._layout, self._processes = layout, processes
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
    """(lengths, ids, offsets) of all texts end to end: three arrays travel faster than many."""
    rows = _worker.documents(texts)
    lengths = np.array([len(r.ids) for r in rows], np.int32)
    return lengths, np.concatenate([r.ids for r in rows]), np.concatenate([r.offsets for r in rows])


def _unpack(lengths: IntArray, ids: IntArray, offsets: NDArray[np.int32]) -> list[Tokens]:
    bounds = [0, *np.cumsum(lengths).tolist()]
    return [Tokens(ids[a:b], offsets[a:b]) for a, b in pairwise(bounds)]
