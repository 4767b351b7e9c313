"""A collection by the name that a user gives: an alias over its generations, and what it was made with."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from m3index import schema
from m3index.corpus.windows import PassageSettings, PassageSize
from m3index.encoder.base import Encoder
from m3index.errors import CollectionNotFoundError, MismatchError, MissingHeadError, UsageError
from m3index.index.tenant import check_new
from m3index.schema import CollectionSpec, IndexChoice, with_tenant
from m3index.store.base import Store
from m3index.types import EncoderInfo, FieldType, SparseKind, Storage

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True, slots=True)
class Target:
    """A concrete collection to work on. `properties` are as they were when it was opened."""

    alias: str
    name: str
    spec: CollectionSpec
    properties: Mapping[str, str]

    @property
    def generation(self) -> int:
        return generation_number(self.alias, self.name) or 0

    @property
    def passages(self) -> PassageSize:
        """How the last run cut documents."""
        return PassageSize(**json.loads(self.properties["settings"]))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run asks of its collection; None: as the collection has it, or the default for a new one.
    tenant_field: `org`, `org:int`; it need not be among the fields."""

    sparse: SparseKind | None = None
    fields: Mapping[str, FieldType] | None = None
    analyzer: str | None = None
    passages: PassageSettings | None = None
    tenant_field: str | None = None
    storage: Storage | None = None
    index: IndexChoice | None = None


def now() -> str:
    """The time as properties and summaries give it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_name(alias: str) -> None:
    """Raises UsageError for a name that no collection can have."""
    if not _NAME.fullmatch(alias):
        raise UsageError(f"A collection's name is made of letters, digits and _: {alias!r} is not.")


def generation_name(alias: str, number: int) -> str:
    return f"{alias}__g{number}"


def generation_number(alias: str, name: str) -> int | None:
    """The number of a generation of `alias`, None for any other collection."""
    found = re.fullmatch(re.escape(alias) + r"__g([1-9][0-9]*)", name)
    return int(found[1]) if found else None


def generation_names(store: Store, alias: str) -> list[str]:
    """The alias's concrete collections, oldest first."""
    numbers = [n for name in store.collections() if (n := generation_number(alias, name)) is not None]
    return [generation_name(alias, n) for n in sorted(numbers)]


def settings_json(passages: PassageSize) -> str:
    return json.dumps(asdict(passages), sort_keys=True)


def load_target(store: Store, alias: str, name: str) -> Target:
    return Target(alias, name, store.spec(name), store.properties(name))


def find(store: Store, alias: str) -> Target:
    """The collection behind `alias`. Raises CollectionNotFoundError."""
    name = store.resolve(alias)
    if name is None:
        raise CollectionNotFoundError(
            f"There is no collection {alias!r} at {store.uri}. Make it with `m3index ingest -c {alias} ...`."
        )
    return load_target(store, alias, name)


def open_collection(
    store: Store, alias: str, encoder: Encoder, wanted: Wanted, tenant: str | None = None
) -> Target:
    """The collection behind `alias`, made as its first generation where there is none. tenant: whom the
    run is for, so that a collection is not made for one that it cannot have.

    A run that died between making generation 1 and its alias is healed here. Raises MismatchError
    where the collection is of another encoder space, schema version, sparse kind or set of declared
    fields than this run wants; MissingHeadError where the encoder cannot give what is wanted.
    """
    name = store.resolve(alias)
    if name is not None:
        target = load_target(store, alias, name)
        check(target, encoder.info, wanted)
        return target
    existing = generation_names(store, alias)
    if len(existing) > 1:
        raise UsageError(
            f"There are {len(existing)} generations of {alias!r} but no alias. "
            f"Choose one with `m3index rollback -c {alias} --to N`."
        )
    if not existing:
        check_new(make_spec(encoder.info, wanted), alias, tenant)
        return create_generation(store, alias, 1, encoder, wanted, point=True)
    target = load_target(store, alias, existing[0])
    check(target, encoder.info, wanted)
    store.point(alias, target.name)
    return target


def create_generation(
    store: Store, alias: str, number: int, encoder: Encoder, wanted: Wanted, *, point: bool
) -> Target:
    """Makes an empty generation; `point`: and moves the alias to it. Raises UsageError for a bad name."""
    passages = (wanted.passages or PassageSettings()).resolve(encoder.tokenizer)
    return new_generation(store, alias, number, encoder.info, passages, wanted, point=point)


