from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index.corpus.options import MaxErrors, Rejects
from m3index.errors import UsageError

rows = st.integers(1, 10_000)


@given(rows, st.data())
def test_a_share_counts_from_a_hundred_rows_on(read: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, read - 1))
    most = MaxErrors.parse("25%")
    assert bool(most.refusal(bad, read)) == (read >= 100 and bad > read / 4)
    assert not most.refusal_so_far(bad), "a share is not known before the end"


@given(rows, rows)
def test_a_count_ends_a_run_at_once(bad: int, allowed: int) -> None:
    most = MaxErrors.parse(allowed)
    assert bool(most.refusal_so_far(bad)) == (bad > allowed)
    assert bool(most.refusal(bad, bad + 1)) == (bad > allowed)


@given(rows)
def test_nothing_usable_is_a_failure_unless_everything_may_be_bad(read: int) -> None:
    for most in (MaxErrors(), MaxErrors.parse("99.5%"), MaxErrors.parse(20_000)):
        assert most.refusal(read, read)
    assert not MaxErrors.parse("100%").refusal(read, read)
    assert not MaxErrors().refusal(0, 0), "an empty corpus"


def test_how_it_is_given() -> None:
    assert Rejects().most_errors == MaxErrors(percent=50)
    assert Rejects(max_errors=0).most_errors == MaxErrors(count=0)
    assert Rejects(max_errors="7").most_errors == MaxErrors(count=7)
    for wrong in ("101%", "-1", "x", True, 1.5):
        with pytest.raises(UsageError, match="max_errors"):
            Rejects(max_errors=wrong)  # type: ignore[arg-type]


def test_none_is_no_file() -> None:
    assert Rejects(quarantine="none").quarantine_file is None
    assert Rejects(quarantine="./none").quarantine_file == "./none"
