"""The collection of a writing run. The first run creates it, and removes it again if it wrote nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from m3index.encoder.base import Encoder
from m3index.errors import M3IndexError, UnreachableError
from m3index.index.collection import Collection, open_collection
from m3index.index.lock import WriteLock
from m3index.index.options import IngestOptions
from m3index.progress import Reporter
from m3index.store.base import Store


@contextmanager
def opened(
    store: Store,
    alias: str,
    encoder: Encoder,
    settings: IngestOptions,
    lock: WriteLock,
    reporter: Reporter,
    *,
    rewrites: Sequence[str],
) -> Iterator[Collection]:
    """The collection of a run, opened or created, with its lease. rewrites: see `WriteLock.lease`.

    A collection that this run created and that holds no rows at its end, because of an error, an interruption
    or because every row was rejected, is removed: its layout would bind the next run, which may correct it.
    The one of a successful run over an empty corpus stays. Raises the errors of `open_collection` and
    LockedError.
    """
    created: set[str] = set()

    def open_target() -> Collection:
        target = open_collection(store, alias, encoder, settings, settings.tenant_name)
        if target.is_new:
            created.add(target.properties["uuid"])
        return target

    target = lock.lease(open_target, rewrites=rewrites)
    try:
        yield target
    except UnreachableError:
        raise
    except BaseException:
        if target.properties["uuid"] in created:
            _remove_empty(store, target, lock, reporter)
        raise
    if target.properties["uuid"] in created:
        _remove_empty(store, target, lock, reporter)


def _remove_empty(store: Store, target: Collection, lock: WriteLock, reporter: Reporter) -> None:
    """Another run that waits for the lease finds no collection and creates its own. The store proves the
    lease before each step, so that nothing is removed that another run has taken over."""
    with suppress(M3IndexError):  # the outcome of the run counts; the next one finds an empty collection
        if store.count(target.name) or "last_success" in store.properties(target.name):
            return
        store.drop_alias(target.alias)
        store.drop(target.name)
        lock.forget()
        reporter.warning(
            f"Nothing was written, so the new collection {target.alias!r} was removed again. The next run "
            "creates it with its own options."
        )
