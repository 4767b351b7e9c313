from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index import dates
from m3index.dates import period, stored, timestamp

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS)


@given(INSTANTS, INSTANTS)
def test_stored_dates_compare_as_instants_do(first: datetime, second: datetime) -> None:
    a, b = stored(first.isoformat()), stored(second.isoformat())
    assert (a < b, a == b) == (first < second, first == second)
    assert len(a) == 27
    assert stored(a) == a == stored(first)
    assert abs(timestamp(a) - first.timestamp()) < 1e-4


@given(INSTANTS)
def test_an_instant_lies_in_the_periods_that_are_written_from_it(instant: datetime) -> None:
    text = instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "")
    widest: tuple[str, str] | None = None
    for length in (4, 7, 10, 13, 16, 19, 26):
        start, end = period(text[:length])
        assert start <= stored(instant) < end
        assert start == stored(text[:length])
        if widest is not None:
            assert widest[0] <= start < end <= widest[1]
        widest = start, end


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", "2026-01-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z"),
        ("2026-12", "2026-12-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z"),
        (" 2028-02-29 ", "2028-02-29T00:00:00.000000Z", "2028-03-01T00:00:00.000000Z"),
        ("20261128", "2026-11-28T00:00:00.000000Z", "2026-11-29T00:00:00.000000Z"),
        ("2026-W48-6", "2026-11-28T00:00:00.000000Z", "2026-11-29T00:00:00.000000Z"),
        ("2026-11-28T16+01:00", "2026-11-28T15:00:00.000000Z", "2026-11-28T16:00:00.000000Z"),
        ("2026-11-28 16:05", "2026-11-28T16:05:00.000000Z", "2026-11-28T16:06:00.000000Z"),
        ("2026-11-28T16:05:07Z", "2026-11-28T16:05:07.000000Z", "2026-11-28T16:05:08.000000Z"),
        ("2026-11-28T16:05:07.25-00:30", "2026-11-28T16:35:07.250000Z", "2026-11-28T16:35:07.250001Z"),
        ("9999", "9999-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z~"),
        ("9999-12-31", "9999-12-31T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z~"),
    ],
)
def test_periods(text: str, start: str, end: str) -> None:
    assert period(text) == (start, end)


@pytest.mark.parametrize(
    ("text", "start", "seconds"),
    [
        ("now", "2026-11-28T16:05:07.000008Z", 1e-6),
        ("now-30d", "2026-10-29T16:05:07.000008Z", 1e-6),
        ("NOW - 1.5h", "2026-11-28T14:35:07.000008Z", 1e-6),
        ("now+90m", "2026-11-28T17:35:07.000008Z", 1e-6),
        ("today", "2026-11-28T00:00:00.000000Z", 86_400),
        ("today-2w", "2026-11-14T00:00:00.000000Z", 86_400),
    ],
)
def test_relative_periods(text: str, start: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "now", lambda: datetime(2026, 11, 28, 16, 5, 7, 8, tzinfo=UTC))
    found = period(text)
    assert found[0] == start
    assert timestamp(found[1]) - timestamp(found[0]) == pytest.approx(seconds, abs=5e-7)


@pytest.mark.parametrize(
    "text",
    ["", " ", "0000", "2026-13", "2026-02-30", "28.11.2026", "yesterday", "now-", "now-3y", "now-99999999w",
     "2026-11-28T25", "99999", "0001-01-01T00:00+01:00"],
)  # fmt: skip
def test_what_is_not_a_date(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date"):
        period(text)
