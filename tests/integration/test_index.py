"""The life cycle of a collection on a server through the public API."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import FakeEncoder
from integration.conftest import NewIndex
from integration.corpora import ALL, documents, held, in_memory, layout
from integration.engines import Engine

from m3index import schema
from m3index.errors import (
    CollectionNotFoundError,
    DriftError,
    Exit,
    LockedError,
    MismatchError,
    NotFoundError,
    StoreError,
)
from m3index.index import lock
from m3index.store.filter import Compare
from m3index.types import Document, Storage, document_key, passage_key

pytestmark = pytest.mark.integration


def test_a_collection_matches_the_schema_when_read_back(engine: Engine, new_index: NewIndex) -> None:
    index = new_index()
    with pytest.raises(CollectionNotFoundError, match="m3index ingest"):
        index.search("anything")
    index.ingest(iter(()), **layout(engine))
    target = index.current()
    assert target.name == f"{index.collection}__g1"
    assert (target.spec.dim, target.spec.sparse, target.spec.fields) == (16, engine.sparse, engine.fields)
    assert target.properties["schema_version"] == str(schema.version())
    assert json.loads(target.properties["fields"]) == engine.fields
    assert index.status().rows == 0
    assert index.search("anything", mode="dense").hits == ()


def test_vectors_of_another_space_are_refused(engine: Engine, new_index: NewIndex) -> None:
    index = new_index()
    index.ingest(documents(3), **layout(engine))
    other = new_index(index.collection, encoder=FakeEncoder(name="other"))
    with pytest.raises(MismatchError, match="cannot be compared"):
        other.ingest(documents(3), **layout(engine))
    with pytest.raises(MismatchError, match="cannot be compared"):
        other.search("sea")


def test_ingest_sync_and_delete_leave_what_a_rebuild_would(engine: Engine, new_index: NewIndex) -> None:
    index, how = new_index(), layout(engine)
    old, new = documents(60), [*documents(50, edition=1)[5:], *documents(8, seed=1)]

    first = index.ingest(old, **how)
    assert (first.exit, first.added, first.count_ok, first.store_count) == (0, 60, True, first.passages)
    assert held(index) == held(in_memory(old, how))

    again = index.sync(old, max_delete=ALL, **how)
    assert (again.exit, again.unchanged, again.passages, again.tokens) == (0, 60, 0, 0)

    changed = index.sync(new, max_delete=ALL, **how)
    kept = {d.doc_id for d in new}
    assert changed.exit == 0
    assert changed.deleted == len({d.doc_id for d in old} - kept)
    assert changed.metadata_only > 0
    assert held(index) == held(in_memory(new, how))

    gone = index.delete([new[0].doc_id, new[-1].doc_id, "never there"])
    assert gone.deleted == 2
    assert held(index) == held(in_memory(new[1:-1], how))


def test_metadata_is_written_without_encoding(engine: Engine, new_index: NewIndex) -> None:
    encoder = FakeEncoder()
    index, how = new_index(encoder=encoder), layout(engine)
    old = documents(12)
    index.ingest(old, **how)
    encoded = encoder.encoded
    new = [replace(d, metadata={**d.metadata, "seen": True}) for d in old]
    summary = index.sync(new, max_delete=ALL, **how)
    assert (summary.metadata_only, summary.updated, encoder.encoded) == (12, 0, encoded)
    assert held(index) == held(in_memory(new, how))


def test_deletions_over_the_limit_are_withheld(engine: Engine, new_index: NewIndex) -> None:
    index, how = new_index(), layout(engine)
    index.ingest(documents(40), **how)
    summary = index.sync(documents(20), **how)
    assert (summary.exit, summary.deleted, summary.deletes_withheld) == (Exit.DELETES_WITHHELD, 0, 20)
    assert index.status().documents == 40


def test_sources_do_not_see_each_other(engine: Engine, new_index: NewIndex) -> None:
    index, how = new_index(), layout(engine)
    index.ingest(documents(6), source="a", **how)
    index.ingest(documents(6), source="b", **how)
    index.sync(documents(3), source="a", max_delete=ALL, **how)
    of_b = Compare("source", "==", "b")
    assert index.store.count(index.current().name, of_b) == sum(
        row["source"] == "b" for row in held(index).values()
    )
    assert {row["doc_id"] for row in held(index).values() if row["source"] == "b"} == {
        d.doc_id for d in documents(6)
    }


def test_one_client_reads_immediately_what_another_wrote(engine: Engine, new_index: NewIndex) -> None:
    writer = new_index()
    reader, how = new_index(writer.collection), layout(engine)
    for round_ in range(4):
        items = [Document(f"d{i}", f"round {round_} of document number{i}") for i in range(5 + round_)]
        writer.sync(items, max_delete=ALL, **how)
        hits = reader.search(f"round {round_} of document number{4 + round_}", mode="dense", k=1).hits
        assert [(h.doc_id, h.text) for h in hits] == [(f"d{4 + round_}", items[-1].text)]
        assert held(reader) == held(in_memory(items, how))
        writer.delete([f"d{4 + round_}"])
        assert reader.store.count(reader.current().name) == 4 + round_


def test_a_new_generation_serves_and_can_be_rolled_back(engine: Engine, new_index: NewIndex) -> None:
    index, how = new_index(), layout(engine)
    items = documents(15)
    index.ingest(items, **how)
    reader = new_index(index.collection)
    assert reader.current().name.endswith("__g1")

    larger = FakeEncoder(dim=24, name="larger")
    rebuilt = new_index(index.collection, encoder=larger)
    summary = rebuilt.reindex({"default": items}, max_delete=ALL, **how)
    assert (summary.exit, summary.generation) == (0, 2)
    assert reader.current().name.endswith("__g2"), "an open reader sees the swap"
    assert held(rebuilt) == held(in_memory(items, how, larger))

    assert [(g.number, g.current, g.state) for g in index.generations()] == [
        (1, False, "live"),
        (2, True, "live"),
    ]
    assert index.rollback().number == 1
    assert held(index) == held(in_memory(items, how))
    assert index.rollback(to=2).current
    with pytest.raises(NotFoundError, match="no generation 9"):
        index.rollback(to=9)


def test_verify_finds_and_repairs_differences(engine: Engine, new_index: NewIndex) -> None:
    index, how = new_index(), layout(engine)
    items = documents(25)
    index.ingest(items, **how)
    assert index.verify(items).exit == 0

    name, store = index.current().name, index.store
    lost = items[4]
    store.delete(name, [passage_key(document_key("default", lost.doc_id), 0)])
    proof = index.verify(items)
    assert proof.exit == Exit.DRIFT
    assert {d.doc_id for d in proof} == {lost.doc_id}
    with pytest.raises(DriftError, match="1 document"):
        proof.raise_for_differences()

    assert index.verify(items, repair=True).repaired == 1
    assert index.verify(items).exit == 0
    assert held(index) == held(in_memory(items, how))


def test_a_second_writer_waits_for_the_lease_of_the_first(
    engine: Engine, new_index: NewIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behaves like another machine, which sees only the lease in the collection."""
    index, how = new_index(), layout(engine)
    index.ingest(documents(3), **how)
    name = index.current().name
    elsewhere = lock.Holder("x", "another machine", "far", 1, "ann", "m3index sync", "now", 4e9)
    index.store.set_properties(name, {"lease": elsewhere.to_json()})
    with pytest.raises(LockedError, match="ann"):
        index.sync(documents(3), max_delete=ALL, **how)
    assert index.service.unlock() is not None
    assert index.sync(documents(3), max_delete=ALL, **how).exit == 0


