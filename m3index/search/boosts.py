"""Boosts: factors for the scores of hits, by the values of their fields. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from m3index import dates
from m3index.errors import UsageError
from m3index.schema import column_of
from m3index.store.filter import BASE_FIELDS, bind, field_of, matches
from m3index.types import FieldType, FieldValue

Values: TypeAlias = Mapping[str, FieldValue]
Curve: TypeAlias = Literal["gauss", "exp", "linear"]

LEAST, MOST = 1e-6, 1e6
"""The bounds of a factor. No decay goes below the least one, so that documents that are far away from the
origin keep the order of their relevance."""

MAX_BOOSTS = 16
"""The number of boosts of a search. With the bounds of a factor, no product leaves the range of numbers."""

TAKES = 'boosts such as "lang=en: 1.2" or "year: gauss(2026, scale=3)"'


@dataclass(frozen=True, slots=True)
class BoundBoost:
    """A boost for the fields of a collection. text: as the user gave it."""

    text: str
    factor: Callable[[Values], float]


class Boost(Protocol):
    @property
    def text(self) -> str: ...

    @property
    def field(self) -> str: ...

    def bound(self, fields: Mapping[str, FieldType]) -> BoundBoost:
        """Raises FilterError, UsageError for a field of another type."""
        ...


@dataclass(frozen=True, slots=True)
class ConditionBoost:
    """The factor of the documents for which a condition of `where` holds; of others it is 1."""

    text: str
    condition: str
    value: float

    @property
    def field(self) -> str:
        return field_of(self.condition)

    def bound(self, fields: Mapping[str, FieldType]) -> BoundBoost:
        where = bind(self.condition, fields)
        return BoundBoost(self.text, lambda values: self.value if matches(where, values) else 1.0)


@dataclass(frozen=True, slots=True)
class DecayBoost:
    """A factor that falls with the distance of a value from the origin.

    Within `offset` of the origin it is 1, `scale` beyond that it is `decay`. A document without a value has
    the factor 1, as in Elasticsearch.
    """

    text: str
    field: str
    curve: Curve
    origin: str
    scale: str
    offset: str = "0"
    decay: float = 0.5

    def bound(self, fields: Mapping[str, FieldType]) -> BoundBoost:
        kind = {**BASE_FIELDS, **fields}[self.field]
        measure = MEASURES.get(kind)
        if measure is None:
            raise UsageError(
                f"{self.text!r} needs a field declared {', '.join(MEASURES)}; {self.field!r} is declared "
                f"{kind}. Boost it with a condition, as {self.field}=VALUE: 1.2."
            )
        try:
            origin, scale = measure.place(self.origin), measure.distance(self.scale)
            offset = measure.distance(self.offset)
        except ValueError:
            scale = offset = -1.0
        if not (scale > 0 and offset >= 0):
            raise UsageError(
                f"{self.text!r}: for a field declared {kind}, {self.curve} takes {measure.takes}."
            )

        def factor(values: Values) -> float:
            value = values[self.field]
            if value is None:
                return 1.0
            distance = abs(measure.number(value) - origin)
            return decay(self.curve, distance, scale=scale, offset=offset, at_scale=self.decay)

        return BoundBoost(self.text, factor)


@dataclass(frozen=True, slots=True)
class Measure:
    """How the values of a type become numbers that have a distance.

    number: of a stored value. place: of an origin that a user gives. distance: of a scale or an offset. The
    last two raise ValueError. takes: a phrase for what they take.
    """

    number: Callable[[Any], float]
    place: Callable[[str], float]
    distance: Callable[[str], float]
    takes: str


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_NUMBERS = Measure(
    number=float,
    place=_finite,
    distance=_finite,
    takes="a number as the origin, a scale above 0 and an offset from 0 up",
)


def _duration(text: str) -> float:
    """Reads `30d` or `12h`: seconds. A number without a unit could be of days."""
    length = dates.duration(text)
    if length and text[-1].isdigit():
        raise ValueError
    return length


_DATES = Measure(
    number=dates.timestamp,
    place=lambda text: dates.timestamp(dates.period(text)[0]),
    distance=_duration,
    takes="a date as the origin, such as 2026-11-28, now or today, and durations such as 30d or 12h "
    "(s, m, h, d, w) as scale and offset",
)

MEASURES: Mapping[FieldType, Measure] = {"int": _NUMBERS, "float": _NUMBERS, "date": _DATES}
"""The types of fields that a decay takes."""


# -------------------------------------------------------------------- arithmetic


def decay(curve: Curve, distance: float, *, scale: float, offset: float, at_scale: float) -> float:
    """The decay functions of Elasticsearch's function score query: 1 within the offset, `at_scale` at the
    distance offset + scale; with x = max(0, distance - offset):

    gauss: exp(-x^2 / (2 sigma^2)) with sigma^2 = -scale^2 / (2 ln(at_scale))
    exp: exp(x ln(at_scale) / scale)
    linear: max(0, (s - x) / s) with s = scale / (1 - at_scale)

    https://www.elastic.co/guide/en/elasticsearch/reference/current/query-dsl-function-score-query.html#function-decay
    Other than there, the value is never below LEAST.
    """
    x = max(0.0, distance - offset) / scale
    match curve:
        case "gauss":
            value = math.exp(x * x * math.log(at_scale)) if x < 1e100 else 0.0
        case "exp":
            value = math.exp(x * math.log(at_scale))
        case "linear":
            value = 1.0 - x * (1.0 - at_scale)
    return max(value, LEAST)


def boosted(score: float, factors: Sequence[float]) -> float:
    """The score times all factors; a score below 0, as a cross-encoder can give it, is divided by them.

    So a greater factor never lowers a score and a smaller one never raises it, a hit with a better score
    stays ahead of one with equal factors, and the result is continuous at the score 0.
    """
    factor = math.prod(factors)
    return score * factor if score >= 0 else score / factor


# ------------------------------------------------------------------------ reading


def check_boosts(value: object) -> tuple[str, ...]:
    """The boosts as texts. Raises ValueError for another form, UsageError or FilterError for a text that is
    no boost."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError
    if len(texts) > MAX_BOOSTS:
        raise UsageError(f"A search can have at most {MAX_BOOSTS} boosts, not {len(texts)}.")
    for text in texts:
        read_boost(text)
    return tuple(texts)


