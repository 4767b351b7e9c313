from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index import dates
from m3index.errors import FilterError, UsageError
from m3index.options import Custom, check
from m3index.search.boosts import (
    LEAST,
    MAX_BOOSTS,
    MOST,
    TAKES,
    Curve,
    boosted,
    check_boosts,
    decay,
    read_boost,
)
from m3index.types import FieldType

FIELDS: dict[str, FieldType] = {
    "lang": "str",
    "year": "int",
    "price": "float",
    "tags": "str[]",
    "new": "bool",
    "published": "date",
    "author__age": "int",
}

_factors = st.lists(st.floats(LEAST, MOST), max_size=MAX_BOOSTS)
_score = st.floats(-1e3, 1e3).filter(lambda score: score == 0 or abs(score) > 1e-6)


def factor(text: str, **values: Any) -> float:
    return read_boost(text).bound(FIELDS).factor(values)


# ------------------------------------------------------------------ decays


@pytest.mark.parametrize("curve", ["gauss", "exp", "linear"])
@pytest.mark.parametrize("at_scale", [0.5, 0.33, 0.9])
def test_a_decay_is_one_within_the_offset_and_its_value_at_the_scale(curve: Curve, at_scale: float) -> None:
    """As Elasticsearch defines scale and decay: at the distance offset + scale, the factor is `decay`."""
    for scale, offset in ((3.0, 0.0), (3.0, 2.0), (0.25, 1e6)):
        at = [decay(curve, d, scale=scale, offset=offset, at_scale=at_scale) for d in (0.0, offset)]
        assert at == [1.0, 1.0]
        assert decay(curve, offset + scale, scale=scale, offset=offset, at_scale=at_scale) == pytest.approx(
            at_scale
        )


@pytest.mark.parametrize(
    ("curve", "distance", "expected"),
    [
        ("gauss", 6.0, math.exp(-(6.0**2) / (2 * (-(3.0**2) / (2 * math.log(0.5)))))),
        ("gauss", 6.0, 0.5**4),
        ("exp", 6.0, math.exp(math.log(0.5) / 3.0 * 6.0)),
        ("exp", 6.0, 0.5**2),
        ("linear", 4.5, 0.25),
        ("linear", 6.0, LEAST),
        ("linear", 600.0, LEAST),
        ("gauss", 1e300, LEAST),
        ("exp", 1e300, LEAST),
    ],
)
def test_the_curves_by_hand(curve: Curve, distance: float, expected: float) -> None:
    assert decay(curve, distance, scale=3.0, offset=0.0, at_scale=0.5) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(
    curve=st.sampled_from(["gauss", "exp", "linear"]),
    near=st.floats(0, 1e18),
    further=st.floats(0, 1e18),
    scale=st.floats(5e-324, 1e18),
    offset=st.floats(0, 1e18),
    at_scale=st.floats(LEAST, 0.999999),
)
def test_a_decay_falls_and_stays_within_its_bounds(
    curve: Curve, near: float, further: float, scale: float, offset: float, at_scale: float
) -> None:
    a, b = (decay(curve, d, scale=scale, offset=offset, at_scale=at_scale) for d in (near, near + further))
    assert LEAST <= b <= a <= 1.0