def test_tenants_are_kept_apart(engine: Engine, new_index: NewIndex) -> None:
    engine.needs("tenants")
    index, how = new_index(), layout(engine, fields=None, tenant_field="org")
    items = [replace(d, metadata={"org": f"org {i % 20}"}) for i, d in enumerate(documents(60))]
    assert index.ingest(items, **how).exit == 0
    assert (index.status().tenant_field, index.current().spec.tenant) == ("org", "org")
    one = {d.doc_id for d in items[3::20]}
    found = index.search("sea moon", k=50, mode="dense", tenant="org 3")
    assert {hit.doc_id for hit in found.hits} == one
    moved = [replace(d, metadata={"org": "org 3"}) if i == 0 else d for i, d in enumerate(items)]
    assert index.ingest(moved, **layout(engine, fields=None)).metadata_only == 1
    found = index.search("sea moon", k=50, mode="dense", tenant="org 3")
    assert {hit.doc_id for hit in found.hits} == one | {items[0].doc_id}
    mine = layout(engine, fields=None, tenant="org 3")
    summary = index.sync([items[3]], max_delete=ALL, **mine)
    assert (summary.deleted, summary.unchanged, summary.count_ok) == (3, 1, True)
    assert index.status().documents == 57


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_half_precision_is_stored_and_verified(engine: Engine, new_index: NewIndex, storage: Storage) -> None:
    engine.needs("halves")
    index, how = new_index(), layout(engine, storage=storage)
    items = documents(40)
    assert index.ingest(items, **how).exit == 0
    assert index.status().storage == storage
    assert held(index) == held(in_memory(items, how))
    proof = index.verify(items)
    assert (proof.exit, proof.storage) == (0, storage)


@pytest.mark.parametrize("size", ["large", "huge"])
def test_another_index_class_encodes_nothing(engine: Engine, new_index: NewIndex, size: str) -> None:
    engine.needs("index classes")
    index, how, items = new_index(), layout(engine), documents(40)
    index.ingest(items, **how)
    before = held(index)
    changes = ["dense.type=HNSW"] if size == "large" and engine.name == "server 2.3" else []
    try:
        summary = index.reindex(None, index_class=size, index=changes, **how)
    except StoreError as error:
        if f"--index-class {size}" not in str(error):
            raise
        pytest.skip(f"a server that is too old: {error}")
    assert (summary.tokens, summary.exit) == (0, 0)
    assert held(index) == before
    assert index.search("sea", mode="dense", k=5).hits
