"""Lists the generations of a collection, moves its alias between them and drops old ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from m3index.errors import NotFoundError, UsageError
from m3index.index.collection import find, generation_names, load_target
from m3index.index.lock import hold
from m3index.store.base import Store

BUILDING, LIVE = "building", "live"


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a collection.

    state: `building` or `live`; only a live one can serve. served_until: when another one took its place;
    None for the one that serves and for one that has not served.
    """

    number: int
    name: str
    current: bool
    state: str
    encoder: str
    sparse: str
    rows: int
    created: str | None
    last_success: str | None
    served_until: str | None

    @property
    def age(self) -> tuple[str, int]:
        """Sorts generations by when they last served, then by number."""
        return self.served_until or "", self.number

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
                served_until=None if name == current else target.properties.get("served_until"),
            )
        )
    return listed


def switch(store: Store, alias: str, name: str) -> None:
    """Moves the alias to a generation, and records in the previous one that it served until now."""
    previous = store.resolve(alias)
    if previous is not None and previous != name:
        store.set_properties(previous, {"served_until": datetime.now(UTC).isoformat()})
    store.point(alias, name)


def rollback(store: Store, alias: str, to: int | None = None, *, retry_lock: float = 0.0) -> Generation:
    """Moves the alias to generation `to`, by default the older one that served last, and returns it.

    retry_lock: the seconds to wait for the lock. Raises NotFoundError for an unknown generation, UsageError
    for an unfinished one, LockedError.
    """
    with hold(store, alias, retry_lock, "m3index generations rollback") as lock:
        if store.resolve(alias) is not None:
            lock.lease(lambda: find(store, alias), rewrites=[])
        chosen = plan_rollback(store, alias, to)
        switch(store, alias, chosen.name)
        return replace(chosen, current=True, served_until=None)


def plan_rollback(store: Store, alias: str, to: int | None = None) -> Generation:
    """The generation `rollback` would choose; takes no lock and writes nothing. Raises NotFoundError,
    UsageError."""
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), None)
    if to is None:
        older = [g for g in known if g.state == LIVE and current is not None and g.number < current]
        if not older:
            raise NotFoundError(f"Collection {alias!r} has no older generation.")
        return max(older, key=lambda g: g.age)
    named = [g for g in known if g.number == to]
    if not named:
        numbers = ", ".join(str(g.number) for g in known)
        raise NotFoundError(f"Collection {alias!r} has no generation {to}. Its generations are: {numbers}.")
    if named[0].state != LIVE:
        raise UsageError(f"Generation {to} of {alias!r} is unfinished and cannot serve. Choose another.")
    return named[0]


def drop_old(store: Store, alias: str, keep: int) -> list[str]:
    """Drops the generations that do not serve, except the `keep` that served last; returns their names.

    A newer one that is being built, perhaps by another run, is left alone.
    """
    known = generations(store, alias)
    current = next((g.number for g in known if g.current), 0)
    others = [g for g in known if not g.current and (g.state == LIVE or g.number < current)]
    others.sort(key=lambda g: g.age)
    dropped = [g.name for g in others[: max(len(others) - keep, 0)]]
    for name in dropped:
        store.drop(name)
    return dropped
