"""Opens a store by its URI. Imports pymilvus only if it is needed."""

from __future__ import annotations

from m3index.store.base import Store
from m3index.store.options import Address


def open_store(address: Address, *, create: bool = True) -> Store:
    """`path.db` (Milvus Lite), `http(s)://`, `tcp://`, `unix:` (a server), or `memory:` (lost when closed).

    create: create a local database if there is none; otherwise, raise CollectionNotFoundError. Raises
    UsageError, LockedError, NotAuthorisedError and UnreachableError.
    """
    if address.uri == "memory:":
        from m3index.store.memory import MemoryStore

        return MemoryStore()
    from m3index.store.milvus import MilvusStore

    return MilvusStore.open(
        address.uri, address.credentials, address.db, timeout=address.timeout, create=create
    )
