from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.material import BM25, DENSE, LEXICAL, row, sparse

from m3index import schema
from m3index.store import rows
from m3index.store.rows import batches, checked, from_wire, refused, sparse_vector, to_wire

LIMIT = 65_535


def test_a_row_without_tokens_carries_the_reserved_dimension() -> None:
    wire = to_wire(row("a", spec=LEXICAL, sparse=sparse({})), LEXICAL, bm25_limit=LIMIT)
    assert wire.entity["lexical"].indices.tolist() == [rows.EMPTY_DIMENSION]
    assert len(sparse_vector({rows.EMPTY_DIMENSION: 1.0})) == 0
    assert sparse_vector({9: 0.5, 2: 1.5}).to_dict() == {2: 1.5, 9: 0.5}


def test_bm25_sees_title_and_text_and_its_bound_is_told() -> None:
    wire = to_wire(row("a", title="東京", text="Text"), BM25, bm25_limit=LIMIT)
    assert wire.entity["bm25_input"].split() == ["東京", "Text"]
    good, reasons = checked(
        [row("a", text="x" * 40_000, title="y" * 30_000), row("b")], BM25, bm25_limit=LIMIT
    )
    assert [w.row.doc_id for w in good] == ["b"]
    expected = "document 'a', passage 0: the title and text for BM25: 70001 bytes, the limit is 65535"
    assert expected in reasons.values()


def test_an_error_for_many_rows_stays_short() -> None:
    _, reasons = checked([row(f"d{i}", passages=-1) for i in range(50)], DENSE, bm25_limit=LIMIT)
    error = refused(reasons)
    assert len(error.passage_ids) == 50
    assert str(error).endswith("; and 48 more.")
    assert len(str(error)) < 300


@given(st.lists(st.integers(0, 9_000), max_size=60), st.integers(1, 7), st.integers(3_000, 20_000))
@settings(max_examples=60, deadline=None)
def test_batches_keep_order_and_bounds(sizes: list[int], most: int, room: int) -> None:
    wires = [
        to_wire(row(f"d{i}", text="x" * n, spec=DENSE), DENSE, bm25_limit=LIMIT) for i, n in enumerate(sizes)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "BATCH_ROWS", most)
        patch.setattr(rows, "BATCH_BYTES", room)
        made = list(batches(wires))
    assert [w for batch in made for w in batch] == wires
    for batch in made:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(w.size for w in batch) <= room


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(texts, json_values, max_size=4))
@settings(max_examples=80, deadline=None)
def test_metadata_keep_every_value(metadata: dict[str, object]) -> None:
    text = schema.metadata_json(metadata)
    assert json.dumps(json.loads(text)) == json.dumps(metadata)


def test_the_size_is_not_less_than_the_text() -> None:
    wire = to_wire(row("a", text="界" * 1_000, metadata={"a": "b" * 500}), BM25, bm25_limit=LIMIT)
    assert wire.size >= 2 * 3_000 + 500


def test_a_row_comes_back_in_the_types_of_the_protocol() -> None:
    stored = from_wire(
        {
            "passage_id": "a-0",
            "dense": [0.5, 0.25],
            "metadata": {"a": 1},
            "tags": ("x",),
            "year": None,
            "other": 1,
        },
        ["dense", "metadata", "tags", "year"],
    )
    assert stored["dense"].dtype == np.float32
    assert stored["tags"] == ["x"]
    assert stored["year"] is None
    assert "other" not in stored


def test_deep_metadata_are_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(2_000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="metadata"):
        schema.metadata_json(deep)
