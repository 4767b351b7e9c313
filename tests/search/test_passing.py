"""Phrases and exclusions in a search: what is found has them, whatever leg, page and kind of hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import Doc, collection

from m3index.errors import QueryError
from m3index.search import passing
from m3index.search.options import SearchOptions
from m3index.search.passing import MOST_CHECKED, WordFilter
from m3index.search.searcher import Searcher, SearchTarget
from m3index.search.words import parse
from m3index.types import Candidate, Query, passage_key

HIVE = [
    Doc("dance", ["honey bees dance in the hive", "worker bees rest"], fields={"lang": "en"}),
    Doc("wax", ["wax comes from bees", "honey is stored in wax"], fields={"lang": "en"}),
    Doc("jam", ["jam and honey are sweet"], title="Sweet things", fields={"lang": "de"}),
    Doc("titled", ["they live in a hive"], title="Honey bees", fields={"lang": "de"}),
    Doc("split", ["in the hive they make honey", "bees sleep in winter"], fields={"lang": "fr"}),
]


def options(**changes: Any) -> SearchOptions:
    return SearchOptions(**changes)


def hive(sparse: Any = "lexical", docs: Sequence[Doc] = HIVE, name: str = "docs__g1") -> SearchTarget:
    return collection(docs, sparse, name=name, fields={"lang": "str"})


def ids(result: Any) -> set[str]:
    return {hit.doc_id for hit in result.hits}


@pytest.mark.parametrize("sparse", ["lexical", "bm25", "none"])
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"honey bees" hive', {"dance", "titled"}),
        ("honey -bees", {"jam"}),
        ("hive -wax -jam", {"dance", "titled", "split"}),
        ('honey -"honey bees"', {"wax", "jam", "split"}),
        ('"in the hive" -"worker bees"', {"split"}),
        ('"honey bees" "in the hive"', {"dance"}),
        ('honey -"sweet things"', {"dance", "wax", "titled", "split"}),
        ('"no such phrase"', set()),
    ],
)
def test_hits_have_the_phrases_and_not_the_exclusions(sparse: Any, query: str, found: set[str]) -> None:
    searcher = Searcher(hive(sparse))
    result = searcher.search(query, options(explain=True))
    assert ids(result) == found
    shown = {key for ranking in result.legs.values() for key in ranking.ids}
    assert shown == {doc.key for doc in HIVE if doc.doc_id in found}


def test_a_hit_is_shown_by_a_passage_that_has_the_phrase() -> None:
    docs = [Doc("long", ["honey honey honey", "honey bees", "bees bees"]), Doc("other", ["honey"])]
    [hit] = Searcher(collection(docs)).search('"honey bees"').hits
    assert (hit.doc_id, hit.ordinal) == ("long", 1)


def test_passages_are_judged_by_themselves() -> None:
    searcher = Searcher(hive())
    result = searcher.search("honey -bees", options(passages=True, k=20))
    assert {(hit.doc_id, hit.ordinal) for hit in result.hits} == {("wax", 1), ("jam", 0), ("split", 0)}
    assert result.notes[0].startswith('Left out for "bees": 5 of 8 passages found.')


def test_a_group_is_shown_by_its_best_document_that_passes() -> None:
    searcher = Searcher(hive())
    result = searcher.search("honey -bees", options(group_by="lang"))
    assert [(hit.doc_id, hit.group) for hit in result.hits] == [("jam", "de")]


def test_a_filter_and_a_phrase_hold_together() -> None:
    searcher = Searcher(hive())
    assert ids(searcher.search('"honey bees"', options(where="lang=de"))) == {"titled"}


def test_what_is_encoded_has_no_marks_and_no_exclusions() -> None:
    searcher = Searcher(hive())
    plain = searcher.search("honey bees in the hive", options(k=1))
    asked = searcher.search('"honey bees" -queen in the -"worker bees do" hive', options(k=1))
    assert asked.searched == "honey bees in the hive" == plain.searched
    assert asked.query.text == '"honey bees" -queen in the -"worker bees do" hive'
    assert asked.hits[0].legs["dense"].score == plain.hits[0].legs["dense"].score


def test_the_notes_say_what_was_left_out() -> None:
    notes = Searcher(hive()).search('"honey bees" -"worker bees"').notes
    assert notes[:2] == (
        'With the phrase "honey bees": 2 of 5 documents found.',
        'Left out for "worker bees": 1 of 2 documents with the phrase.',
    )


def test_plain_syntax_drops_nothing() -> None:
    searcher = Searcher(hive())
    result = searcher.search('"honey bees" -hive', options(syntax="plain"))
    assert ids(result) == {doc.doc_id for doc in HIVE}
    assert result.searched == '"honey bees" -hive'


def test_many_queries_are_plain_unless_a_syntax_is_named() -> None:
    searcher = Searcher(hive())
    queries = [
        Query("1", '"honey bees"'),
        Query("2", "honey"),
        Query("3", "honey -bees"),
        Query("4", "-bees"),
    ]
    assert [len(result) for result in searcher.run(queries, options())] == [5, 5, 5, 5]
    results = list(searcher.run(queries, options(syntax="words")))
    assert [ids(result) for result in results] == [
        {"dance", "titled"},
        {doc.doc_id for doc in HIVE},
        {"jam"},
        set(),
    ]
    assert "only excludes words" in results[3].notes[0]
    with pytest.raises(QueryError, match="only excludes words"):
        searcher.search("-bees")


def test_several_collections_are_each_looked_through() -> None:
    one, two = hive(docs=HIVE[:2], name="a__g1"), hive(docs=HIVE[2:], name="b__g1")
    searcher = Searcher(replace(one, name="a"), replace(two, name="b"))
    result = searcher.search('"honey bees"')
    assert ids(result) == {"dance", "titled"}
    assert result.notes[0] == 'With the phrase "honey bees": 2 of 5 documents found.'


def test_a_reranker_reads_the_query_without_its_exclusions() -> None:
    read: list[str] = []

    class Reader:
        name = "reader"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            read.append(query)
            return [float(len(text)) for text in texts]

    result = Searcher(hive()).search('"honey bees" -queen', options(rerank=Reader()))
    assert read == ["honey bees"]
    assert ids(result) == {"dance", "titled"}


# -- how deep it looks

MANY = [Doc(f"d{n:04}", [f"honey {'bees' if n % 40 == 0 else 'jam'} number {n}"]) for n in range(1_500)]


def test_legs_go_deeper_for_a_phrase_up_to_a_limit() -> None:
    target = collection(MANY, "none")
    result = Searcher(target).search('"honey bees"', options(k=10, mode="dense"))
    assert len(result) == 10
    found = len(result.legs["dense"])
    assert 10 <= found <= len(MANY) / 40
    assert result.notes[0] == (f'With the phrase "honey bees": {found} of {MOST_CHECKED:,} documents found.')
    assert len(result.notes) == 1  # a full page needs no more
    short = Searcher(target).search('"honey bees"', options(k=50, mode="dense"))
    assert "only the first 1,000 passages of a leg, or as many as the depth" in short.notes[-1]
    whole = Searcher(target).search('"honey bees"', options(k=50, depth=2_000, mode="dense"))
    assert len(whole) == 38
    assert not any("only the first" in note for note in whole.notes)


def test_pages_are_parts_of_one_list() -> None:
    searcher = Searcher(collection(MANY))
    whole = searcher.search("honey -jam", options(k=20))
    pages = [searcher.search("honey -jam", options(k=5, offset=offset)) for offset in (0, 5, 10, 15)]
    assert [hit for page in pages for hit in page] == list(whole)


class Rows:
    """A store of documents with this many passages; only the last one has the word."""

    def __init__(self, passages: int) -> None:
        self.passages = passages
        self.read = 0

    def get(self, _name: str, keys: Sequence[str], _fields: Sequence[str]) -> dict[str, Any]:
        self.read += len(keys)
        last = f"-{self.passages - 1}"
        return {
            key: {
                "title": "",
                "breadcrumb": "",
                "text": "wasps" if key.endswith(last) else "x",
                "passages": self.passages,
            }
            for key in keys
        }


def test_exclusions_read_whole_documents_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "MOST_READ", 18)
    store: Any = Rows(10)
    words = WordFilter(store, "c", parse("x -wasps"), passages=False)
    first = [Candidate(passage_key(f"{n:032x}", 0), 1.0) for n in range(2)]
    again = [Candidate(passage_key(f"{n:032x}", 1), 1.0) for n in range(2)]
    assert words.keep([*first, *again]) == []
    assert not words.counts.is_unread
    candidates = [Candidate(passage_key(f"{n:032x}", 0), 1.0) for n in range(4)]
    kept = words.keep(candidates)
    assert kept == candidates[2:]  # too long to be read whole
    assert store.read == 4 + 2 * 9 + 2
    assert words.counts.is_unread
    words.keep(candidates)
    assert store.read == 4 + 2 * 9 + 2  # what is known is not read again


_WORDS = st.sampled_from(["honey", "bees", "wax", "hive"])
_PASSAGE = st.lists(_WORDS, min_size=1, max_size=4).map(" ".join)
_DOCS = st.lists(st.lists(_PASSAGE, min_size=1, max_size=3), min_size=1, max_size=5)
_RUN = st.lists(_WORDS, min_size=1, max_size=2).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(_DOCS, st.lists(_RUN, max_size=2), st.lists(_RUN, max_size=2))
def test_what_is_found_is_what_a_reader_would_keep(
    docs: list[list[str]], phrases: list[str], excluded: list[str]
) -> None:
    target = collection([Doc(str(n), passages) for n, passages in enumerate(docs)])
    query = " ".join(["honey", *(f'"{p}"' for p in phrases), *(f'-"{e}"' for e in excluded)])

    def has(passage: str, words: str) -> bool:
        return f" {words} " in f" {passage} "

    expected = {
        str(n)
        for n, passages in enumerate(docs)
        if any(all(has(passage, p) for p in phrases) for passage in passages)
        and not any(has(passage, e) for passage in passages for e in excluded)
    }
    assert ids(Searcher(target).search(query)) == expected
