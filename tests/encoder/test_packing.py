from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3index.encoder import packing

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 100))
def test_every_input_is_in_one_pack_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = packing.plan(np.array(lengths, np.int32), budget)
    assert sorted(i for p in packs for i in p.tolist()) == list(range(len(lengths)))
    for p in packs:
        total = sum(lengths[i] for i in p)
        assert total <= budget or len(p) == 1
    flat = [lengths[i] for p in packs for i in p]
    assert flat == sorted(flat, reverse=True)


def test_packs_are_full() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 2000).astype(np.int32)
    packs = packing.plan(lengths, 4096)
    assert len(packs) <= -(-int(lengths.sum()) // 4096) + 2


@settings(deadline=None)
@given(LENGTHS, st.integers(60, 300))
@example([1, 1, 1, 1, 1, 12, 14, 14, 16, 16, 16, 16], 60)
def test_even_packs_have_every_input_once_and_leave_no_crumb(lengths: list[int], budget: int) -> None:
    packs = packing.plan(np.array(lengths, np.int32), budget, evenly=True)
    assert sorted(i for p in packs for i in p.tolist()) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in p) for p in packs]
    assert all(size <= budget for size in sizes)
    # Every pack is full, or has its share of what was left, up to the length of one input.
    if sizes:
        assert min(sizes) >= sum(sizes) / len(sizes) - max(lengths)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
@example([9, 9, 9, 9, 2])
@example([20, 9, 9])
def test_even_packs_end_nearest_to_their_equal_shares(lengths: list[int]) -> None:
    """With a budget for which two packs are enough, each is within half an input of half the tokens."""
    total, longest = sum(lengths), max(lengths)
    budget = -(-(total + longest) // 2)
    packs = packing.plan(np.array(lengths, np.int32), budget, evenly=True)
    assert len(packs) == (2 if total > budget else 1)
    for p in packs:
        assert abs(sum(lengths[i] for i in p) - total / len(packs)) <= longest / 2


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=6))
def test_positions_are_those_of_each_input_alone(rows: list[list[int]]) -> None:
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

    arrays = [np.array(r, np.int32) for r in rows]
    plain, offset = packing.pack(arrays), packing.pack(arrays, 1)
    assert plain.ids.tolist() == offset.ids.tolist() == [t for r in rows for t in r]
    assert plain.positions.tolist() == [i for r in rows for i in range(len(r))]
    # Positions of XLM-R begin at padding_idx + 1 in every input, and a typed "<pad>" does not count.
    for i, row in enumerate(rows):
        a, b = offset.bounds[i], offset.bounds[i + 1]
        alone = XLMRobertaEmbeddings.create_position_ids_from_input_ids(torch.tensor([row]), 1)
        assert offset.positions[a:b].tolist() == alone[0].tolist()


def test_the_shape_of_a_pack() -> None:
    types = [np.zeros(2, np.int32), np.ones(3, np.int32)]
    pack = packing.pack([np.arange(2), np.arange(3)], 1, types)
    assert len(pack) == 2
    assert pack.longest == 3
    assert pack.lengths.tolist() == [2, 3]
    assert pack.positions.tolist() == [2, 1, 2, 1, 3]
    assert pack.types is not None
    assert pack.types.tolist() == [0, 0, 1, 1, 1]
    assert {x.dtype for x in (pack.ids, pack.positions, pack.bounds, pack.types)} == {np.dtype(np.int32)}
