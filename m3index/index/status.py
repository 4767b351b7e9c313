"""The state of a collection, for people and for monitoring."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from m3index.index.collection import find
from m3index.index.lock import current_lease
from m3index.store.base import Store
from m3index.store.filter import Compare


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a collection.

    documents, rows: strongly consistent counts. unfinished: documents left half-written, which the next run
    writes again. created, last_success, last_verified: ISO 8601 times in UTC; None if never. index_class:
    with its changes. rate: tokens/s of the last run of 4,096 tokens or more.
    """

    collection: str
    generation: int
    uuid: str
    encoder: str
    encoder_id: str
    space_id: str
    sparse: str
    analyzer: str | None
    schema_version: int
    dim: int
    fields: dict[str, str]
    tenant_field: str | None
    storage: str
    index_class: str
    passages: dict[str, int]
    documents: int
    unfinished: int
    rows: int
    created: str | None
    last_success: str | None
    last_verified: str | None
    rate: float | None
    locked_by: str | None

    def to_json(self) -> dict[str, Any]:
        return {"type": "status", **asdict(self)}


def status(store: Store, alias: str) -> Status:
    """Reads the state of a collection. Raises CollectionNotFoundError."""
    target = find(store, alias)
    properties, spec = target.properties, target.spec
    holder = current_lease(store, target.name)
    first = Compare("ordinal", "==", 0)
    return Status(
        collection=alias,
        generation=target.generation,
        uuid=properties.get("uuid", ""),
        encoder=properties.get("encoder", ""),
        encoder_id=properties.get("encoder_id", ""),
        space_id=properties.get("space_id", ""),
        sparse=spec.sparse,
        analyzer=spec.analyzer,
        schema_version=int(properties.get("schema_version", 0)),
        dim=spec.dim,
        fields=dict(spec.fields),
        tenant_field=spec.tenant,
        storage=spec.storage,
        index_class=str(spec.index),
        passages=json.loads(properties.get("settings", "{}")),
        documents=store.count(target.name, first),
        unfinished=store.count(target.name, Compare("doc_hash", "==", "")),
        rows=store.count(target.name),
        created=properties.get("created"),
        last_success=properties.get("last_success"),
        last_verified=properties.get("last_verified"),
        rate=float(properties["rate"]) if "rate" in properties else None,
        locked_by=str(holder) if holder else None,
    )
