from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import TIDES, collection

from m3index.search.legs import MAX_LIMIT, LegScope, collapse, deepen, group_id, retrieve, retrieve_any
from m3index.store.filter import Compare
from m3index.types import Candidate, Leg, passage_key


def key(n: int) -> str:
    return f"{n:032x}"


def candidates(documents: Sequence[int], groups: Sequence[str | None] | None = None) -> list[Candidate]:
    """One passage for each entry, of that document, with falling scores."""
    found = []
    for place, number in enumerate(documents):
        values = {"lang": groups[place] if groups is not None else None}
        found.append(Candidate(passage_key(key(number), place), 1 - place / 1e6, values))
    return found


class Leg_:  # noqa: N801
    """A leg with a fixed answer, which counts how it is asked."""

    def __init__(self, answers: Sequence[Sequence[Candidate]]) -> None:
        self.answers = answers
        self.asked: list[tuple[list[int], int]] = []

    def __call__(self, numbers: Sequence[int], limit: int) -> list[Sequence[Candidate]]:
        self.asked.append((list(numbers), limit))
        return [self.answers[i][:limit] for i in numbers]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 15))
def test_depth_counts_documents_and_each_has_its_best_passage(documents: list[int], depth: int) -> None:
    leg = Leg_([candidates(documents)])
    [ranking] = deepen(leg, 1, LegScope(depth), "IP")
    wanted = list(dict.fromkeys(documents))[:depth]
    assert list(ranking.ids) == [key(n) for n in wanted]
    assert list(ranking.passages) == [passage_key(key(n), documents.index(n)) for n in wanted]
    assert list(ranking.scores) == [1 - documents.index(n) / 1e6 for n in wanted]


def test_asks_no_deeper_than_it_must() -> None:
    leg = Leg_([candidates(range(50))])
    deepen(leg, 1, LegScope(10), "IP")
    assert leg.asked == [([0], 10)]


