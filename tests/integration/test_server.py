"""What only a server has: users, databases, loading, index builds, consistency levels, message limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from integration.conftest import NewIndex
from integration.corpora import documents, held, in_memory, settings
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


def test_a_wrong_token_is_refused_and_not_repeated_to_anybody(engine: Engine, new_index: NewIndex) -> None:
    engine.needs("authentication")
    assert new_index().store.collections() is not None
    for token in ("root:wrong-Secr3t", "nobody:wrong-Secr3t", ""):
        with pytest.raises(NotAuthorisedError, match="--token") as error:
            new_index(token=token, timeout=5).store.collections()
        assert "Secr3t" not in str(error.value)


def test_a_database_holds_its_own_collections(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    engine.needs("databases")
    db, how = f"it_{os.getpid()}", settings(engine)
    client.create_database(db)
    try:
        inside, outside = new_index("it_same_name", db=db), new_index("it_same_name")
        inside.ingest(documents(4), how)
        outside.ingest(documents(9), how)
        assert (inside.status().documents, outside.status().documents) == (4, 9)
        assert inside.store.describe()["db"] == db
        for name in collection.generation_names(inside.store, "it_same_name"):
            inside.store.drop_alias("it_same_name")
            inside.store.drop(name)
        assert outside.search("sea", mode="dense").hits
    finally:
        _drop_database(client, db)


def _drop_database(client: MilvusClient, db: str) -> None:
    """A server drops collections by and by, and a database only when it is empty."""
    end = time.monotonic() + 30
    while True:
        try:
            return client.drop_database(db)
        except MilvusException:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def test_a_database_that_is_not_there_is_said_so(engine: Engine, new_index: NewIndex) -> None:
    with pytest.raises(M3IndexError, match="no_such_db"):
        new_index(db="no_such_db", timeout=5).store.collections()


def test_a_released_collection_is_loaded_by_whoever_needs_it(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    index, how = new_index(), settings(engine)
    items = documents(10)
    index.ingest(items, how)
    name = index.target().name
    client.release_collection(name)
    assert len(index.search("sea", mode="dense").hits) == 10
    client.release_collection(name)
    assert index.sync(items[1:], how).deleted == 1
    assert held(index) == held(in_memory(items[1:], how))


def test_while_and_after_the_index_is_built_nothing_is_missed(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    engine.needs("index build")
    index, how = new_index(), settings(engine)
    items = [Document(f"d{i}", f"number{i} of the sea") for i in range(1_500)]
    index.ingest(items, how)
    asked = [f"number{i} of the sea" for i in (0, 700, 1_499)]
    before = [index.search(text, mode="dense", k=1).hits[0].doc_id for text in asked]
    name, end = index.target().name, time.monotonic() + 120
    while time.monotonic() < end:
        state = client.describe_index(name, "dense")
        if state["state"] == "Finished" and not state["pending_index_rows"]:
            break
        time.sleep(0.5)
    assert state["index_type"] == "HNSW"
    assert (state["state"], state["pending_index_rows"]) == ("Finished", 0)
    after = [index.search(text, mode="dense", k=1).hits[0].doc_id for text in asked]
    assert before == after == ["d0", "d700", "d1499"]
    assert index.verify(items, how).exit == 0


def test_collections_are_made_strong_and_read_so_at_every_level_in_time(
    engine: Engine, new_index: NewIndex, client: MilvusClient
) -> None:
    index, how = new_index(), settings(engine)
    summary = index.ingest(documents(10), how)
    name = index.target().name
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
    """Rows of some 120 KB: text and metadata near their limits, in one passage."""
    words = " ".join("x" * 5_900 for _ in range(10))
    return [
        Document(f"wide {i}", f"{words} {i}", "title", {"note": f"{i} " + "n" * 60_000})
        for i in range(number)
    ]


def test_batches_far_over_one_message_are_written_and_read_whole(engine: Engine, new_index: NewIndex) -> None:
    """600 rows of 120 KB: 72 MB, over the 64 MB that a Milvus server takes in one message."""
    index = new_index(timeout=120)
    how = replace(settings(engine), passages=None)
    summary = index.ingest(wide(600), how)
    assert (summary.exit, summary.store_count) == (0, 600)
    store, name = index.store, index.target().name
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


def test_a_way_that_takes_smaller_messages_gets_smaller_ones(engine: Engine, new_index: NewIndex) -> None:
    """Gateways before a server have limits of their own: RESOURCE_EXHAUSTED halves the batch."""
    how = replace(settings(engine), passages=None)
    with proxied(engine.uri, max_message=2**20) as way:
        index = new_index(uri=way.uri)
        summary = index.ingest(wide(20), how)
        assert (summary.exit, summary.store_count) == (0, 20)
        assert held(index) == held(in_memory(wide(20), how))
        index.close()


def test_doctor_finds_nothing_wrong(engine: Engine, new_index: NewIndex) -> None:
    index = new_index()
    index.ingest(documents(5), settings(engine))
    findings = list(examine(lambda: new_index(index.collection)))
    assert [f for f in findings if f.level == "problem"] == []
    assert any(f.check == "store" and engine.uri in f.text for f in findings)
