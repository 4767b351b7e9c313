"""Tenants of a collection: the rows with one value in the tenant field, which is the partition key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3index.errors import UsageError
from m3index.schema import CollectionSpec, tenant_value
from m3index.store.filter import Compare, Filter


@dataclass(frozen=True, slots=True)
class Tenant:
    """The tenant field and its value."""

    field: str
    value: str | int

    @property
    def where(self) -> Filter:
        return Compare(self.field, "==", self.value)

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether these field values, or this stored row, belong to the tenant."""
        return bool(fields[self.field] == self.value)


def tenant_of(spec: CollectionSpec, alias: str, value: str | None) -> Tenant | None:
    """The tenant of a run; None means all tenants. Raises UsageError if the collection has no tenant field,
    and for an empty value: an unset variable must not mean all tenants."""
    if value is None:
        return None
    if not value:
        raise UsageError("The tenant is empty. Name a tenant, or omit the option for all tenants.")
    if spec.tenant is None:
        raise UsageError(
            f"Collection {alias!r} has no tenant field, so --tenant {value} cannot apply. "
            f"Add one with `m3index reindex -c {alias} --tenant-field FIELD`."
        )
    return Tenant(spec.tenant, tenant_value(spec.tenant, spec.fields[spec.tenant], value))


def check_new_tenant(spec: CollectionSpec, alias: str, value: str | None) -> None:
    """Raises UsageError if a collection to be created with this specification cannot have this tenant."""
    if value and spec.tenant is None:
        raise UsageError(
            f"The new collection {alias!r} would have no tenant field, so --tenant {value} cannot apply. "
            "Name the field with --tenant-field FIELD."
        )
    tenant_of(spec, alias, value)
