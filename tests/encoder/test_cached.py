"""The cache of vectors: what it has is not encoded again, and what it gives is what was encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3index.encoder import cached
from m3index.encoder.cached import CachedEncoder
from m3index.files import Folder
from m3index.types import EncodedBatch, IntArray


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cache")


def inputs(*numbers: int) -> list[IntArray]:
    return [np.array([0, *range(4 + n, 6 + 2 * n), 2], np.int32) for n in numbers]


def equal(a: EncodedBatch, b: EncodedBatch) -> bool:
    same = np.array_equal(a.dense, b.dense) and np.array_equal(a.tokens, b.tokens)
    if a.lexical is None or b.lexical is None:
        return same and a.lexical is b.lexical
    parts = zip(
        (a.lexical.indptr, a.lexical.indices, a.lexical.values),
        (b.lexical.indptr, b.lexical.indices, b.lexical.values),
        strict=True,
    )
    return same and all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in parts)


@pytest.mark.parametrize("lexical", [True, False])
def test_what_the_cache_holds_is_not_encoded_again(folder: Folder, lexical: bool) -> None:
    first, plain = FakeEncoder(lexical=lexical), FakeEncoder(lexical=lexical)
    encoder = CachedEncoder(first, folder)
    encoder.encode_ids(inputs(1, 2, 3), lexical=lexical)
    mixed = encoder.encode_ids(inputs(3, 4, 1, 4), lexical=lexical)
    assert (encoder.hits, encoder.misses) == (2, 5)
    assert equal(mixed, plain.encode_ids(inputs(3, 4, 1, 4), lexical=lexical))
    encoder.close()
    assert first.closed

    second = FakeEncoder(lexical=lexical)
    again = CachedEncoder(second, folder)
    assert equal(
        again.encode_ids(inputs(4, 3, 2, 1), lexical=lexical),
        plain.encode_ids(inputs(4, 3, 2, 1), lexical=lexical),
    )
    assert second.encoded == 0


def test_another_encoder_finds_nothing(folder: Folder) -> None:
    CachedEncoder(one := FakeEncoder(), folder).encode_ids(inputs(1), lexical=True)
    closing = CachedEncoder(one, folder)
    closing.encode_ids(inputs(1), lexical=True)
    closing.close()
    other = FakeEncoder(name="other")
    CachedEncoder(other, folder).encode_ids(inputs(1), lexical=True)
    assert other.encoded == 1
    CachedEncoder(one, folder).encode_ids(inputs(1), lexical=False)
    assert one.encoded == 3  # the entry with lexical weights is another one


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=20))
def test_any_order_of_calls_gives_what_the_encoder_would(
    calls: list[list[int]], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "PACK_ROWS", 3)
    folder, plain = Folder(tmp_path_factory.mktemp("cache")), FakeEncoder()
    inner = FakeEncoder()
    encoder = CachedEncoder(inner, folder)
    for numbers in calls:
        assert equal(
            encoder.encode_ids(inputs(*numbers), lexical=True),
            plain.encode_ids(inputs(*numbers), lexical=True),
        )
    encoder.close()
    again = CachedEncoder(last := FakeEncoder(), folder)
    for numbers in calls:
        again.encode_ids(inputs(*numbers), lexical=True)
    assert last.encoded == 0


def test_several_writers_share_a_cache(folder: Folder) -> None:
    writers = [CachedEncoder(FakeEncoder(), folder) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.encode_ids(inputs(number, number + 1), lexical=True)
    for writer in writers:
        writer.close()
    last = FakeEncoder()
    CachedEncoder(last, folder).encode_ids(inputs(0, 1, 2, 3), lexical=True)
    assert last.encoded == 0


@pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
def test_a_damaged_pack_is_a_miss(folder: Folder, damage: str) -> None:
    encoder = CachedEncoder(FakeEncoder(), folder)
    encoder.encode_ids(inputs(1, 2), lexical=True)
    encoder.close()
    [pack] = Path(folder.location).rglob("*.arrow")
    opened = CachedEncoder(inner := FakeEncoder(), folder)
    opened.encode_ids(inputs(7), lexical=True)  # the list of packs is read now
    data = bytearray(pack.read_bytes())
    if damage == "gone":
        pack.unlink()
    else:
        data[len(data) // 2] ^= 1
        pack.write_bytes(data if damage == "a bit" else data[: len(data) // 2])
    expected = FakeEncoder().encode_ids(inputs(1, 2), lexical=True)
    assert equal(opened.encode_ids(inputs(1, 2), lexical=True), expected)
    assert inner.encoded == 3
    assert equal(CachedEncoder(FakeEncoder(), folder).encode_ids(inputs(1, 2), lexical=True), expected)


def test_queries_and_multi_vectors_go_to_the_encoder(folder: Folder) -> None:
    class Counting(FakeEncoder):
        queries = 0

        def encode_queries(
            self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
        ) -> EncodedBatch:
            self.queries += 1
            return super().encode_queries(texts, lexical=lexical, multi_vector=multi_vector)

    encoder = CachedEncoder(inner := Counting(), folder)
    for _ in range(2):
        assert encoder.encode_ids(inputs(1), lexical=True, multi_vector=True).multi_vector is not None
        encoder.encode_queries(["a b"], lexical=True)
    assert (inner.encoded, inner.queries) == (2, 2)
