from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from servers import lite_server

from m3index.schema import CollectionSpec
from m3index.store.base import Store
from m3index.store.open import open_store
from m3index.store.options import Connection

KINDS = ["memory", "lite", "lite-server", pytest.param("server", marks=pytest.mark.integration)]


@pytest.fixture(scope="session")
def lite_server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lite_server(tmp_path_factory.mktemp("server") / "data") as uri:
        yield uri


@pytest.fixture(scope="session", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Every kind of store, one after the other; the tests share it and make their own collections."""
    match request.param:
        case "memory":
            uri = "memory:"
        case "lite":
            uri = str(tmp_path_factory.mktemp("lite") / "a folder with ü" / "test.db")
        case "lite-server":
            uri = request.getfixturevalue("lite_server_uri")
        case "server":
            uri = os.environ.get("M3INDEX_TEST_URI", "")
            if not uri:
                pytest.skip("M3INDEX_TEST_URI is not set")
    opened = open_store(Connection(uri=uri, token=os.environ.get("M3INDEX_TEST_TOKEN")))
    yield opened
    opened.close()


_numbers = count(1)


@pytest.fixture
def fresh(store: Store) -> Iterator[Callable[[CollectionSpec], str]]:
    """Makes empty collections that are dropped after the test."""
    made: list[str] = []

    def make(spec: CollectionSpec) -> str:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        store.create(name, spec, {"uuid": name})
        made.append(name)
        return name

    yield make
    for name in made:
        store.drop(name)
