"""Features of servers: users, databases, loading, index builds, consistency levels, message limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from integration.conftest import NewIndex
from integration.corpora import ALL, documents, held, in_memory, layout
from integration.engines import Engine
from integration.proxy import proxied
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from m3index.doctor import examine
from m3index.errors import M3IndexError, NotAuthorisedError
from m3index.index import collection
from m3index.types import Document

pytestmark = pytest.mark.integration

LEVELS = ("Strong", "Bounded", "Session", "Eventually")


@pytest.fixture
def client(engine: Engine) -> Iterator[MilvusClient]:
    client = MilvusClient(engine.uri, token=engine.token or "", dedicated=True)
    yield client
    client.close()


def test_a_wrong_token_is_refused_and_not_shown(engine: Engine, new_index: NewIndex) -> None:
    engine.needs("authentication")
    assert new_index().store.collections() is not None
    for token in ("root:wrong-Secr3t", "nobody:wrong-Secr3t", None):
        with pytest.raises(NotAuthorisedError, match="--token") as error:
            new_index(token=token, timeout=5).store.collections()
        assert "Secr3t" not in str(error.value)


def test_a_database_has_separate_collections(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    engine.needs("databases")
    db, how = f"it_{os.getpid()}", layout(engine)
    client.create_database(db)
    try:
        inside, outside = new_index("it_same_name", db=db), new_index("it_same_name")
        inside.ingest(documents(4), **how)
        outside.ingest(documents(9), **how)
        assert (inside.status().documents, outside.status().documents) == (4, 9)
        assert inside.store.describe()["db"] == db
        for name in collection.generation_names(inside.store, "it_same_name"):
            inside.store.drop_alias("it_same_name")
            inside.store.drop(name)
        assert outside.search("sea", mode="dense").hits
    finally:
        _drop_database(client, db)


def _drop_database(client: MilvusClient, db: str) -> None:
    """Waits: a server drops collections asynchronously, and a database only when it is empty."""
    end = time.monotonic() + 30
    while True:
        try:
            return client.drop_database(db)
        except MilvusException:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def test_a_missing_database_is_reported(engine: Engine, new_index: NewIndex) -> None:
    with pytest.raises(M3IndexError, match="no_such_db"):
        new_index(db="no_such_db", timeout=5).store.collections()


def test_a_released_collection_is_loaded_when_needed(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    index, how = new_index(), layout(engine)
    items = documents(10)
    index.ingest(items, **how)
    name = index.current().name
    client.release_collection(name)
    assert len(index.search("sea", mode="dense").hits) == 10
    client.release_collection(name)
    assert index.sync(items[1:], max_delete=ALL, **how).deleted == 1
    assert held(index) == held(in_memory(items[1:], how))


def test_no_hit_is_missed_during_and_after_the_index_build(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    engine.needs("index build")
    index, how = new_index(), layout(engine)
    items = [Document(f"d{i}", f"number{i} of the sea") for i in range(1_500)]
    index.ingest(items, **how)
    asked = [f"number{i} of the sea" for i in (0, 700, 1_499)]
    before = [index.search(text, mode="dense", k=1).hits[0].doc_id for text in asked]
    name, end = index.current().name, time.monotonic() + 120
    while time.monotonic() < end:
        state = client.describe_index(name, "dense")
        if state["state"] == "Finished" and not state["pending_index_rows"]:
            break
        time.sleep(0.5)
    assert state["index_type"] == "HNSW"
    assert (state["state"], state["pending_index_rows"]) == ("Finished", 0)
    after = [index.search(text, mode="dense", k=1).hits[0].doc_id for text in asked]
    assert before == after == ["d0", "d700", "d1499"]
    assert index.verify(items).exit == 0


def test_collections_are_strongly_consistent(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    index, how = new_index(), layout(engine)
    summary = index.ingest(documents(10), **how)
    name = index.current().name
    assert client.describe_collection(name)["consistency_level"] == 0, "strong"
    for level in LEVELS:
        end = time.monotonic() + 30
        while True:
            found = client.query(name, output_fields=["count(*)"], consistency_level=level)[0]["count(*)"]
            if found == summary.store_count or time.monotonic() > end:
                break
            time.sleep(0.2)
        assert found == summary.store_count, level


def wide(number: int) -> list[Document]:
    """Rows of about 120 KB: one passage with text and metadata near their limits."""
    words = " ".join("x" * 5_900 for _ in range(10))
    return [
        Document(f"wide {i}", f"{words} {i}", "title", {"note": f"{i} " + "n" * 60_000})
        for i in range(number)
    ]


def test_batches_larger_than_a_message_are_written_and_read(engine: Engine, new_index: NewIndex) -> None:
    """600 rows of 120 KB are 72 MB, over the limit of 64 MB per message of a Milvus server."""
    index = new_index(timeout=120)
    how = layout(engine, passage_tokens=None, overlap=None)
    summary = index.ingest(wide(600), **how)
    assert (summary.exit, summary.store_count) == (0, 600)
    store, name = index.store, index.current().name
    keys = [row["passage_id"] for row in store.scan(name, None, [])]
    found = store.get(name, keys, ["doc_id", "text", "title", "metadata"])
    assert len(found) == 600
    by_id = {row["doc_id"]: row for row in found.values()}
    for document in wide(600):
        row = by_id[document.doc_id]
        assert (row["text"], row["title"], row["metadata"]) == (
            document.text,
            document.title,
            document.metadata,
        )


def test_a_gateway_with_a_lower_limit_gets_smaller_messages(engine: Engine, new_index: NewIndex) -> None:
    """Gateways can have lower limits: RESOURCE_EXHAUSTED halves the batch."""
    how = layout(engine, passage_tokens=None, overlap=None)
    with proxied(engine.uri, max_message=2**20) as way:
        index = new_index(uri=way.uri)
        summary = index.ingest(wide(20), **how)
        assert (summary.exit, summary.store_count) == (0, 20)
        assert held(index) == held(in_memory(wide(20), how))
        index.close()


def test_doctor_finds_nothing_wrong(engine: Engine, new_index: NewIndex) -> None:
    index = new_index()
    index.ingest(documents(5), **layout(engine))
    findings = list(examine(lambda: new_index(index.collection).service))
    assert [f for f in findings if f.level == "problem"] == []
    assert any(f.check == "store" and engine.uri in f.text for f in findings)
