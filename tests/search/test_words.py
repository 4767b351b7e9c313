from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3index.errors import QueryError
from m3index.search.words import MOST_CONDITIONS, PlainText, Wording, parse


def read(query: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    parsed = parse(query)
    return parsed.text, parsed.phrases, parsed.excluded


@pytest.mark.parametrize(
    ("query", "text", "phrases", "excluded"),
    [
        ('"honey bees"', "honey bees", ["honey bees"], []),
        ("honey -bees", "honey", [], ["bees"]),
        ('honey -"worker bees" hive', "honey hive", [], ["worker bees"]),
        ('hive "honey bees" -wasps -hornets', "hive honey bees", ["honey bees"], ["wasps", "hornets"]),
        ("“honey bees”", "honey bees", ["honey bees"], []),
        ("„Honig Bienen“ -„wilde Bienen“", "Honig Bienen", ["Honig Bienen"], ["wilde Bienen"]),
        ("»Honig Bienen« Stock", "Honig Bienen Stock", ["Honig Bienen"], []),
        ("« abeilles à miel »", "abeilles à miel", ["abeilles à miel"], []),
        ("”honungsbin och humlor”", "honungsbin och humlor", ["honungsbin och humlor"], []),
        ("＂蜜蜂＂ －黄蜂", "蜜蜂", ["蜜蜂"], ["黄蜂"]),
        ('关于"蜜蜂"的文章', "关于蜜蜂的文章", ["蜜蜂"], []),
        ('("honey bees")', "(honey bees)", ["honey bees"], []),
        ('"honey bees", please', "honey bees, please", ["honey bees"], []),
        ("honey -bees, please", "honey , please", [], ["bees"]),
        ("honey -e-mail", "honey", [], ["e-mail"]),
        ("honey -मधुमक्खी", "honey", [], ["मधुमक्खी"]),
        ('"honey bees" "honey bees" hive', "honey bees honey bees hive", ["honey bees"], []),
    ],
)
def test_phrases_and_exclusions(query: str, text: str, phrases: list[str], excluded: list[str]) -> None:
    assert read(query) == (text, tuple(phrases), tuple(excluded))


@pytest.mark.parametrize(
    "query",
    [
        "honey bees",
        "an e-mail about G-CSF",
        "-5 degrees",
        "5 - 3",
        "honey - bees",
        "honey --bees",
        "honey -",
        'a 12" disc and a 7" one',
        'say "honey',
        'צה"ל ודו"ח',
        '""',
        '" "',
        '"?!"',
        '-""',
        "'honey bees'",
        '"honey"bees',
        "  honey   bees ",
    ],
)
def test_all_else_is_text(query: str) -> None:
    assert read(query) == (query, (), ())
    assert not parse(query).has_conditions


def test_plain_takes_all_as_text() -> None:
    assert parse('"honey bees" -wasps', "plain").text == '"honey bees" -wasps'
    assert not parse('"honey bees" -wasps', "plain").has_conditions


@pytest.mark.parametrize("query", ["-bees", '-"honey bees" -wasps', " -bees "])
def test_a_query_that_only_excludes_is_refused(query: str) -> None:
    with pytest.raises(QueryError, match=r"only excludes words\. Add what to search for"):
        parse(query)


def test_a_query_has_a_bounded_number_of_conditions() -> None:
    said = " ".join(f"-x{number}" for number in range(MOST_CONDITIONS))
    assert len(parse(f"honey {said}").excluded) == MOST_CONDITIONS
    with pytest.raises(QueryError, match=f"has {MOST_CONDITIONS + 1} phrases and exclusions"):
        parse(f'"honey" {said}')


_QUERIES = st.text(st.sampled_from("ab5é蜂 -－\"“”„«»＂,.'\u00ad"), max_size=24)


@settings(max_examples=500, deadline=None)
@given(_QUERIES)
@example('-"a"!b')
@example('-a"b a"')
@example('" “a b”')
def test_a_parsed_query_written_again_parses_the_same(query: str) -> None:
    try:
        parsed = parse(query)
    except QueryError:
        return
    assert str(parsed) == query
    assert parse(str(parsed)) == parsed


@settings(max_examples=300, deadline=None)
@given(_QUERIES)
def test_without_its_conditions_a_query_is_its_text_and_its_phrases(query: str) -> None:
    try:
        parsed = parse(query)
    except QueryError:
        return
    bare = parsed.without(parsed.phrases, parsed.excluded)
    assert not bare.has_conditions
    assert bare.text.split() == parsed.text.split()


def test_without_one_condition_the_others_stay() -> None:
    parsed = parse('hive "honey bees" "a queen" -wasps -hornets')
    assert str(parsed.without(phrases=["honey bees"])) == 'hive honey bees "a queen" -wasps -hornets'
    assert str(parsed.without(excluded=["wasps"])) == 'hive "honey bees" "a queen"  -hornets'


@pytest.mark.parametrize(
    ("said", "text", "is_in"),
    [
        ("honey bees", "The Honey Bees dance", True),
        ("honey bees", "honey, bees", True),
        ("honey bees", "honey\nbees", True),
        ("honey bees", "bees make honey", False),
        ("honey bees", "honey worker bees", False),
        ("honey bees", "honey beesting", False),
        ("honey bee", "honey bees", False),  # no stems
        ("bees", "honeybees", False),
        ("bees", "be\u00ades", True),  # a soft hyphen
        ("e-mail", "an e-mail", True),
        ("e-mail", "an email", False),
        ("STRASSE", "eine Straße", True),
        ("zurich", "in Zürich", True),
        ("zürich", "in Zurich", False),
        ("zürich", "in Zu\u0308rich", True),
        ("crème brulee", "une crème brûlée", True),
        ("crème brulee", "une creme brûlée", False),
        ("мои", "мой", False),
        ("елка", "ёлка", True),
        ("العربية", "اللغة الْعَرَبِيَّة", True),
        ("蜜蜂", "关于蜜蜂的文章", True),
        ("蜂蜜", "关于蜜蜂的文章", False),
        ("ผึ้ง", "น้ำผึ้งป่า", True),
        ("iphone手机", "我的 iPhone 手机", True),
        ("꿀벌", "꿀벌은", True),
        ("ｂｅｅｓ", "bees", True),
    ],
)
def test_words_are_compared_folded_and_whole(said: str, text: str, is_in: bool) -> None:
    assert Wording(said).is_in(PlainText(text)) is is_in


_WORDS = st.lists(st.sampled_from(["a", "é", "e", "ab", "蜂", "蜜"]), max_size=8)


@settings(max_examples=500, deadline=None)
@given(_WORDS, _WORDS.filter(bool))
def test_a_phrase_is_a_run_of_the_words(words: list[str], phrase: list[str]) -> None:
    def fits(word: str, wanted: str) -> bool:
        return wanted in (word, word.replace("é", "e"))

    runs = [words[i : i + len(phrase)] for i in range(len(words) - len(phrase) + 1)]
    expected = any(all(map(fits, run, phrase)) for run in runs)
    assert Wording(" ".join(phrase)).is_in(PlainText(" ".join(words))) is expected


def test_a_query_of_a_megabyte_is_parsed_at_once() -> None:
    hostile: list[Any] = [
        '"' * 500_000,
        '" ' * 300_000,
        '-"a' * 300_000,
        "“" + "a " * 500_000,
        "- " * 500_000,
    ]
    for query in hostile:
        assert isinstance(re.sub(r"\s", "", parse(query).text), str)
