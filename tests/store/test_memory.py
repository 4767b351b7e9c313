from __future__ import annotations

import pytest
from store.material import DENSE, keys, row

from m3index.errors import FilterError
from m3index.store.filter import Expression
from m3index.store.memory import MemoryStore


class Crash(Exception):
    pass


def test_a_crash_can_be_made_at_any_write() -> None:
    moments: list[str] = []
    store = MemoryStore(moments.append, batch=2)
    store.create("x", DENSE, {})
    written = [row(f"d{i}", spec=DENSE) for i in range(5)]
    store.upsert("x", written)
    store.delete("x", keys(written)[:1])
    store.set_properties("x", {"a": "b"})
    store.point("y", "x")
    store.drop_alias("y")
    store.drop("x")
    operations = ["create", *["upsert"] * 3, "delete", "set_properties", "point", "drop_alias", "drop"]
    assert moments == [f"{when} {operation}" for operation in operations for when in ("before", "after")]


def test_what_was_written_before_a_crash_stays() -> None:
    store = MemoryStore(batch=2)
    store.create("x", DENSE, {})
    written = [row(f"d{i}", spec=DENSE) for i in range(5)]
    calls = iter(["before upsert", "after upsert", "before upsert"])

    def fail(moment: str) -> None:
        if next(calls, None) is None:
            raise Crash(moment)

    store.fail = fail
    with pytest.raises(Crash, match="after upsert"):
        store.upsert("x", written)
    store.fail = None
    assert store.count("x") == 4


def test_what_is_stored_is_a_copy() -> None:
    store = MemoryStore()
    store.create("x", DENSE, {})
    metadata = {"a": [1]}
    written = row("a", spec=DENSE, metadata=metadata)
    store.upsert("x", [written])
    metadata["a"].append(2)
    written.dense[:] = 0
    stored = store.get("x", keys([written]), ["metadata", "dense"])[written.passage_id]
    assert stored["metadata"] == {"a": [1]}
    assert stored["dense"].any()


def test_milvus_expressions_are_refused() -> None:
    store = MemoryStore()
    store.create("x", DENSE, {})
    store.upsert("x", [row("a", spec=DENSE)])
    with pytest.raises(FilterError, match="does not support Milvus expressions"):
        store.count("x", Expression("ordinal == 0"))
