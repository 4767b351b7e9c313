from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from m3index.index.seen import SeenKeys, Spellings, normal_form

keys = st.integers(0, 40).map(lambda i: hashlib.blake2b(bytes([i]), digest_size=16).digest())


@given(st.lists(keys), st.lists(keys))
def test_is_a_set(added: list[bytes], queried: list[bytes]) -> None:
    seen, model = SeenKeys(), set()
    for key in added:
        assert seen.add(key) == (key not in model)
        model.add(key)
    assert [key in seen for key in queried] == [key in model for key in queried]
    assert len(seen) == len(model)
    assert sorted(seen) == sorted(model)


def test_grows_and_stays_small() -> None:
    digests = [hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(50_000)]
    seen = SeenKeys()
    worst = 0.0
    for i, key in enumerate(digests, 1):
        assert seen.add(key)
        if i > 1000:
            worst = max(worst, seen.nbytes / i)
    assert all(key in seen for key in digests)
    assert hashlib.blake2b(b"other", digest_size=16).digest() not in seen
    assert worst <= 48.1


def _digest(doc_id: str) -> bytes:
    return hashlib.blake2b(doc_id.encode(), digest_size=16).digest()


def _spelt(ids: list[str]) -> Spellings:
    """Notes the distinct ids, as the planner does."""
    seen = SeenKeys()
    spellings = Spellings(seen, _digest)
    for doc_id in ids:
        if seen.add(_digest(doc_id)):
            spellings.note(doc_id)
    return spellings


doc_ids = st.text(alphabet=["a", "b", " ", "e", "\u0301", "é", ".", "/", "\t"], min_size=1, max_size=4)


@given(st.lists(doc_ids))
def test_every_second_spelling_is_counted(ids: list[str]) -> None:
    spellings = _spelt(ids)
    distinct = set(ids)
    assert spellings.count == len(distinct) - len({normal_form(i) for i in distinct})
    assert (spellings.warning is None) == (spellings.count == 0)
    for one, other in spellings.examples:
        assert one != other
        assert normal_form(one) == normal_form(other)


def test_the_warning_names_two_examples() -> None:
    assert _spelt(["1", " 1"]).warning == (
        "1 document has an id that differs from another one only in spelling: '1' and ' 1'. Each counts as a "
        "separate document. Write an id the same way everywhere."
    )
    warning = _spelt(["e\u0301", "x", "./a", "é", "a", " a "]).warning
    assert warning is not None
    assert warning.startswith(
        "3 documents have ids that differ from another one only in spelling: "
        r"'e\u0301' and '\xe9', './a' and 'a'."
    )


def test_usual_ids_cost_no_memory() -> None:
    spellings = _spelt([f"doc-{i}" for i in range(5_000)])
    assert len(spellings._unusual) == 0
    assert spellings.warning is None


def test_the_examples_are_bounded() -> None:
    spellings = _spelt([f"{space}{i}" for i in range(2_000) for space in (" ", "  ")])
    assert spellings.count == 2_000
    assert len(spellings._spelt) == Spellings.KEPT
    assert len(spellings.examples) == Spellings.EXAMPLES
