"""Collections by the name the user gives: an alias over generations, and the properties of each."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from m3index import schema
from m3index.corpus.windows import PassageSettings, PassageSize
from m3index.encoder.base import Encoder
from m3index.errors import CollectionNotFoundError, MismatchError, MissingHeadError, UsageError
from m3index.index.options import CollectionLayout, Columns
from m3index.index.tenant import check_new_tenant
from m3index.schema import CollectionSpec, IndexChoice, generation_name, split_generation, with_tenant
from m3index.store.base import Store
from m3index.types import EncoderInfo, SparseKind
from m3index.wording import many

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True, slots=True)
class Collection:
    """A concrete collection. properties: as read when it was opened. is_new: opening it has created it."""

    alias: str
    name: str
    spec: CollectionSpec
    properties: Mapping[str, str]
    is_new: bool = False

    @property
    def generation(self) -> int:
        return generation_number(self.alias, self.name) or 0

    @property
    def passages(self) -> PassageSize:
        """How the last run split documents."""
        return PassageSize(**json.loads(self.properties["settings"]))

    def has_space_of(self, info: EncoderInfo) -> bool:
        """Whether its vectors can be compared with those of this encoder."""
        return self.properties.get("space_id") == info.space_id


def now() -> str:
    """The current time as stored in properties: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_name(alias: str) -> None:
    """Raises UsageError for an invalid collection name."""
    if not _NAME.fullmatch(alias):
        raise UsageError(
            f"{alias!r} is not a valid collection name. Use up to 200 letters, digits and _; "
            "the first character is not a digit."
        )


def generation_number(alias: str, name: str) -> int | None:
    """The number of a generation of `alias`; None for any other collection."""
    split = split_generation(name)
    return split[1] if split and split[0] == alias else None


def generation_names(store: Store, alias: str) -> list[str]:
    """The concrete collections of an alias, oldest first."""
    numbers = [n for name in store.collections() if (n := generation_number(alias, name)) is not None]
    return [generation_name(alias, n) for n in sorted(numbers)]


def collection_names(store: Store) -> list[str]:
    """The collections of a store by the names users give them, sorted."""
    return sorted({split[0] for name in store.collections() if (split := split_generation(name))})


def settings_json(passages: PassageSize) -> str:
    return json.dumps(asdict(passages), sort_keys=True)


def load_target(store: Store, alias: str, name: str) -> Collection:
    properties = store.properties(name)  # before the specification, which a store may remember
    return Collection(alias, name, store.spec(name), properties)


def find(store: Store, alias: str) -> Collection:
    """The collection behind `alias`. Raises CollectionNotFoundError."""
    name = store.resolve(alias)
    if name is None:
        others = ", ".join(collection_names(store)) or "none"
        raise CollectionNotFoundError(
            f"There is no collection {alias!r} at {store.uri} (existing collections: {others}). "
            f"Create it with `m3index ingest -c {alias} ...`."
        )
    return load_target(store, alias, name)


def open_collection(
    store: Store, alias: str, encoder: Encoder, layout: CollectionLayout, tenant: str | None = None
) -> Collection:
    """The collection behind `alias`; creates generation 1 if there is none. tenant: the tenant of the run,
    checked before a collection is created.

    Repairs the alias if a run died between creating generation 1 and its alias. Raises MismatchError if the
    collection has a different encoder space, schema version or layout than the run, MissingHeadError if the
    encoder lacks the head that the collection needs, UsageError for an invalid name or tenant.
    """
    name = store.resolve(alias)
    if name is not None:
        target = load_target(store, alias, name)
        check_fits(target, encoder.info, layout)
        return target
    existing = generation_names(store, alias)
    if len(existing) > 1:
        raise UsageError(
            f"Collection {alias!r} has {many(len(existing), 'generation')} but no alias. "
            f"Choose a generation with `m3index generations rollback -c {alias} --to N`."
        )
    if not existing:
        check_new_tenant(make_spec(encoder.info, layout), alias, tenant)
        return create_generation(store, alias, 1, encoder, layout, point=True)
    target = load_target(store, alias, existing[0])
    check_fits(target, encoder.info, layout)
    store.point(alias, target.name)
    return target


def create_generation(
    store: Store, alias: str, number: int, encoder: Encoder, layout: CollectionLayout, *, point: bool
) -> Collection:
    """Creates an empty generation. point: also move the alias to it. Raises UsageError for an invalid name,
    MissingHeadError."""
    passages = (layout.splitting or PassageSettings()).resolve(encoder.tokenizer)
    return new_generation(store, alias, number, encoder.info, passages, layout, point=point)


