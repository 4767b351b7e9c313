"""Documents removed because somebody says so: by id, or by a filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from m3index.errors import Exit, M3IndexError
from m3index.index.collection import Target, find
from m3index.index.lock import hold
from m3index.index.seen import SeenKeys
from m3index.index.settings import Never, Stop
from m3index.index.summary import Summary, Tally
from m3index.index.tenant import Tenant, tenant_of
from m3index.index.write import READ_ROWS, remove
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.store.filter import Compare, Filter, combine
from m3index.types import DEFAULT_SOURCE, document_key, key_of_passage, passage_key


def delete(
    store: Store,
    alias: str,
    *,
    ids: Iterable[str] | None = None,
    where: Filter | None = None,
    source: str = DEFAULT_SOURCE,
    tenant: str | None = None,
    dry_run: bool = False,
    retry_lock: float = 0.0,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Removes whole documents of one source: those with these ids, or with a passage that matches.

    tenant: whose documents alone may go; the ids of others are as if they were not there.
    Ids that are not there are no error: `scanned` counts what was asked for, `deleted` what was there.
    Raises CollectionNotFoundError, LockedError, FilterError, and the store's errors with what was done
    so far in their `summary`.
    """
    assert (ids is None) != (where is None), "ids, or a filter"
    reporter, stop = reporter or Silent(), stop or Never()
    with ExitStack() as stack:
        if dry_run:
            target = find(store, alias)
        else:
            lock = stack.enter_context(hold(store, alias, retry_lock, "m3index delete"))
            target = lock.lease(lambda: find(store, alias))
        tally = Tally()
        owner = tenant_of(target.spec, alias, tenant)

        def summary(count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
            encoder = target.properties.get("encoder", "")
            return tally.summary(
                "delete", alias, encoder, target.generation, count, count_ok=count_ok, exit_code=exit_code
            )

        try:
            before = store.count(target.name)
            keys = (
                _keys_of(ids, source)
                if ids is not None
                else _keys_where(store, target, combine(where, owner.where if owner else None), source)
            )
            for part in _parts(keys, READ_ROWS):
                tally.scanned += len(part)
                documents = stored_ordinals(store, target.name, part, owner)
                if not dry_run and documents:
                    remove(store, target.name, target.spec, documents)
                    tally.row_delta -= sum(map(len, documents.values()))
                tally.deleted += len(documents)
                reporter.progress(Progress(documents=tally.scanned))
                if stop():
                    tally.stopped = stop.exit
                    break
            if not dry_run:
                store.flush(target.name)
            count = store.count(target.name)
            return summary(count, count_ok=count == before + tally.row_delta)
        except M3IndexError as error:
            error.summary = summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise


def stored_ordinals(
    store: Store, name: str, keys: Sequence[str], tenant: Tenant | None = None
) -> dict[str, list[int]]:
    """Which ordinals the collection has of these documents (of this tenant); those that it does not have
    are left out."""
    told = ["passages", tenant.field] if tenant else ["passages"]
    found = store.get(name, [passage_key(key, 0) for key in keys], told)
    first = {i: row for i, row in found.items() if tenant is None or tenant.has(row)}
    ids = [
        passage_key(key_of_passage(passage_id), ordinal)
        for passage_id, row in first.items()
        for ordinal in range(row["passages"])
    ]
    documents: dict[str, list[int]] = {}
    for start in range(0, len(ids), READ_ROWS):
        rows = store.get(name, ids[start : start + READ_ROWS], ["ordinal"])
        for passage_id, row in rows.items():
            documents.setdefault(key_of_passage(passage_id), []).append(row["ordinal"])
    return documents


def _keys_of(ids: Iterable[str], source: str) -> Iterator[str]:
    return (document_key(source, doc_id) for doc_id in ids)


def _keys_where(store: Store, target: Target, where: Filter | None, source: str) -> Iterator[str]:
    """The documents that match; all found before the first is removed from under the scan."""
    keys = SeenKeys()
    for row in store.scan(target.name, combine(Compare("source", "==", source), where), ["ordinal"]):
        keys.add(bytes.fromhex(key_of_passage(row["passage_id"])))
    return (key.hex() for key in keys)


def _parts(keys: Iterator[str], size: int) -> Iterator[list[str]]:
    while part := list(dict.fromkeys(islice(keys, size))):
        yield part
