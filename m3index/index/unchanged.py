"""Tells a night in which nothing has changed without comparing a single document.

After a successful `sync` the collection keeps a digest of the files of the corpus (`m3index.unchanged`), by
source and tenant. If the next one finds the same digest, and as many rows as then, there is nothing to do.
Whatever else writes to a source takes its record away before its first write, so that a record is true while
it is there. Every seventh run compares the documents all the same, because rows can be lost or changed in
ways that m3index does not see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from m3index.store.base import Store

PROPERTY = "unchanged"
COMPARED_EVERY = 7
"""Of that many runs over a corpus without a change, one compares the documents."""


@dataclass(frozen=True, slots=True)
class UnchangedCorpus:
    """The corpus as the last run left it in the collection.

    digest: of its files and of what else determines the rows. documents, rows: how many it has. total: the
    rows of the whole collection. runs: how many have ended early since the last that compared the documents.
    """

    digest: str
    documents: int
    rows: int
    total: int
    runs: int = 0

    @property
    def is_due(self) -> bool:
        """Whether the next run has to compare the documents."""
        return self.runs + 1 >= COMPARED_EVERY

    def once_more(self, total: int) -> UnchangedCorpus:
        return replace(self, total=total, runs=self.runs + 1)


def recorded(properties: Mapping[str, str], scope: str) -> UnchangedCorpus | None:
    """The record of a scope (`Planner.scope`), if there is one."""
    with suppress(ValueError, TypeError, KeyError):
        return UnchangedCorpus(**_records(properties)[scope])
    return None


def with_record(properties: Mapping[str, str], scope: str, record: UnchangedCorpus) -> dict[str, str]:
    """The property with this record, to be written."""
    return {PROPERTY: json.dumps(_records(properties) | {scope: asdict(record)})}


def forget(store: Store, name: str, scopes: Sequence[str] | None) -> None:
    """Takes away the records of these scopes, None for all, before something is written to them. A source
    covers its tenants, and is changed by what is written to one of them."""
    if scopes is not None and not scopes:
        return
    records = _records(store.properties(name))
    kept = {
        key: record
        for key, record in records.items()
        if scopes is not None and not any(_overlap(key, scope) for scope in scopes)
    }
    if kept != records:
        store.set_properties(name, {PROPERTY: json.dumps(kept)})


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}\n") or other.startswith(f"{one}\n")


def _records(properties: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    with suppress(ValueError):
        records = json.loads(properties.get(PROPERTY, "{}"))
        if isinstance(records, dict):
            return records
    return {}