def new_generation(
    store: Store,
    alias: str,
    number: int,
    info: EncoderInfo,
    passages: PassageSize,
    layout: Columns,
    *,
    point: bool,
) -> Collection:
    """Like `create_generation`, for an encoder of which only `EncoderInfo` is known."""
    check_name(alias)
    spec = make_spec(info, layout)
    name = generation_name(alias, number)
    properties = {
        "uuid": uuid.uuid4().hex,
        "schema_version": str(schema.version()),
        "space_id": info.space_id,
        "encoder_id": info.encoder_id,
        "encoder": info.name,
        "sparse": spec.sparse,
        "analyzer": spec.analyzer or "",
        "fields": json.dumps(dict(spec.fields), sort_keys=True),
        "settings": settings_json(passages),
        "created": now(),
        "state": "live" if point else "building",
    }
    store.create(name, spec, properties)
    if point:
        store.point(alias, name)
    return replace(load_target(store, alias, name), is_new=True)


def make_spec(info: EncoderInfo, layout: Columns) -> CollectionSpec:
    """The specification of a new collection. Raises UsageError, MissingHeadError."""
    sparse = layout.sparse or ("lexical" if info.lexical else "bm25")
    _check_head(info, sparse, "Use --sparse bm25 or a model with a lexical head.")
    if layout.analyzer and sparse != "bm25":
        raise UsageError(f"--analyzer applies only to --sparse bm25, but this collection uses {sparse}.")
    fields, tenant = with_tenant(layout.declared or {}, layout.tenant_field)
    return CollectionSpec(
        info.dim,
        sparse,
        fields=fields,
        analyzer=layout.analyzer,
        tenant=tenant,
        storage=layout.storage or "fp32",
        index=layout.index_choice or IndexChoice(),
    )


def check_fits(target: Collection, info: EncoderInfo, layout: Columns) -> None:
    """Raises MismatchError or MissingHeadError if a run with this encoder and layout must not write here."""
    properties, alias = target.properties, target.alias
    remedy = f"Build a new generation with `m3index reindex -c {alias}`."
    version = properties.get("schema_version", "")
    if version != str(schema.version()):
        raise MismatchError(
            f"Collection {alias!r} has schema version {version or 'unknown'}, but this m3index writes "
            f"version {schema.version()}. {remedy}"
        )
    if not target.has_space_of(info) or target.spec.dim != info.dim:
        raise MismatchError(
            f"Collection {alias!r} holds vectors of {properties.get('encoder') or 'another encoder'} "
            f"({target.spec.dim} dimensions), which cannot be compared with those of {info.name} "
            f"({info.dim} dimensions). {remedy}"
        )
    if layout.sparse is not None and layout.sparse != target.spec.sparse:
        raise MismatchError(
            f"The sparse vectors of collection {alias!r} are {target.spec.sparse}, "
            f"not {layout.sparse}. {remedy}"
        )
    if layout.analyzer is not None and layout.analyzer != target.spec.analyzer:
        raise MismatchError(
            f"The analyzer of collection {alias!r} is {target.spec.analyzer or 'none'}, "
            f"not {layout.analyzer}. {remedy}"
        )
    if layout.tenant_field is not None:
        _check_tenant(target, layout.tenant_field)
    if layout.storage is not None and layout.storage != target.spec.storage:
        raise MismatchError(
            f"Collection {alias!r} stores dense vectors as {target.spec.storage}, not {layout.storage}. "
            f"Build a new generation with `m3index reindex -c {alias} --storage {layout.storage}`."
        )
    index = layout.index_choice
    if index is not None and index != target.spec.index:
        raise MismatchError(
            f"The index class of collection {alias!r} is {target.spec.index}, not {index}. "
            f"Build a new generation with `m3index reindex -c {alias} {index.options}`; "
            "nothing is encoded again."
        )
    if not (layout.declared or {}).items() <= target.spec.fields.items():
        declared = ", ".join(f"{name}:{kind}" for name, kind in target.spec.fields.items()) or "none"
        raise MismatchError(
            f"Collection {alias!r} declares other fields ({declared}). "
            f"Change them with `m3index reindex -c {alias} --field ...`; nothing is encoded again."
        )
    _check_head(info, target.spec.sparse, f"The collection {alias!r} needs one. {remedy}")


def _check_tenant(target: Collection, declaration: str) -> None:
    """The tenant field is set when a collection is created and cannot change."""
    remedy = (
        f"Build a new generation with `m3index reindex -c {target.alias} --tenant-field {declaration}`; "
        "nothing is encoded again."
    )
    name = declaration.partition(":")[0].strip()
    if target.spec.tenant is None:
        raise MismatchError(f"Collection {target.alias!r} has no tenant field. {remedy}")
    if target.spec.tenant != name:
        raise MismatchError(
            f"The tenant field of collection {target.alias!r} is {target.spec.tenant!r}, not {name!r}. "
            f"{remedy}"
        )
    with_tenant({name: target.spec.fields[name]}, declaration)  # rejects another type


def _check_head(info: EncoderInfo, sparse: SparseKind, remedy: str) -> None:
    if sparse == "lexical" and not info.lexical:
        raise MissingHeadError(f"{info.name} has no lexical head. {remedy}")