_DECAY = re.compile(r"\s*([^\s:=<>!]+)\s*:\s*(gauss|exp|linear)\s*\((.*)\)\s*", re.DOTALL)
_PARAMETERS = ("origin", "scale", "offset", "decay")


def read_boost(text: str) -> Boost:
    """Reads `CONDITION: FACTOR` or `FIELD: CURVE(ORIGIN, scale=..., offset=..., decay=...)`. Raises
    UsageError, and FilterError for a text that is no condition."""
    if found := _DECAY.fullmatch(text):
        return _read_decay(text, found[1], found[2], found[3])  # type: ignore[arg-type]  # one of the curves
    condition, colon, factor = text.rpartition(":")
    try:
        value = float(factor) if colon else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UsageError(
            f"{text!r} is not a boost. Write it as 'lang=en: 1.2', or as 'year: gauss(2026, scale=3)' with "
            "gauss, exp or linear."
        )
    if not LEAST <= value <= MOST:
        raise UsageError(f"{text!r}: a factor is a number from {LEAST:f} to {MOST:,.0f}.")
    field_of(condition)
    return ConditionBoost(text.strip(), condition.strip(), value)


def _read_decay(text: str, field: str, curve: Curve, arguments: str) -> DecayBoost:
    given: dict[str, str] = {}
    for number, argument in enumerate(arguments.split(",")):
        name, equals, value = (part.strip() for part in argument.partition("="))
        if not equals and number == 0:
            name, value = "origin", name
        if name not in _PARAMETERS or name in given or not value:
            raise UsageError(
                f"{text!r}: {curve} takes an origin and a scale, and perhaps an offset and a decay, as "
                f"{curve}(2026, scale=3, offset=1, decay=0.5)."
            )
        given[name] = value
    for name in ("origin", "scale"):
        if name not in given:
            raise UsageError(f"{text!r} has no {name}. Write it as {curve}(2026, scale=3).")
    try:
        at_scale = float(given.get("decay", "0.5"))
    except ValueError:
        at_scale = math.nan
    if not LEAST <= at_scale < 1:
        raise UsageError(f"{text!r}: decay is a number from {LEAST:f} up, and below 1.")
    return DecayBoost(
        text.strip(),
        column_of(field),
        curve,
        origin=given["origin"],
        scale=given["scale"],
        offset=given.get("offset", "0"),
        decay=at_scale,
    )
