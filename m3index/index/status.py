"""Reads the state of a collection, for people and for monitoring."""

from __future__ import annotations

import json

from m3index.index.collection import find
from m3index.index.lock import current_lease
from m3index.index.state import Status
from m3index.store.base import Store
from m3index.store.filter import Compare


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
