"""What a search asks: which legs of which collections, with which weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from m3index.encoder.base import Encoder
from m3index.errors import QueryError, UsageError
from m3index.search.fusion import check_weights
from m3index.search.options import SearchOptions
from m3index.store.base import QueryVector, Store, StoredRow
from m3index.types import EncodedBatch, Leg, SparseKind, join_title

EncoderSource: TypeAlias = Callable[[], Encoder]
"""Gives the encoder, loading it at the first call. A search that needs no vectors never calls it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A collection to search, by its concrete name.

    name: what its legs are called by where several collections are searched ("NAME:dense").
    fields: the fields that hits may be grouped by.
    """

    store: Store
    collection: str
    sparse: SparseKind
    encoder: EncoderSource
    name: str = ""
    fields: Collection[str] = ()

    def __str__(self) -> str:
        return f"Collection {self.name or self.collection}"


@dataclass(frozen=True, slots=True)
class PlannedLeg:
    """A leg by its name for people, where it is asked, and its weight, which is above 0."""

    name: str
    target: Target
    leg: Leg
    weight: float = 1.0


def plan_legs(targets: Sequence[Target], options: SearchOptions) -> tuple[list[PlannedLeg], tuple[str, ...]]:
    """The legs that a search asks (those of its mode, which the collections have, of weight above 0),
    and notes on what it does not. Raises UsageError where nothing is left, or was misnamed."""
    legs: list[PlannedLeg] = []
    notes: list[str] = []
    prefixes = [f"{target.name}:" for target in targets] if len(targets) > 1 else [""]
    for prefix, target in zip(prefixes, targets, strict=True):
        _check_group(target, options.group_by)
        if options.mode != "sparse":
            legs.append(PlannedLeg(f"{prefix}dense", target, Leg.DENSE))
        if options.mode != "dense":
            if target.sparse != "none":
                leg = Leg.LEXICAL if target.sparse == "lexical" else Leg.BM25
                legs.append(PlannedLeg(f"{prefix}sparse", target, leg))
            elif options.mode == "sparse":
                raise UsageError(f"{target} has no sparse vectors; search it with --mode dense.")
            else:
                notes.append(f"{target} has no sparse vectors: this is the dense leg alone.")
    if options.weights is not None:
        check_weights(options.weights, [p + name for p in prefixes for name in ("dense", "sparse")])
        legs = _weighed(legs, options.weights)
    return legs, tuple(notes)


def _check_group(target: Target, field: str | None) -> None:
    if field is not None and field not in target.fields:
        known = ", ".join(sorted(target.fields)) or "none"
        raise UsageError(f"{target} has no field {field!r} to group by; there are: {known}.")


def _weighed(legs: Sequence[PlannedLeg], weights: Mapping[str, float]) -> list[PlannedLeg]:
    weighed = [replace(leg, weight=weights[leg.name]) for leg in legs if weights[leg.name] > 0]
    if not weighed:
        names = " and ".join(leg.name for leg in legs)
        raise UsageError(f"The weights leave out {names}, which is all that this search would ask.")
    return weighed


def encode(texts: Sequence[str], legs: Sequence[PlannedLeg]) -> dict[str, Sequence[QueryVector]]:
    """The vectors that dense and lexical legs ask with, by leg. Each encoder reads the queries once for
    all its legs. Raises QueryError where it refuses them."""
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
    """What a stored passage asks a leg with."""
    if leg is Leg.BM25:
        return join_title(str(row["title"]), str(row["text"]))
    vector: QueryVector = row[leg.value]
    return vector