def test_asks_deeper_only_for_the_queries_that_are_short() -> None:
    crowded = [i // 8 for i in range(400)]
    leg = Leg_([candidates(range(50)), candidates(crowded), candidates([1, 2, 3])])
    rankings = deepen(leg, 3, LegScope(10), "IP")
    assert [len(r) for r in rankings] == [10, 10, 3]
    assert leg.asked[0] == ([0, 1, 2], 10)
    assert [numbers for numbers, _ in leg.asked[1:]] == [[1]] * (len(leg.asked) - 1)
    assert len(leg.asked) <= 3


def test_stops_at_the_limit_of_milvus() -> None:
    leg = Leg_([candidates([0] * 20_000 + [1])])
    [ranking] = deepen(leg, 1, LegScope(2), "IP")
    assert list(ranking.ids) == [key(0)]
    assert leg.asked[-1][1] == MAX_LIMIT


def test_passages_are_kept_apart() -> None:
    leg = Leg_([candidates([1, 1, 2, 1])])
    [ranking] = deepen(leg, 1, LegScope(3, passages=True), "IP")
    assert list(ranking.ids) == [passage_key(key(1), 0), passage_key(key(1), 1), passage_key(key(2), 2)]


def test_groups_collapse_and_a_document_without_a_value_stands_for_itself() -> None:
    found = candidates([1, 2, 3, 4, 4], ["de", "de", None, "fr", "fr"])
    ranking = collapse(found, LegScope(10, group_field="lang"))
    assert list(ranking.ids) == [group_id("de"), key(3), group_id("fr")]
    assert list(ranking.passages) == [found[0].passage_id, found[2].passage_id, found[3].passage_id]


def test_a_field_of_few_values_does_not_ask_for_ever() -> None:
    leg = Leg_([candidates(range(10_000), [("de", "fr")[i % 2] for i in range(10_000)])])
    [ranking] = deepen(leg, 1, LegScope(100, group_field="lang"), "IP")
    assert len(ranking) == 2
    assert len(leg.asked) == 2


def test_excluded_documents_are_made_up_for() -> None:
    leg = Leg_([candidates([7, 7, 7, 1, 2, 3, 4])])
    [ranking] = deepen(leg, 1, LegScope(3, exclude=frozenset([key(7)]), margin=3), "IP")
    assert list(ranking.ids) == [key(1), key(2), key(3)]
    assert leg.asked == [([0], 6)]


@pytest.mark.parametrize("leg", [Leg.DENSE, Leg.LEXICAL])
def test_against_the_store(leg: Leg) -> None:
    target = collection(TIDES)
    encoder = target.encoder()
    texts = ["the moon", "salt water", "ships"]
    batch = encoder.encode_queries(texts, lexical=True)
    assert batch.lexical is not None
    vectors = list(batch.dense) if leg is Leg.DENSE else [batch.lexical.row(i) for i in range(3)]
    rankings = retrieve(target.store, target.collection, leg, None, vectors, LegScope(2))
    for vector, ranking in zip(vectors, rankings, strict=True):
        [everything] = target.store.search(target.collection, leg, [vector], 100)
        best: dict[str, Candidate] = {}
        for c in everything:
            best.setdefault(c.key, c)
        expected = list(best.values())[:2]
        assert list(ranking.ids) == [c.key for c in expected]
        assert list(ranking.scores) == [c.score for c in expected]
        assert (ranking.leg, ranking.depth) == (leg, 2)


def test_bm25_is_marked_and_filters_reach_the_store() -> None:
    target = collection(TIDES, "bm25")
    ask = ["salt water"]
    [ranking] = retrieve(target.store, target.collection, Leg.BM25, None, ask, LegScope(10))
    assert (ranking.leg, ranking.depth) == (Leg.BM25, 10)
    assert {TIDES[i].key for i in (2, 3, 4)} == set(ranking.ids)
    soup = Compare("doc_id", "==", "soup")
    [ranking] = retrieve(target.store, target.collection, Leg.BM25, soup, ask, LegScope(10))
    assert list(ranking.ids) == [TIDES[3].key]


def test_several_vectors_make_one_ranking_by_the_nearest() -> None:
    target = collection(TIDES)
    rng = random.Random(5)
    vectors = [np.array([rng.gauss(0, 1) for _ in range(16)], np.float32) for _ in range(4)]
    ranking = retrieve_any(target.store, target.collection, Leg.DENSE, None, vectors, LegScope(5))
    best: dict[str, float] = {}
    for answer in target.store.search(target.collection, Leg.DENSE, vectors, 100):
        for c in answer:
            best[c.key] = max(best.get(c.key, -9.0), c.score)
    assert list(ranking.ids) == sorted(best, key=lambda k: -best[k])
    assert list(ranking.scores) == sorted(best.values(), reverse=True)


class Even:
    """Passes documents of even numbers, among the first `looked_at` candidates."""

    def __init__(self, looked_at: int) -> None:
        self.looked_at, self.is_cut = looked_at, False

    def most(self, depth: int) -> int:
        return max(self.looked_at, depth)

    def keep(self, found: Sequence[Candidate]) -> list[Candidate]:
        assert len(found) <= self.looked_at
        return [c for c in found if int(c.key, 16) % 2 == 0]

    def leave_rest(self) -> None:
        self.is_cut = True


def test_a_leg_that_drops_candidates_goes_deeper_up_to_its_limit() -> None:
    leg = Leg_([candidates(range(100)), candidates(range(100)), candidates(range(60))])
    first, last = Even(25), Even(1_000)
    rankings = deepen(leg, 3, LegScope(20), Leg.DENSE, [first, None, last])
    assert [len(ranking) for ranking in rankings] == [13, 20, 20]
    assert [first.is_cut, last.is_cut] == [True, False]
    assert leg.asked[1][0] == [0, 2]
    [ranking] = deepen(leg, 1, LegScope(50), Leg.DENSE, [Even(100)])
    assert [int(id_, 16) for id_ in ranking.ids] == list(range(0, 100, 2))