@pytest.mark.parametrize(
    ("text", "year", "expected"),
    [
        ("year: gauss(2026, scale=3)", 2026, 1.0),
        ("year: gauss(2026, scale=3)", 2023, 0.5),
        ("year: gauss(2026, scale=3)", 2029, 0.5),
        ("year: gauss(2026, scale=3, offset=2)", 2024, 1.0),
        ("year: gauss(2026, scale=3, offset=2)", 2021, 0.5),
        ("year: exp(origin=2026, scale=4, decay=0.1)", 2018, 0.01),
        (" year:linear( 2026 ,scale = 10, decay = 0.5 ) ", 2021, 0.75),
        ("year: gauss(2026, scale=3)", None, 1.0),
    ],
)
def test_a_decay_of_a_field(text: str, year: int | None, expected: float) -> None:
    """A document without a value has the factor 1, as in Elasticsearch."""
    assert factor(text, year=year) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "published", "expected"),
    [
        ("published: gauss(2026-11-28, scale=30d)", "2026-11-28", 1.0),
        ("published: gauss(2026-11-28, scale=30d)", "2026-10-29", 0.5),
        ("published: gauss(2026-11-28T00:00:00Z, scale=12h)", "2026-11-28T12:00:00Z", 0.5),
        ("published: exp(2026-11-28T12:30:00+01:00, scale=90m)", "2026-11-28T14:30:00Z", 0.25),
        ("published: linear(2026-11, scale=2w, offset=1d)", "2026-11-09", 0.75),
        ("published: exp(2026, scale=1d)", "2026", 1.0),
        ("published: exp(now, scale=30d)", None, 1.0),
    ],
)
def test_a_decay_of_a_date(text: str, published: str | None, expected: float) -> None:
    assert factor(text, published=published and dates.stored(published)) == pytest.approx(expected)


def test_a_decay_from_now_and_from_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "now", lambda: datetime(2026, 11, 28, 18, tzinfo=UTC))
    published = dates.stored("2026-11-27T18:00:00Z")
    assert factor("published: exp(now, scale=1d)", published=published) == pytest.approx(0.5)
    assert factor("published: exp(now-12h, scale=1d)", published=published) == pytest.approx(0.5**0.5)
    assert factor("published: exp(today, scale=6h)", published=published) == pytest.approx(0.5)
    assert factor("published>now-2d: 3", published=published) == 3.0


def test_a_decay_of_fractions_and_of_the_number_of_a_passage() -> None:
    assert factor("price: exp(9.99, scale=0.5)", price=10.49) == pytest.approx(0.5)
    assert factor("ordinal: exp(0, scale=2)", ordinal=4) == pytest.approx(0.25)


def test_a_field_that_lies_in_an_object() -> None:
    assert read_boost("author.age: exp(40, scale=10)").field == "author__age"
    assert factor("author.age: exp(40, scale=10)", author__age=30) == pytest.approx(0.5)
    assert factor("author.age>=18: 2", author__age=30) == 2.0
    assert read_boost("author.age>=18: 2").field == "author__age"


# -------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("lang=en: 1.2", {"lang": "en"}, 1.2),
        ("lang=en: 1.2", {"lang": "de"}, 1.0),
        ("lang=en: 1.2", {"lang": None}, 1.0),
        ("lang=en:1.2", {"lang": "en"}, 1.2),
        ("lang in en,de: 3", {"lang": "de"}, 3.0),
        ("lang!=en: 0.5", {"lang": "de"}, 0.5),
        ("lang!=en: 0.5", {"lang": None}, 1.0),
        ("year>=2020: 2", {"year": 2020}, 2.0),
        ("year<2020: 2e0", {"year": 2020}, 1.0),
        ("tags=bees: 4", {"tags": ["honey", "bees"]}, 4.0),
        ("tags!=bees: 4", {"tags": ["honey"]}, 4.0),
        ("new=true: 4", {"new": True}, 4.0),
        ("source=news: 4", {"source": "news"}, 4.0),
        ("lang=a:b: 4", {"lang": "a:b"}, 4.0),
        ('lang="x: 2": 4', {"lang": "x: 2"}, 4.0),
    ],
)
def test_a_condition_is_one_of_where(text: str, values: dict[str, Any], expected: float) -> None:
    assert factor(text, **values) == expected


# ---------------------------------------------------------- multiplication


def test_boosts_multiply() -> None:
    assert boosted(0.5, [2.0, 3.0, 0.5]) == 1.5
    assert boosted(0.5, []) == 0.5
    assert boosted(-6.0, [2.0, 1.5]) == -2.0
    assert boosted(-6.0, [0.5]) == -12.0
    assert boosted(0.0, [0.5]) == 0.0
    assert math.isfinite(boosted(1e3, [MOST] * MAX_BOOSTS))
    assert math.isfinite(boosted(-1e3, [LEAST] * MAX_BOOSTS))


