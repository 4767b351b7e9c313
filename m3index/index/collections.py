"""Lists the collections of a store and drops them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from m3index.errors import CollectionNotFoundError
from m3index.index.collection import collection_names, find, generation_names, load_target
from m3index.index.lock import hold
from m3index.store.base import Store


@dataclass(frozen=True, slots=True)
class ListedCollection:
    """A collection in a list. serving: the generation the alias points to; None without an alias. rows: of
    that generation, or of the newest."""

    name: str
    serving: int | None
    generations: int
    encoder: str
    sparse: str
    rows: int
    last_success: str | None

    def to_json(self) -> dict[str, Any]:
        return {"type": "collection", **asdict(self)}


def listing(store: Store) -> list[ListedCollection]:
    """All collections of the store, sorted by name."""
    listed = []
    for alias in collection_names(store):
        generations = generation_names(store, alias)
        serving = store.resolve(alias)
        shown = load_target(store, alias, serving or generations[-1])
        listed.append(
            ListedCollection(
                name=alias,
                serving=shown.generation if serving else None,
                generations=len(generations),
                encoder=shown.properties.get("encoder", ""),
                sparse=shown.spec.sparse,
                rows=store.count(shown.name),
                last_success=shown.properties.get("last_success"),
            )
        )
    return listed


def drop_collection(store: Store, alias: str, wait: float = 0.0) -> None:
    """Drops the alias and every generation. wait: the seconds to wait for the lock.

    Raises CollectionNotFoundError, LockedError.
    """
    with hold(store, alias, wait, "m3index collections drop") as lock:
        if store.resolve(alias) is not None:
            lock.lease(lambda: find(store, alias), rewrites=[])
        generations = generation_names(store, alias)
        if not generations:
            raise CollectionNotFoundError(f"There is no collection {alias!r} at {store.uri}.")
        lock.forget()
        store.drop_alias(alias)
        for name in generations:
            store.drop(name)
