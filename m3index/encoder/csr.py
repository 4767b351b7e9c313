"""Lexical weights as CSR arrays on the host. Uses numpy only.

store/rows.py makes the form for Milvus of them, scale/shards.py that for Parquet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3index.types import FloatArray, IntArray, SparseRows


def lexical_rows(weights: FloatArray, ids: IntArray, bounds: IntArray, silent: IntArray) -> SparseRows:
    """Token weights (t,) of packed inputs -> the token ids of each input with their maximum weights.

    Drops weights that are not > 0 and the ids in `silent` (special tokens). Takes one sort and one
    `maximum.reduceat` for the whole pack, and never an array as wide as the vocabulary.
    """
    n = len(bounds) - 1
    owner = np.repeat(np.arange(n, dtype=np.int64), np.diff(bounds))
    kept = (weights > 0) & ~np.isin(ids, silent)
    key = (owner[kept] << 32) | ids[kept].astype(np.int64)
    order = np.argsort(key, kind="stable")
    key, values = key[order], weights[kept][order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    key = key[first]
    values = np.maximum.reduceat(values, first) if len(first) else values
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(key >> 32, minlength=n), out=indptr[1:])
    return SparseRows(indptr, (key & 0xFFFFFFFF).astype(np.int32), values.astype(np.float32, copy=False))


def join_rows(parts: list[SparseRows], order: NDArray[np.int64]) -> SparseRows:
    """Joins the rows of several packs. Row j of the concatenation becomes row order[j] of the result."""
    indptr = np.concatenate([[0], *(np.diff(p.indptr) for p in parts)]).cumsum()
    indices = np.concatenate([p.indices for p in parts])
    values = np.concatenate([p.values for p in parts])
    source = np.argsort(order, kind="stable")
    lengths = np.diff(indptr)[source]
    out = np.zeros(len(source) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    take = np.arange(out[-1]) + np.repeat(indptr[:-1][source] - out[:-1], lengths)
    return SparseRows(out, indices[take], values[take])
