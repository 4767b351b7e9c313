from __future__ import annotations

import math
import threading
import time
from typing import Any, NamedTuple

from m3index.search.threads import start
from m3index.store.deadline import Deadline
from m3index.store.retry import SHORTEST


class Details(NamedTuple):
    timeout: float | None


def timeout_of(deadline: Deadline, timeout: float | None) -> float | None:
    """The timeout with which a call is sent."""
    sent: list[Any] = []
    deadline.intercept_unary_unary(lambda details, _: sent.append(details), Details(timeout), b"")  # type: ignore[arg-type]
    return sent[0].timeout


def test_a_call_ends_with_its_thread() -> None:
    deadline = Deadline()
    assert deadline.left == math.inf
    assert timeout_of(deadline, 60) == 60
    assert timeout_of(deadline, None) is None
    with deadline.within(5):
        assert 4 < (timeout_of(deadline, 60) or 0) <= 5, "a repetition does not get its whole time again"
        assert 4 < (timeout_of(deadline, None) or 0) <= 5
        assert timeout_of(deadline, 1) == 1
        with deadline.within(60):
            assert deadline.left <= 5, "the outer end counts"
        with deadline.within(0.01):
            time.sleep(0.02)
            assert timeout_of(deadline, 60) == SHORTEST
        assert deadline.left > 4
    assert deadline.left == math.inf


def test_other_threads_have_their_own_time_but_those_of_a_search() -> None:
    deadline, others = Deadline(), []
    with deadline.within(1):
        thread = threading.Thread(target=lambda: others.append(deadline.left))
        thread.start()
        thread.join()
        assert start(lambda: deadline.left).result() <= 1
    assert others == [math.inf]
    assert start(lambda: deadline.left).result() == math.inf