@settings(deadline=None)
@given(score=_score, factors=_factors, position=st.integers(0, MAX_BOOSTS), more=st.floats(1.0, 1e3))
def test_a_greater_factor_never_lowers_a_score(
    score: float, factors: list[float], position: int, more: float
) -> None:
    """Of a logit below 0 too."""
    greater = [f * more if i == position else f for i, f in enumerate(factors)]
    assert boosted(score, greater) >= boosted(score, factors)


@settings(deadline=None)
@given(scores=st.tuples(_score, _score).map(sorted), factors=_factors)
def test_equal_factors_keep_the_order_of_scores(scores: list[float], factors: list[float]) -> None:
    worse, better = scores
    assert boosted(worse, factors) <= boosted(better, factors)


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lang=en", "'lang=en' is not a boost. Write it as 'lang=en: 1.2'"),
        ("lang=en: more", "is not a boost"),
        ("lang=en: nan", "is not a boost"),
        ("", "is not a boost"),
        ("lang=en: 0", "a factor is a number from 0.000001 to 1,000,000"),
        ("lang=en: -1", "a factor is a number from"),
        ("lang=en: inf", "a factor is a number from"),
        ("lang: 1.2", "'lang' is not a condition"),
        (": 1.2", "is not a condition"),
        ("year: gauss()", "gauss takes an origin and a scale"),
        ("year: gauss(2026)", "has no scale. Write it as gauss\\(2026, scale=3\\)"),
        ("year: gauss(scale=3)", "has no origin"),
        ("year: gauss(2026, 3)", "gauss takes an origin and a scale"),
        ("year: gauss(2026, scale=3, scale=4)", "gauss takes an origin and a scale"),
        ("year: gauss(2026, width=3)", "gauss takes an origin and a scale"),
        ("year: exp(2026, scale=3, decay=1)", "decay is a number from 0.000001 up, and below 1"),
        ("year: exp(2026, scale=3, decay=x)", "decay is a number"),
        ("year: box(2026, scale=3)", "is not a boost"),
    ],
)
def test_what_is_no_boost(text: str, says: str) -> None:
    with pytest.raises((UsageError, FilterError), match=says):
        check_boosts([text])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("year: gauss(today, scale=3)", "for a field declared int, gauss takes a number as the origin"),
        ("year: gauss(2026, scale=0)", "a scale above 0"),
        ("year: gauss(2026, scale=-1)", "a scale above 0"),
        ("year: gauss(inf, scale=3)", "a number as the origin"),
        ("year: gauss(2026, scale=nan)", "a scale above 0"),
        ("year: gauss(2026, scale=3, offset=-1)", "an offset from 0 up"),
        ("lang: gauss(2026, scale=3)", "needs a field declared int, float, date; 'lang' is declared str"),
        ("published: gauss(soon, scale=30d)", "a date as the origin, such as 2026-11-28, now or today"),
        ("published: gauss(now, scale=30)", "durations such as 30d or 12h"),
        ("published: gauss(now, scale=0d)", "durations such as 30d"),
        ("published: gauss(now, scale=30d, offset=-1d)", "durations such as 30d"),
        ("year=new: 2", "'year' is declared int; it cannot be 'new'"),
    ],
)
def test_what_does_not_fit_the_field(text: str, says: str) -> None:
    with pytest.raises((UsageError, FilterError), match=says):
        read_boost(text).bound(FIELDS)


def test_the_forms_of_the_option() -> None:
    assert check_boosts("lang=en: 2") == check_boosts(["lang=en: 2"]) == ("lang=en: 2",)
    assert check_boosts([]) == ()
    with pytest.raises(UsageError, match="at most 16 boosts, not 17"):
        check_boosts(["lang=en: 2"] * 17)
    for wrong in (5, None, [5], {"lang": 2}):
        with pytest.raises(UsageError, match="boost takes boosts such as "):
            check("boost", Custom(check_boosts, TAKES), wrong)
