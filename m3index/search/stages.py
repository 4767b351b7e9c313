"""Why a document is not among the first hits of a query: records only, which the client of a server needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Stage(StrEnum):
    """The stage of a search that keeps a document from the first hits, in the order of the search.

    message: what is said of it, with the values in braces.
    """

    FOUND = "found", "It is hit {rank}."
    ABSENT = "absent", "The collection {collection!r} has no document with this id."
    QUARANTINED = "quarantined", "Its row could not be indexed ({place}): {reason}."
    GENERATION = (
        "generation",
        "It is in generation {generation} of {collection!r} only, but generation {serving} serves.",
    )
    SOURCE = "source", "It is in the source {sources}, but the search covers the source {source!r} only."
    TENANT = "tenant", "It belongs to another tenant than {tenant!r}, to which the search is limited."
    INCOMPLETE = (
        "incomplete",
        "Only {stored:,} of its {passages:,} passages are stored: a run ended while it was being written.",
    )
    FILTERED = "filtered", "None of its passages meets {conditions}."
    PHRASE = "phrase", "None of its passages has {phrases}."
    EXCLUDED = "excluded", "It has {words}, which the query excludes."
    GROUPED = "grouped", "{other} ranks higher and has the same {field}, of which only the best is shown."
    LOST = (
        "lost",
        "The index of the {leg} leg does not return it, but its exact score gives it rank {rank:,} there.",
    )
    DEPTH = "depth", "It is beyond the depth of {depth:,}: {ranks}."
    FUSION = "fusion", "The fusion {fused}: {ranks}. {votes}"
    RERANKING = "reranking", "The fusion {fused}, but {reranked}."
    BOOSTS = "boosts", "{before}, but the boosts put it at rank {rank:,}. Its factors are {factors}."
    SORTING = "sorting", "It is found, but sorted by {order} it is at rank {rank:,}."
    DIVERSITY = (
        "diversity",
        "{before}, but it is too much like hits before it among the first {first:,}.",
    )
    OUTRANKED = "outranked", "No leg ranks it high enough: {ranks}. {votes}"

    message: str

    def __new__(cls, value: str, message: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member


@dataclass(frozen=True, slots=True)
class Standing:
    """A document in one leg.

    asked: whether the search asks the leg. weight: of the leg, 0 if it is not asked. depth: of the search.
    rank: from 1, greater than the depth if the leg had to be asked deeper; None if the leg does not find the
    document. score, last_score: of the document and of the last one within the depth. vote: what the leg
    adds to the fused score.
    """

    asked: bool
    weight: float
    depth: int
    rank: int | None = None
    score: float | None = None
    last_score: float | None = None
    vote: float | None = None

    def __str__(self) -> str:
        """The end of a sentence such as `the dense leg ranks it 3`."""
        if self.rank is None:
            return "does not find it"
        return f"ranks it {self.rank:,}"


@dataclass(frozen=True, slots=True)
class Repair:
    """A search that repairs the stage and nothing else, and that was really made.

    changes: the options that differ from the search. query: another text; None for the same. generation: of
    another generation; None for the same. rank: of the document then; None if it is not found even then.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    query: str | None = None
    generation: int | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """Why a document is not among the first `k` hits of a query, or that it is (`Stage.FOUND`).

    reason, remedy: sentences for people. rank: of the document in this search; None if it is not ranked.
    fused_rank: the one by the fusion alone. source: of the document; None if there is none. legs: the
    document in each leg. repair: None where no other search can help, as for a document that is absent.
    """

    query: str
    doc_id: str
    k: int
    stage: Stage
    reason: str
    remedy: str = ""
    source: str | None = None
    rank: int | None = None
    fused_rank: int | None = None
    legs: Mapping[str, Standing] = field(default_factory=dict)
    repair: Repair | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_found(self) -> bool:
        return self.stage is Stage.FOUND

    def to_json(self) -> dict[str, Any]:
        """A mapping for one line of JSON: `schemas/why.schema.json`."""
        return {
            "type": "why",
            "query": self.query,
            "doc_id": self.doc_id,
            "k": self.k,
            "stage": self.stage.value,
            "reason": self.reason,
            "remedy": self.remedy,
            "source": self.source,
            "rank": self.rank,
            "fused_rank": self.fused_rank,
            "legs": {name: _fields(standing) for name, standing in self.legs.items()},
            "repair": None if self.repair is None else _fields(self.repair),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`. Raises KeyError, TypeError or ValueError for another record."""
        repair = record["repair"]
        values = {name: value for name, value in record.items() if name != "type"}
        return cls(
            **{
                **values,
                "stage": Stage(record["stage"]),
                "legs": {name: Standing(**leg) for name, leg in record["legs"].items()},
                "repair": None if repair is None else Repair(**repair),
                "notes": tuple(record["notes"]),
            }
        )


def _fields(record: Standing | Repair) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
