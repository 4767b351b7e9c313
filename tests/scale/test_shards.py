"""Rows -> Parquet -> rows is nothing lost."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scale_support import comparable

from m3index.corpus.windows import PassageSize
from m3index.errors import MismatchError, UsageError
from m3index.scale import shards
from m3index.scale.options import ShardOptions
from m3index.scale.shards import Fingerprint, Writer, rows_of, to_arrow
from m3index.types import EncoderInfo, Row, SparseVector

INFO = EncoderInfo("m", 3, 64, 2, True, True, "space", "encoder", 7)
PRINT = Fingerprint(INFO, "lexical", PassageSize(12, 2, "tokens"))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    tokens = sorted(draw(st.sets(st.integers(0, 2**31 - 2), max_size=5)))
    weights = draw(st.lists(st.floats(2.0**-20, 8, width=32), min_size=len(tokens), max_size=len(tokens)))
    sparse = SparseVector(np.array(tokens, np.int32), np.array(weights, np.float32))
    dense = draw(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
    return Row(
        passage_id=f"{draw(st.integers(0, 2**64)):032x}-0",
        doc_id=draw(TEXT),
        ordinal=draw(st.integers(0, 2**31 - 1)),
        source=draw(TEXT),
        doc_hash=draw(TEXT),
        passages=draw(st.integers(1, 2**31 - 1)),
        title=draw(TEXT),
        breadcrumb=draw(TEXT),
        anchor=draw(TEXT),
        text=draw(TEXT),
        metadata=draw(
            st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT)
        ),
        fields={},
        dense=np.array(dense, np.float32),
        sparse=draw(st.sampled_from([sparse, None])),
    )


@settings(deadline=None, max_examples=60)
@given(written=st.lists(rows(), min_size=1, max_size=9), group=st.integers(1, 5), data=st.data())
def test_rows_come_back_bit_for_bit(
    written: list[Row], group: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shard") / "one.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP", group)
        writer = Writer(path, PRINT)
        cut = data.draw(st.integers(0, len(written)))
        for part in (written[:cut], written[cut:]):
            tokens = [None if i % 2 else i for i in range(len(part))]
            writer.add(to_arrow(part, tokens, PRINT.arrow))
        writer.close()
    file = pq.ParquetFile(path, page_checksum_verification=True)
    assert file.num_row_groups == -(-len(written) // group)
    read = [row for batch in file.iter_batches(batch_size=4) for row in rows_of(batch)]
    assert [comparable(row) for row in read] == [comparable(row) for row in written]
    assert Fingerprint.from_json(json.loads(file.schema_arrow.metadata[b"m3index.shard"])) == PRINT


def test_fingerprints_differ_in_what_changes_rows() -> None:
    from dataclasses import replace

    same = replace(PRINT, encoder=replace(INFO, name="another path", parameters=0))
    assert same.digest == PRINT.digest
    others = [
        replace(PRINT, encoder=replace(INFO, encoder_id="x")),
        replace(PRINT, encoder=replace(INFO, space_id="x")),
        replace(PRINT, sparse="none"),
        replace(PRINT, passages=PassageSize(12, 3, "tokens")),
        replace(PRINT, dense="float16"),
    ]
    assert len({f.digest for f in [PRINT, *others]}) == 6
    assert Fingerprint.from_json(PRINT.to_json()) == PRINT


def test_other_versions_and_types_are_refused() -> None:
    with pytest.raises(MismatchError, match="version 99"):
        Fingerprint.from_json(PRINT.to_json() | {"version": 99})
    with pytest.raises(UsageError, match="storage takes fp32 or fp16, not 'int8'"):
        ShardOptions(storage="int8")
