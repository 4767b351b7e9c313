"""What judgements cover: the queries that are evaluated, and the judged documents that a collection lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from m3index.errors import UsageError
from m3index.evaluate.formats import Qrels
from m3index.store.base import Store
from m3index.store.filter import All, Compare, In
from m3index.types import DEFAULT_SOURCE, Query, document_key, passage_key

_BATCH = 500
_MANY = 5


@dataclass(frozen=True, slots=True)
class Coverage:
    """The queries of an evaluation: a mean is over these and no others.

    queries: their ids, sorted. not_asked: the number of judged queries that were not asked. not_judged: the
    number of queries without judgements that were asked. warnings: sentences on both.
    """

    queries: tuple[str, ...]
    not_asked: int
    not_judged: int
    warnings: tuple[str, ...]

    def select(self, queries: Iterable[Query]) -> list[Query]:
        """Those of the queries that are evaluated, in their order."""
        evaluated = set(self.queries)
        return [query for query in queries if query.query_id in evaluated]


def cover(asked: Collection[str], qrels: Qrels, name: str, *, complete: bool = False) -> Coverage:
    """The queries that were asked and have judgements. name: where the asked ones are from.

    complete: also evaluate the judged queries that were not asked; they count as 0. Raises UsageError if
    there is none, or none with a relevant document.
    """
    both = sorted({query_id for query_id in asked if query_id in qrels})
    if not both:
        raise UsageError(
            f"No query of {name} has judgements: it has {_some(asked)}, the judgements {_some(qrels)}. "
            "Are they for the same queries?"
        )
    queries = sorted(qrels) if complete else both
    if not any(level > 0 for query_id in queries for level in qrels[query_id].values()):
        raise UsageError(
            f"No query of {name} has a document that is judged relevant, so there is nothing to measure."
        )
    not_asked, not_judged = len(qrels) - len(both), len(asked) - len(both)
    warnings: list[str] = []
    if not_asked:
        outcome = "the mean counts them as 0" if complete else "the mean is without them"
        warnings.append(f"{name} lacks {not_asked:,} of the {len(qrels):,} judged queries; {outcome}.")
    if not_judged:
        warnings.append(
            f"The judgements lack {not_judged:,} of the {len(asked):,} queries of {name}; "
            "the mean is without them."
        )
    return Coverage(tuple(queries), not_asked, not_judged, tuple(warnings))


@dataclass(frozen=True, slots=True)
class Relevant:
    """The documents that are judged relevant for the evaluated queries.

    missing: those that the collection does not have. sources: where the others are.
    """

    count: int
    missing: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """A sentence on the missing documents, which no search can find."""
        if not self.missing:
            return []
        return [
            f"The collection lacks {len(self.missing):,} of the {self.count:,} documents that are judged "
            f"relevant, and no search can find them: {_some(self.missing)}."
        ]


def find_relevant(
    store: Store, collection: str, qrels: Qrels, queries: Iterable[str], source: str | None = None
) -> Relevant:
    """Looks the relevant documents up. source: where they must be; by default in any source.

    Raises UsageError if the collection has none of them: every measure would be 0.
    """
    wanted = sorted({id_ for query in queries for id_, level in qrels[query].items() if level > 0})
    first = source or DEFAULT_SOURCE
    keys = {id_: passage_key(document_key(first, id_), 0) for id_ in wanted}
    found = store.get(collection, list(keys.values()), ["doc_id"])
    sources = {first}
    missing = [id_ for id_, key in keys.items() if key not in found]
    if (
        missing
        and source is None
        and store.count(collection) > store.count(collection, Compare("source", "==", first))
    ):
        elsewhere = _by_id(store, collection, missing)
        sources |= set(elsewhere.values())
        missing = [id_ for id_ in missing if id_ not in elsewhere]
    if len(missing) == len(wanted):
        where = f" of source {source!r}" if source else ""
        raise UsageError(
            f"No document that is judged relevant ({len(wanted):,} in all) is in the collection{where}: "
            f"{_some(wanted)}. Are the judgements for this corpus?"
        )
    return Relevant(len(wanted), tuple(missing), tuple(sorted(sources)))


def _by_id(store: Store, collection: str, doc_ids: Sequence[str]) -> dict[str, str]:
    """The source of each of these documents that any source has. Slower than by key."""
    found: dict[str, str] = {}
    for start in range(0, len(doc_ids), _BATCH):
        batch = In("doc_id", doc_ids[start : start + _BATCH])
        for row in store.scan(collection, All((Compare("ordinal", "==", 0), batch)), ["doc_id", "source"]):
            found[str(row["doc_id"])] = str(row["source"])
    return found


def _some(ids: Collection[str]) -> str:
    """The first ids, and how many more there are."""
    shown = ", ".join(map(repr, sorted(ids)[:_MANY]))
    return f"{shown} and {len(ids) - _MANY:,} more" if len(ids) > _MANY else shown or "none"
