from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.search.snippet import ELLIPSIS, snippet
from m3index.search.terms import terms


def marked(text: str, query: str, width: int = 240) -> list[str]:
    found = snippet(text, query, width)
    return [found.text[a:b] for a, b in found.spans]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("The Sea is salt water.", "sea WATER", ["Sea", "water"]),
        ("Die STRASSE am Meer", "straße", ["STRASSE"]),
        ("ﬁsh in the sea", "fish", ["ﬁsh"]),
        ("月亮引起潮汐的變化", "潮汐", ["潮汐"]),
        ("月が海を引く。海の水は塩辛い。", "海の水", ["海の水"]),
        ("ดวงจันทร์ทำให้เกิดน้ำขึ้นน้ำลง", "น้ำขึ้นน้ำลง", ["น้ำขึ้นน้ำลง"]),
        ("바닷물은 짜다", "바닷물", ["바닷물"]),
        ("समुद्र का पानी खारा होता है", "पानी समुद्र", ["समुद्र", "पानी"]),
        ("مياه البحر مالحة", "البحر", ["البحر"]),
        (
            "How the bees of the hive find the flowers",
            "how do the bees find flowers",
            ["bees", "find", "flowers"],
        ),
        (
            "Wie finden die Bienen zu den Blüten?",
            "Wie finden die Bienen die Blüten",
            ["finden", "Bienen", "Blüten"],
        ),
        ("समुद्र का पानी", "समुद्र का", ["समुद्र"]),
        ("To be or not to be", "to be or not to be", ["To", "be", "or", "not", "to", "be"]),
        ("salt", "pepper", []),
        ("", "salt", []),
        ("salt", "", []),
    ],
)
def test_highlights_in_many_scripts(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected


def test_the_window_is_where_the_terms_are() -> None:
    text = "nothing of note here " * 40 + "the leek soup needs salt " + "and so on and so on " * 40
    found = snippet(text, "leek soup salt", 80)
    assert "leek soup needs salt" in found.text
    assert found.text.startswith(ELLIPSIS)
    assert found.text.endswith(ELLIPSIS)
    assert [found.text[a:b] for a, b in found.spans] == ["leek", "soup", "salt"]


def test_a_rare_term_draws_the_window_more_than_common_ones() -> None:
    text = "the of the of the of " * 30 + "halibut swims " + "the of the of " * 30
    assert "halibut" in snippet(text, "the halibut of", 60).text


def test_without_a_match_it_is_the_beginning() -> None:
    found = snippet("one two three four five six seven", "eight", 15)
    assert found.text == f"one two three{ELLIPSIS}"
    assert found.spans == ()


def test_it_is_one_line() -> None:
    assert snippet("one\n two\t\tthree ", "two").text == "one two three"


def test_a_long_text_is_quick_and_short() -> None:
    found = snippet("salt water " * 6000, "salt", 100)
    assert len(found.text) <= 102


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=40), st.integers(20, 120))
def test_laws(text: str, query: str, width: int) -> None:
    found = snippet(text, query, width)
    line = " ".join(text.split())
    assert len(found.text) <= width + 2
    assert found.text.strip(ELLIPSIS) in line
    wanted = {t.text for t in terms(query)}
    end = 0
    for a, b in found.spans:
        assert end <= a < b <= len(found.text)
        end = b
        assert {t.text for t in terms(found.text[a:b])} & wanted or len(found.text[a:b]) < 3


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=100))
def test_terms_stand_where_they_say(text: str) -> None:
    last = 0
    for term in terms(text):
        assert last <= term.start < term.end <= len(text)
        last = term.start
