"""One tenant of a collection: the rows whose tenant field (the partition key) has one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3index.errors import UsageError
from m3index.schema import CollectionSpec, tenant_value
from m3index.store.filter import Compare, Filter


@dataclass(frozen=True, slots=True)
class Tenant:
    field: str
    value: str | int

    @property
    def where(self) -> Filter:
        return Compare(self.field, "==", self.value)

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether these values, or this row as it is stored, are the tenant's."""
        return bool(fields[self.field] == self.value)


def tenant_of(spec: CollectionSpec, alias: str, value: str | None) -> Tenant | None:
    """The tenant that a run is for; None: all of them. Raises UsageError where there are no tenants, and
    for an empty one, which is a variable that was not set and must not come to mean all."""
    if value is None:
        return None
    if not value:
        raise UsageError("The tenant is empty. Name one, or leave it out for all of them.")
    if spec.tenant is None:
        raise UsageError(
            f"Collection {alias!r} has no tenant field, so that there is no --tenant {value}. "
            f"Give it one with `m3index reindex -c {alias} --tenant-field FIELD`."
        )
    return Tenant(spec.tenant, tenant_value(spec.tenant, spec.fields[spec.tenant], value))


def check_new(spec: CollectionSpec, alias: str, value: str | None) -> None:
    """Raises UsageError where a collection that is about to be made could not have this tenant."""
    if value and spec.tenant is None:
        raise UsageError(
            f"Collection {alias!r} would be made without a tenant field, so there is no --tenant {value}. "
            "Say which by --tenant-field FIELD."
        )
    tenant_of(spec, alias, value)
