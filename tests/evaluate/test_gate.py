from __future__ import annotations

import pytest

from m3index.errors import UsageError
from m3index.evaluate.gate import Gate


@pytest.mark.parametrize(
    ("text", "new", "old", "passes"),
    [
        ("nDCG@10>=old-0.005", 0.645, 0.65, True),
        ("nDCG@10>=old-0.005", 0.6449, 0.65, False),
        ("nDCG@10 >= old - 0.005", 0.7, 0.65, True),
        ("nDCG@10>=old", 0.65, 0.65, True),
        ("nDCG@10>old", 0.65, 0.65, False),
        ("nDCG@10>=old+0.01", 0.655, 0.65, False),
        ("Recall@100>=old*0.98", 0.882, 0.9, True),
        ("Recall@100>=old*0.98", 0.88, 0.9, False),
        ("AP(rel=2)@10>=0.65", 0.65, None, True),
        ("nDCG@10>0.65", 0.65, 0.1, False),
        ("nDCG@10>=0", float("nan"), None, False),
    ],
)
def test_gates(text: str, new: float, old: float | None, passes: bool) -> None:
    passed, message = Gate.parse(text).check(new, old)
    assert passed is passes
    assert message.endswith("passes." if passes else "fails.")


def test_the_message_has_the_figures() -> None:
    _, message = Gate.parse("nDCG@10>=old-0.005").check(0.6, 0.65)
    assert message == (
        "nDCG@10 is 0.6000 (old 0.6500): the gate nDCG@10>=old-0.005 requires >= 0.6450 and fails."
    )


def test_the_measure_is_named() -> None:
    assert Gate.parse("AP(rel=2)@10>=0.65").measure == "AP(rel=2)@10"


@pytest.mark.parametrize(
    "text", ["", "nDCG@10", "nDCG@10<=old", "nDCG@10>=new", "nDCG@10>=old/2", ">=0.5", "a>=old-"]
)
def test_what_is_no_gate(text: str) -> None:
    with pytest.raises(UsageError, match="is not a gate; write it like"):
        Gate.parse(text)


def test_an_old_value_that_is_needed() -> None:
    with pytest.raises(UsageError, match="compares with an old value"):
        Gate.parse("nDCG@10>=old").check(0.5)
