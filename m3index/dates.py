"""Dates as collections hold them: ISO 8601 in UTC with a fixed width, whose texts compare as instants do."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

DURATION_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
"""In seconds."""

FORMS = "2026, 2026-11, 2026-11-28, 2026-11-28T16:00:00+01:00, now, today or now-30d"

_AFTER_ALL = "9999-12-31T23:59:59.999999Z~"
"""Compares as later than every stored date."""

_MONTH = re.compile(r"(\d{4})(?:-(\d\d))?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d-?\d")
_TIME = re.compile(r".*[T ]\d\d(:?\d\d)?(:?\d\d)?([.,]\d+)?(?:Z|[+-]\d\d.*)?", re.IGNORECASE)
_RELATIVE = re.compile(r"(now|today)(?:\s*([+-])\s*(\d+(?:\.\d+)?)\s*([smhdw]))?", re.IGNORECASE)
_Span: TypeAlias = tuple[datetime, datetime | None]
"""The instants [start, end); an end of None is after the year 9999."""

_MICROSECOND = timedelta(microseconds=1)
_PRECISION = (timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1), _MICROSECOND)


def now() -> datetime:
    return datetime.now(UTC)


def stored(value: str | date) -> str:
    """The first instant of a date as it is stored, such as `2026-11-28T15:00:00.000000Z`. Without an offset,
    it is UTC. Raises ValueError, with the reason, for what is not a date of the years 1 to 9999."""
    return _text(_span(value.isoformat() if isinstance(value, date) else value)[0])


def period(text: str) -> tuple[str, str]:
    """The stored dates [start, end) that a text in a condition means: all of a year, month, day, hour, minute
    or second, or an instant. `now` and `today` can have a duration added. Raises ValueError."""
    relative = _RELATIVE.fullmatch(text.strip())
    start, end = _span(text) if relative is None else _near_now(relative)
    return _text(start), _AFTER_ALL if end is None else _text(end)


def timestamp(text: str) -> float:
    """Seconds since 1970 of a stored date."""
    return datetime.fromisoformat(text).timestamp()


def _near_now(written: re.Match[str]) -> _Span:
    start, length = now(), _MICROSECOND
    if written[1].lower() == "today":
        start, length = start.replace(hour=0, minute=0, second=0, microsecond=0), timedelta(days=1)
    if written[2]:
        try:
            shift = timedelta(seconds=float(written[3]) * DURATION_UNITS[written[4].lower()])
            start = start + shift if written[2] == "+" else start - shift
        except OverflowError:
            raise _no_date(written[0]) from None
    return start, start + length


def _span(text: str) -> _Span:
    text = text.strip()
    try:
        if month := _MONTH.fullmatch(text):
            start = datetime(int(month[1]), int(month[2] or 1), 1, tzinfo=UTC)
            return start, _first_of(start.year * 12 + start.month - 1 + (1 if month[2] else 12))
        start = datetime.fromisoformat(text)
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_date(text) from None
    if _DAY.fullmatch(text):
        length = timedelta(days=1)
    elif (written := _TIME.fullmatch(text)) is not None:
        length = _PRECISION[sum(part is not None for part in written.groups())]
    else:
        length = _MICROSECOND
    try:
        return start, start + length
    except OverflowError:
        return start, None


def _no_date(text: str) -> ValueError:
    return ValueError(f"{text[:40]!r} is not a date; write it in ISO 8601, such as 2026-11-28")


def _first_of(months: int) -> datetime | None:
    """The first instant of a month, counted from the year 0."""
    year, month = divmod(months, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC) if year <= 9_999 else None


def _text(instant: datetime) -> str:
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
