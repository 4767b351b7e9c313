"""Generations of a collection: a new one is built beside the one in use, proved, and the alias moved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from m3index.errors import (
    NotFoundError,
    UsageError,
)
from m3index.index.collection import (
    find,
    generation_names,
    load_target,
)
from m3index.index.lock import hold
from m3index.store.base import Store

BUILDING, LIVE = "building", "live"


@dataclass(frozen=True, slots=True)
class Generation:
    """One concrete collection behind a name. state: `building` until it is ready to serve."""

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
    """All of them, oldest first. Raises CollectionNotFoundError where there is none."""
    current = store.resolve(alias)
    names = generation_names(store, alias)
    if not names:
        find(store, alias)
    found = []
    for name in names:
        target = load_target(store, alias, name)
        found.append(
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
    return found


def rollback(store: Store, alias: str, to: int | None = None, *, retry_lock: float = 0.0) -> Generation:
    """Moves the alias to generation `to`, or to the one before the current. Returns that one.

    Raises NotFoundError where there is none, UsageError for one that was never finished.
    """
    with hold(store, alias, retry_lock, "m3index rollback") as lock:
        if store.resolve(alias) is not None:
            lock.lease(lambda: find(store, alias))
        chosen = plan_rollback(store, alias, to)
        store.point(alias, chosen.name)
        return replace(chosen, current=True)


def plan_rollback(store: Store, alias: str, to: int | None = None) -> Generation:
    """The generation that `rollback` would choose; takes no lock, writes nothing. Raises what it would."""
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), None)
    if to is None:
        older = [g for g in known if g.state == LIVE and current is not None and g.number < current]
        if not older:
            raise NotFoundError(f"Collection {alias!r} has no older generation to go back to.")
        return older[-1]
    named = [g for g in known if g.number == to]
    if not named:
        numbers = ", ".join(str(g.number) for g in known)
        raise NotFoundError(f"Collection {alias!r} has no generation {to}; there are: {numbers}.")
    if named[0].state != LIVE:
        raise UsageError(f"Generation {to} of {alias!r} was never finished; it cannot serve.")
    return named[0]


def drop_old(store: Store, alias: str, keep: int) -> list[str]:
    """Drops all generations before the current one but the last `keep`; returns their names."""
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), 0)
    older = [g.name for g in known if g.number < current]
    dropped = older[: len(older) - keep] if keep else older
    for name in dropped:
        store.drop(name)
    return dropped
