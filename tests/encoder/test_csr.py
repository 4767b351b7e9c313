from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.encoder import csr, packing

TOKEN = st.tuples(st.integers(0, 8), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 70000.0]))
ROWS = st.lists(st.lists(TOKEN, min_size=1, max_size=15), min_size=1, max_size=8)


def encode(rows: list[list[tuple[int, float]]]) -> csr.SparseRows:
    pack = packing.pack([np.array([t for t, _ in r], np.int32) for r in rows])
    weights = np.array([w for r in rows for _, w in r], np.float32)
    return csr.lexical_rows(weights, pack.ids, pack.bounds, np.array([0, 1, 2], np.int32))


def naive(row: list[tuple[int, float]]) -> dict[int, float]:
    out: dict[int, float] = {}
    for token, weight in row:
        if token > 2 and weight > 0:
            out[token] = max(out.get(token, 0.0), weight)
    return out


@settings(deadline=None)
@given(ROWS)
def test_the_greatest_weight_of_each_token(rows: list[list[tuple[int, float]]]) -> None:
    got = encode(rows)
    assert len(got) == len(rows)
    for i, row in enumerate(rows):
        assert got.row(i).to_dict() == naive(row)
        assert (np.diff(got.row(i).indices) > 0).all()
    assert (got.indptr.dtype, got.indices.dtype, got.values.dtype) == (np.int64, np.int32, np.float32)


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_rows_of_several_packs_come_back_in_order(
    rows: list[list[tuple[int, float]]], random: object
) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    cut = len(rows) // 2
    parts = [encode([rows[i] for i in part]) for part in (order[:cut], order[cut:]) if part]
    joined = csr.join_rows(parts, np.array(order, np.int64))
    assert [joined.row(i).to_dict() for i in range(len(rows))] == [naive(r) for r in rows]


def test_inputs_of_special_tokens_alone() -> None:
    got = encode([[(0, 1.0), (2, 1.0)], [(1, 5.0)]])
    assert got.indptr.tolist() == [0, 0, 0]
    assert len(got.values) == 0
