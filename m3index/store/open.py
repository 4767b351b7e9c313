"""One door to every store, by its URI. pymilvus is imported only behind it."""

from __future__ import annotations

from m3index.store.base import Store


def open_store(
    uri: str,
    token: str | None = None,
    db: str | None = None,
    *,
    timeout: float | None = None,
    create: bool = True,
) -> Store:
    """`path.db` (Milvus Lite), `http(s)://`, `tcp://`, `unix:` (a server), or `memory:` (gone when closed).

    timeout: the seconds that one call may take, its repetitions included. create: whether a local
    database is made where there is none; else CollectionNotFoundError.
    """
    if uri == "memory:":
        from m3index.store.memory import MemoryStore

        return MemoryStore()
    from m3index.store.milvus import MilvusStore

    return MilvusStore.open(uri, token, db, timeout=timeout, create=create)
