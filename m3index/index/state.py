"""The state of a collection, as a record: what `status` says, here and behind a server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
