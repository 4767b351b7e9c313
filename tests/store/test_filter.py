from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.material import FIELDS, MALICIOUS

from m3index.errors import FilterError
from m3index.store.filter import (
    All,
    Compare,
    Expression,
    In,
    Within,
    bind,
    combine,
    matches,
    parse_where,
    parts_of,
    render,
    without_parts,
)

BORN = "author__born"
_YEAR = ("1815-01-01T00:00:00.000000Z", "1816-01-01T00:00:00.000000Z")
_DAY = ("1815-12-10T00:00:00.000000Z", "1815-12-11T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lang=en", Compare("lang", "==", "en")),
        ("lang == en", Compare("lang", "==", "en")),
        (" lang != two words ", Compare("lang", "!=", "two words")),
        ("lang=", Compare("lang", "==", "")),
        ("lang=a=b>c", Compare("lang", "==", "a=b>c")),
        ('lang=" spaced, \\"x\\" "', Compare("lang", "==", ' spaced, "x" ')),
        ("lang=line\nbreak", Compare("lang", "==", "line\nbreak")),
        ("year>=2020", Compare("year", ">=", 2020)),
        ("year < -5", Compare("year", "<", -5)),
        ("score<=.5", Compare("score", "<=", 0.5)),
        ("score > 1e3", Compare("score", ">", 1000.0)),
        ("open=True", Compare("open", "==", True)),
        ("tags=red", Compare("tags", "==", "red", array=True)),
        ("tags!=red", Compare("tags", "!=", "red", array=True)),
        ("lang in en, de,fr", In("lang", ("en", "de", "fr"))),
        ('lang in "a,b", c', In("lang", ("a,b", "c"))),
        ("lang in ", None),
        ("year in 1,2", In("year", (1, 2))),
        ("tags in a,b", In("tags", ("a", "b"), array=True)),
        ("doc_id=x", Compare("doc_id", "==", "x")),
        ("ordinal=0", Compare("ordinal", "==", 0)),
        ("source=default", Compare("source", "==", "default")),
        ("title>M", Compare("title", ">", "M")),
        ("author.born=1815", Within(BORN, (_YEAR,))),
        ('author__born != "1815"', Within(BORN, (_YEAR,), outside=True)),
        ("author.born in 1815, 1815-12-10", Within(BORN, (_YEAR, _DAY))),
        ("author.born<1815", Compare(BORN, "<", _YEAR[0])),
        ("author.born<=1815", Compare(BORN, "<", _YEAR[1])),
        ("author.born>1815", Compare(BORN, ">=", _YEAR[1])),
        ("author.born>=1815", Compare(BORN, ">=", _YEAR[0])),
        ("author.born=soon", None),
        ("author.born in 1815,", None),
        ("author.name=Ada", None),
        ("nosuch=1", None),
        ("year=two", None),
        ("year=99999999999999999999", None),
        ("score=nan", None),
        ("score=inf", None),
        ("open=maybe", None),
        ("open>true", None),
        ("tags>a", None),
        ('lang="unclosed\\"', None),
        ("lang", None),
        ("", None),
        ("lang like x", None),
        ("a b=c", None),
    ],
)
def test_a_condition_is_read(text: str, meant: object) -> None:
    if meant is None:
        with pytest.raises(FilterError) as error:
            parse_where(text, FIELDS)
        assert str(error.value).endswith(".")
    else:
        assert parse_where(text, FIELDS) == meant


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FilterError, match="The fields are doc_id, source, title, ordinal, lang, year"):
        parse_where("language=en", FIELDS)