def new_generation(
    store: Store,
    alias: str,
    number: int,
    info: EncoderInfo,
    passages: PassageSize,
    wanted: Wanted,
    *,
    point: bool,
) -> Target:
    """`create_generation` where no encoder is at hand, only what is known of it."""
    check_name(alias)
    spec = make_spec(info, wanted)
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
    return load_target(store, alias, name)


def make_spec(info: EncoderInfo, wanted: Wanted) -> CollectionSpec:
    """What a new collection for this encoder is made from."""
    sparse = wanted.sparse or ("lexical" if info.lexical else "bm25")
    _check_head(info, sparse)
    if wanted.analyzer and sparse != "bm25":
        raise UsageError(f"--analyzer is for BM25, and this collection has sparse vectors of kind {sparse}.")
    fields, tenant = with_tenant(wanted.fields or {}, wanted.tenant_field)
    return CollectionSpec(
        info.dim,
        sparse,
        fields=fields,
        analyzer=wanted.analyzer,
        tenant=tenant,
        storage=wanted.storage or "fp32",
        index=wanted.index or IndexChoice(),
    )


def check(target: Target, info: EncoderInfo, wanted: Wanted) -> None:
    """Raises MismatchError where this run must not write into the collection."""
    properties, alias = target.properties, target.alias
    remedy = f"Build a new generation with `m3index reindex -c {alias}`."
    version = properties.get("schema_version", "")
    if version != str(schema.version()):
        raise MismatchError(
            f"Collection {alias!r} has schema version {version or 'unknown'}, this m3index writes "
            f"version {schema.version()}. {remedy}"
        )
    if properties.get("space_id") != info.space_id or target.spec.dim != info.dim:
        raise MismatchError(
            f"Collection {alias!r} holds vectors of {properties.get('encoder') or 'another encoder'} "
            f"({target.spec.dim}-d); those of {info.name} ({info.dim}-d) cannot be compared with them. "
            f"{remedy}"
        )
    if wanted.sparse is not None and wanted.sparse != target.spec.sparse:
        raise MismatchError(
            f"Collection {alias!r} has sparse vectors of kind {target.spec.sparse}, "
            f"not {wanted.sparse}. {remedy}"
        )
    if wanted.analyzer is not None and wanted.analyzer != target.spec.analyzer:
        raise MismatchError(
            f"Collection {alias!r} has the analyzer {target.spec.analyzer or 'none'}, "
            f"not {wanted.analyzer}. {remedy}"
        )
    if wanted.tenant_field is not None:
        _check_tenant(target, wanted.tenant_field)
    if wanted.storage is not None and wanted.storage != target.spec.storage:
        raise MismatchError(
            f"Collection {alias!r} keeps dense vectors as {target.spec.storage}, not {wanted.storage}. "
            f"Build a new generation with `m3index reindex -c {alias} --storage {wanted.storage}`."
        )
    if wanted.index is not None and wanted.index != target.spec.index:
        raise MismatchError(
            f"Collection {alias!r} has the indexes of class {target.spec.index}; asked for were those of "
            f"{wanted.index}. Build a new generation with "
            f"`m3index reindex -c {alias} {wanted.index.options}`; nothing is encoded again."
        )
    if not (wanted.fields or {}).items() <= target.spec.fields.items():
        declared = ", ".join(f"{name}:{kind}" for name, kind in target.spec.fields.items()) or "none"
        raise MismatchError(
            f"The fields declared in collection {alias!r} are others ({declared}). "
            f"Change them with `m3index reindex -c {alias} --field ...`; nothing is encoded again."
        )
    _check_head(info, target.spec.sparse)


def _check_tenant(target: Target, declaration: str) -> None:
    """A collection gets its tenant field when it is made, and keeps it."""
    remedy = (
        f"Build a new generation with `m3index reindex -c {target.alias} --tenant-field {declaration}`; "
        "nothing is encoded again."
    )
    name = declaration.partition(":")[0].strip()
    if target.spec.tenant is None:
        raise MismatchError(f"Collection {target.alias!r} was made without a tenant field. {remedy}")
    if target.spec.tenant != name:
        raise MismatchError(
            f"The tenant field of collection {target.alias!r} is {target.spec.tenant!r}, not {name!r}. "
            f"{remedy}"
        )
    with_tenant({name: target.spec.fields[name]}, declaration)  # refuses another type


def _check_head(info: EncoderInfo, sparse: SparseKind) -> None:
    if sparse == "lexical" and not info.lexical:
        raise MissingHeadError(
            f"{info.name} has no lexical head. Use --sparse bm25, or a model that has one."
        )
