"""Deletes documents by id or by filter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from m3index.errors import Exit, M3IndexError
from m3index.index.collection import Collection, find
from m3index.index.lock import hold
from m3index.index.options import DeleteOptions, Never, Stop
from m3index.index.seen import SeenKeys
from m3index.index.summary import Summary, Tally
from m3index.index.tenant import Tenant, tenant_of
from m3index.index.write import READ_ROWS, remove
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store
from m3index.store.filter import Compare, Expression, bind, combine
from m3index.types import document_key, key_of_passage, passage_key


def delete(
    store: Store,
    alias: str,
    options: DeleteOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Removes whole documents of one source: by id, or if any passage matches the filter.

    For a run of one tenant, the documents of other tenants count as absent. Absent ids are not an error:
    `scanned` counts the documents named, `deleted` those that existed. Raises CollectionNotFoundError,
    LockedError, UsageError, FilterError and StoreError; the error's `summary` says what was done before it.
    """
    reporter, stop = reporter or Silent(), stop or Never()
    with ExitStack() as stack:
        if options.dry_run:
            target = find(store, alias)
        else:
            lock = stack.enter_context(hold(store, alias, options.lock_seconds, "m3index delete"))
            target = lock.lease(lambda: find(store, alias), rewrites=[options.source])
        tally = Tally()
        tenant = tenant_of(target.spec, alias, options.tenant_name)

        def summary(count: int | None, *, count_ok: bool | None, exit_code: Exit | None = None) -> Summary:
            encoder = target.properties.get("encoder", "")
            return tally.summary(
                "delete",
                alias,
                encoder,
                target.generation,
                count,
                count_ok=count_ok,
                exit_code=exit_code,
                dry_run=options.dry_run,
            )

        try:
            before = store.count(target.name)
            keys = _keys(store, target, options, tenant)
            for part in _parts(keys, READ_ROWS):
                tally.scanned += len(part)
                documents = stored_ordinals(store, target.name, part, tenant)
                if not options.dry_run and documents:
                    remove(store, target.name, target.spec, documents)
                    tally.row_delta -= sum(map(len, documents.values()))
                tally.deleted += len(documents)
                reporter.progress(Progress(documents=tally.scanned))
                if stop():
                    tally.stopped = stop.exit
                    break
            if not options.dry_run:
                store.flush(target.name)
            count = store.count(target.name)
            return summary(count, count_ok=count == before + tally.row_delta)
        except M3IndexError as error:
            error.summary = summary(None, count_ok=None, exit_code=error.exit_code).to_json()
            raise


def stored_ordinals(
    store: Store, name: str, keys: Sequence[str], tenant: Tenant | None = None
) -> dict[str, list[int]]:
    """The stored ordinals of these documents by key, without the documents that are absent or belong to
    another tenant."""
    fields = ["passages", tenant.field] if tenant else ["passages"]
    first_rows = store.get(name, [passage_key(key, 0) for key in keys], fields)
    ids = [
        passage_key(key_of_passage(passage_id), ordinal)
        for passage_id, row in first_rows.items()
        if tenant is None or tenant.has(row)
        for ordinal in range(row["passages"])
    ]
    documents: dict[str, list[int]] = {}
    for start in range(0, len(ids), READ_ROWS):
        rows = store.get(name, ids[start : start + READ_ROWS], ["ordinal"])
        for passage_id, row in rows.items():
            documents.setdefault(key_of_passage(passage_id), []).append(row["ordinal"])
    return documents


def _keys(store: Store, target: Collection, options: DeleteOptions, tenant: Tenant | None) -> Iterator[str]:
    """The keys of the documents to remove. A filter is scanned to the end before anything is removed."""
    if options.ids is not None:
        return (document_key(options.source, doc_id) for doc_id in options.ids)
    where = combine(
        Compare("source", "==", options.source),
        None if options.where is None else bind(options.where, target.spec.fields),
        None if options.filter is None else Expression(options.filter),
        None if tenant is None else tenant.where,
    )
    keys = SeenKeys()
    for row in store.scan(target.name, where, ["ordinal"]):
        keys.add(bytes.fromhex(key_of_passage(row["passage_id"])))
    return (key.hex() for key in keys)


def _parts(keys: Iterator[str], size: int) -> Iterator[list[str]]:
    while part := list(dict.fromkeys(islice(keys, size))):
        yield part
