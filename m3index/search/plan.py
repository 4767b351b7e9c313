"""Plans a search: the legs of each collection, with their filters and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from m3index.encoder.base import Encoder
from m3index.errors import QueryError, UsageError
from m3index.index.tenant import tenant_of
from m3index.schema import CollectionSpec
from m3index.search.fusion import check_weights
from m3index.search.options import BOOST_BY, SORT_BY, SearchOptions
from m3index.store.base import QueryVector, Store, StoredRow
from m3index.store.filter import BASE_FIELDS, Compare, Expression, Filter, bind, combine, parts_of
from m3index.types import EncodedBatch, Leg, joined

EncoderSource: TypeAlias = Callable[[], Encoder]
"""Returns the encoder, and loads it on the first call. A search that needs no vectors never calls it."""


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A collection to search, by its concrete name.

    spec: its columns, which determine its legs and the fields for filters and groups. name: the prefix of
    its legs if several collections are searched ("NAME:dense"). dense_trust: what fusion by evidence
    multiplies the votes of its dense leg by.
    """

    store: Store
    collection: str
    spec: CollectionSpec
    encoder: EncoderSource
    name: str = ""
    dense_trust: float = 1.0

    def __str__(self) -> str:
        return f"Collection {self.name or self.collection}"


@dataclass(frozen=True, slots=True)
class PlannedLeg:
    """A leg with its display name, collection, filter and weight (above 0)."""

    name: str
    target: SearchTarget
    leg: Leg
    where: Filter | None = None
    weight: float = 1.0


def plan_legs(
    targets: Sequence[SearchTarget], options: SearchOptions
) -> tuple[list[PlannedLeg], tuple[str, ...]]:
    """The legs of a search (those of its mode that the collections have, with a weight above 0), and notes
    on missing legs. Raises UsageError if no leg is left or a name is unknown, and FilterError."""
    legs: list[PlannedLeg] = []
    notes: list[str] = []
    prefixes = [f"{target.name}:" for target in targets] if len(targets) > 1 else [""]
    for prefix, target in zip(prefixes, targets, strict=True):
        _check_fields(target, targets[0], options.field_uses)
        where = filter_of(target, options)
        if options.mode != "sparse":
            legs.append(PlannedLeg(f"{prefix}dense", target, Leg.DENSE, where))
        if options.mode != "dense":
            if target.spec.sparse != "none":
                leg = Leg.LEXICAL if target.spec.sparse == "lexical" else Leg.BM25
                legs.append(PlannedLeg(f"{prefix}sparse", target, leg, where))
            elif options.mode == "sparse":
                raise UsageError(f"{target} has no sparse vectors. Search it with mode dense.")
            else:
                notes.append(f"{target} has no sparse vectors; only the dense leg was searched.")
    if (weights := options.leg_weights) is not None:
        check_weights(weights, [p + name for p in prefixes for name in ("dense", "sparse")])
        legs = _weighed(legs, weights)
    return legs, tuple(notes)


def filter_of(target: SearchTarget, options: SearchOptions) -> Filter | None:
    """The filter of a search: where, filter, source and tenant combined. None: all rows.

    Raises FilterError, and UsageError for a tenant if the collection has no tenant field.
    """
    owner = tenant_of(target.spec, target.name or target.collection, options.tenant_name)
    return combine(
        None if options.where is None else bind(options.where, target.spec.fields),
        None if options.filter is None else Expression(options.filter),
        None if options.source is None else Compare("source", "==", options.source),
        None if owner is None else owner.where,
    )


def conditions_of(target: SearchTarget, options: SearchOptions) -> dict[str, Filter]:
    """The conditions of `where` and `filter`, each by the text that users know. Raises FilterError."""
    parts = {} if options.where is None else parts_of(options.where)
    conditions = {text: bind(part, target.spec.fields) for text, part in parts.items()}
    return (
        conditions if options.filter is None else {**conditions, options.filter: Expression(options.filter)}
    )


def _check_fields(target: SearchTarget, first: SearchTarget, uses: Sequence[tuple[str, str]]) -> None:
    """Raises UsageError unless a collection declares the fields that a search uses, with the types that the
    first one declares."""
    for field, use in uses:
        fields = {**BASE_FIELDS, **target.spec.fields} if use == BOOST_BY else target.spec.fields
        if field not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise UsageError(f"{target} has no field {field!r} to {use}. Its fields are: {known}.")
        kind, firsts = fields[field], first.spec.fields.get(field, fields[field])
        if kind != firsts:
            raise UsageError(
                f"{first} declares {field!r} as {firsts}, {target} as {kind}. Search them apart to {use} it."
            )
        if use == SORT_BY and kind == "str[]":
            raise UsageError(
                f"{target} has lists in {field!r}, which have no order to {use}. Choose another field."
            )


def _weighed(legs: Sequence[PlannedLeg], weights: Mapping[str, float]) -> list[PlannedLeg]:
    weighed = [replace(leg, weight=weights[leg.name]) for leg in legs if weights[leg.name] > 0]
    if not weighed:
        names = " and ".join(leg.name for leg in legs)
        raise UsageError(f"The weights exclude all legs of this search ({names}). Give one a weight above 0.")
    return weighed


def encode(texts: Sequence[str], legs: Sequence[PlannedLeg]) -> dict[str, Sequence[QueryVector]]:
    """The query vectors of dense and lexical legs, by leg. Each encoder encodes the queries once for all
    its legs. Raises QueryError if it rejects them."""
    lexical = {leg.target.encoder for leg in legs if leg.leg is Leg.LEXICAL}
    encoded: dict[EncoderSource, EncodedBatch] = {}
    vectors: dict[str, Sequence[QueryVector]] = {}
    for leg in legs:
        source = leg.target.encoder
        if source not in encoded:
            encoder = source()
            try:
                encoded[source] = encoder.encode_queries(texts, lexical=source in lexical)
            except UsageError as error:
                raise QueryError(str(error)) from error
        batch = encoded[source]
        if leg.leg is Leg.DENSE:
            vectors[leg.name] = list(batch.dense)
        else:
            assert batch.lexical is not None
            vectors[leg.name] = [batch.lexical.row(i) for i in range(len(texts))]
    return vectors


def stored_vector(row: StoredRow, leg: Leg) -> QueryVector:
    """What a stored passage searches a leg with: its vector, or its text for BM25."""
    if leg is Leg.BM25:
        return joined(row)
    vector: QueryVector = row[leg.value]
    return vector
