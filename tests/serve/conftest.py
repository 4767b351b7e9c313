from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from serving import Server, build, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(build()) as running:
        yield running
