"""A query as it is asked: what of it is searched for, and what is looked for in the texts that are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from m3index.search import passing
from m3index.search.options import SearchOptions
from m3index.search.passing import WordFilter
from m3index.search.plan import PlannedLeg
from m3index.search.synonyms import Expansion
from m3index.search.words import ParsedQuery, parse
from m3index.types import Query


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A parsed query. filters: by leg, what its candidates must pass; empty without such conditions."""

    query: Query
    words: ParsedQuery
    filters: Mapping[str, WordFilter] = field(default_factory=dict)

    @classmethod
    def of(cls, query: Query, plan: Sequence[PlannedLeg], options: SearchOptions) -> AskedQuery:
        """The query in the syntax of the options. Raises QueryError."""
        words = parse(query.text, options.query_syntax)
        if not words.has_conditions:
            return cls(query, words)
        filters: dict[int, WordFilter] = {}
        for leg in plan:
            target = leg.target
            if id(target) not in filters:
                filters[id(target)] = WordFilter(
                    target.store, target.collection, words, passages=options.passages
                )
        return cls(query, words, {leg.name: filters[id(leg.target)] for leg in plan})

    @property
    def text(self) -> str:
        """What the encoder and a reranker read."""
        return self.words.text

    def notes(self, expansions: Sequence[Expansion], options: SearchOptions, found: int) -> list[str]:
        """What synonyms, phrases and exclusions did. found: the number of fused documents."""
        said = list(dict.fromkeys(note for expansion in expansions for note in expansion.notes))
        if self.filters:
            distinct = {id(f): f for f in self.filters.values()}
            is_short = found < options.last_rank
            said += passing.notes(
                self.words, [*distinct.values()], passages=options.passages, is_short=is_short
            )
        return said