@pytest.mark.parametrize(
    ("where", "expression"),
    [
        (Compare("lang", "==", 'x" or "1" == "1'), r'lang == "x\" or \"1\" == \"1"'),
        (Compare("lang", "!=", "a\\b\n\r\t'"), r'''lang != "a\\b\n\r\t'"'''),
        (Compare("lang", "==", "ü😀\x01"), 'lang == "ü😀\x01"'),
        (Compare("year", ">", -3), "year > -3"),
        (Compare("score", "<", 1e22), "score < 1e+22"),
        (Compare("open", "==", True), "open == true"),
        (Compare("tags", "==", "a", array=True), 'array_contains(tags, "a")'),
        (Compare("tags", "!=", "a", array=True), '(tags is not null and not array_contains(tags, "a"))'),
        (In("passage_id", ["a-0", "b-1"]), 'passage_id in ["a-0", "b-1"]'),
        (In("year", []), "year in []"),
        (Within("d", [("a", "b"), ("c", "d")]), '(d >= "a" and d < "b") or (d >= "c" and d < "d")'),
        (Within("d", [("a", "b")], outside=True), '(d < "a" or d >= "b")'),
        (In("tags", ["a"], array=True), 'array_contains_any(tags, ["a"])'),
        (Expression("year > 1 or lang == ')'"), "year > 1 or lang == ')'"),
        (All([Compare("year", ">", 1), Expression("a or b")]), "(year > 1) and (a or b)"),
    ],
)
def test_a_filter_is_rendered(where: object, expression: str) -> None:
    assert render(where) == expression


@pytest.mark.parametrize(
    "where",
    [
        Compare("lang", "==", "nul\0"),
        Compare("lang", "==", "\ud800"),
        Compare("score", "==", math.nan),
        Compare("score", "<", math.inf),
        Compare('lang" or 1==1', "==", "x"),
        Compare("tags", "<", "a", array=True),
        In("lang", ["a", "\0"]),
        Expression(""),
        Expression("a) or (b"),
        Expression("(a"),
        Expression('lang == "x'),
        Expression("lang == 'x\\'"),
        Expression("a\0"),
    ],
)
def test_what_cannot_be_said_is_refused(where: object) -> None:
    with pytest.raises(FilterError):
        render(where)


@given(st.text() | st.sampled_from(MALICIOUS))
def test_a_value_never_leaves_its_quotes(value: str) -> None:
    try:
        literal = render(Compare("lang", "==", value)).removeprefix("lang == ")
    except FilterError:
        assert "\0" in value or any("\ud800" <= c <= "\udfff" for c in value)
    else:
        assert json.loads(literal, strict=False) == value


def test_matching_follows_sql_for_null() -> None:
    empty = dict.fromkeys(FIELDS)
    full = {"lang": "de", "year": 3, "score": 0.5, "open": False, "tags": ["a", "b"]}
    for text in (
        "lang=de",
        "lang!=de",
        "year<9",
        "tags=a",
        "tags!=a",
        "lang in de",
        "tags in a",
        "open!=true",
    ):
        assert not matches(parse_where(text, FIELDS), empty)
    for text in (
        "lang=de",
        "lang!=en",
        "year<=3",
        "year>2",
        "tags=a",
        "tags!=c",
        "lang in en,de",
        "tags in c,b",
    ):
        assert matches(parse_where(text, FIELDS), full)
    for text in ("lang!=de", "lang<de", "year>3", "tags!=a", "tags=c", "open=true", "year in 1,2"):
        assert not matches(parse_where(text, FIELDS), full)
    assert matches(All([Compare("year", "==", 3), In("lang", ["de"])]), full)
    with pytest.raises(FilterError, match="cannot be compared"):
        matches(Compare("lang", "<", 3), full)


def test_filters_are_combined() -> None:
    a, b = Compare("year", "==", 1), In("lang", ["x"])
    assert combine() is None
    assert combine(None, None) is None
    assert combine(None, a) == a
    assert combine(a, None, b) == All((a, b))


@pytest.mark.parametrize(
    ("where", "texts"),
    [
        ("lang=en", ["lang=en"]),
        (("lang=en", "year>=2020"), ["lang=en", "year>=2020"]),
        ({"lang": "en", "year": [1, 2]}, ["lang=en", "year in 1,2"]),
        (Compare("lang", "==", "en"), ['lang == "en"']),
    ],
)
def test_the_conditions_of_a_filter_can_be_left_out_one_by_one(where: Any, texts: list[str]) -> None:
    parts = parts_of(where)
    assert list(parts) == texts
    assert combine(*(bind(part, FIELDS) for part in parts.values())) == bind(where, FIELDS)
    assert without_parts(where, []) in (where, list(where) if isinstance(where, tuple) else where)
    assert without_parts(where, texts) is None
    if len(texts) > 1:
        left = without_parts(where, texts[:1])
        assert left is not None
        assert list(parts_of(left)) == texts[1:]
