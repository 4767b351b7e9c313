from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from m3index.index.seen import SeenKeys

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
