"""Lists the generations of a collection, moves its alias between them and drops old ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from m3index.errors import NotFoundError, UsageError
from m3index.index.collection import find, generation_names, load_target
from m3index.index.lock import hold
from m3index.store.base import Store

BUILDING, LIVE = "building", "live"


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a collection. state: `building` or `live`; only a live one can serve."""

    number: int
    name: str
    current: bool
    state: str
    encoder: str
    sparse: str
    rows: int
    created: str | None
    last_success: str | None

    def to_json(self) -> dict[str, Any]:
        return {"type": "generation", **asdict(self)}


def generations(store: Store, alias: str) -> list[Generation]:
    """All generations, oldest first. Raises CollectionNotFoundError."""
    current = store.resolve(alias)
    names = generation_names(store, alias)
    if not names:
        find(store, alias)
    listed = []
    for name in names:
        target = load_target(store, alias, name)
        listed.append(
            Generation(
                number=target.generation,
                name=name,
                current=name == current,
                state=target.properties.get("state", LIVE),
                encoder=target.properties.get("encoder", ""),
                sparse=target.spec.sparse,
                rows=store.count(name),
                created=target.properties.get("created"),
                last_success=target.properties.get("last_success"),
            )
        )
    return listed


def rollback(store: Store, alias: str, to: int | None = None, *, retry_lock: float = 0.0) -> Generation:
    """Moves the alias to generation `to`, by default the one before the current, and returns it.

    retry_lock: the seconds to wait for the lock. Raises NotFoundError for an unknown generation, UsageError
    for an unfinished one, LockedError.
    """
    with hold(store, alias, retry_lock, "m3index generations rollback") as lock:
        if store.resolve(alias) is not None:
            lock.lease(lambda: find(store, alias))
        chosen = plan_rollback(store, alias, to)
        store.point(alias, chosen.name)
        return replace(chosen, current=True)


def plan_rollback(store: Store, alias: str, to: int | None = None) -> Generation:
    """The generation `rollback` would choose; takes no lock and writes nothing. Raises NotFoundError,
    UsageError."""
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), None)
    if to is None:
        older = [g for g in known if g.state == LIVE and current is not None and g.number < current]
        if not older:
            raise NotFoundError(f"Collection {alias!r} has no older generation.")
        return older[-1]
    named = [g for g in known if g.number == to]
    if not named:
        numbers = ", ".join(str(g.number) for g in known)
        raise NotFoundError(f"Collection {alias!r} has no generation {to}. Its generations are: {numbers}.")
    if named[0].state != LIVE:
        raise UsageError(f"Generation {to} of {alias!r} is unfinished and cannot serve. Choose another.")
    return named[0]


def drop_old(store: Store, alias: str, keep: int) -> list[str]:
    """Drops the generations older than the current one, except the last `keep`; returns their names."""
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), 0)
    older = [g.name for g in known if g.number < current]
    dropped = older[: len(older) - keep] if keep else older
    for name in dropped:
        store.drop(name)
    return dropped
