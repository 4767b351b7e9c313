"""One server for the suite: M3INDEX_TEST_URI (with M3INDEX_TEST_TOKEN), else `milvus-lite server`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from fakes import FakeEncoder
from integration.corpora import OpenIndex
from integration.engines import Engine, engine_name
from servers import lite_server

from m3index.errors import M3IndexError
from m3index.index import lock
from m3index.index.collection import generation_names
from m3index.store.base import Store
from m3index.store.open import open_store
from m3index.store.options import Connection

NewIndex = Callable[..., OpenIndex]
_numbers = count(1)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    given, token = os.environ.get("M3INDEX_TEST_URI"), os.environ.get("M3INDEX_TEST_TOKEN")
    if given:
        yield Engine(given, token, _name(given, token), given=True)
        return
    with lite_server(tmp_path_factory.mktemp("integration") / "data") as uri:
        yield Engine(uri, None, _name(uri, None), given=False)


def _name(uri: str, token: str | None) -> Any:
    store = open_store(Connection(uri=uri, token=token))
    try:
        return engine_name(store.describe())
    finally:
        store.close()


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the wait after a lease is written, because no other host competes and there are many runs."""
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)


@pytest.fixture(scope="session")
def janitor(engine: Engine) -> Iterator[list[str]]:
    """Gives unique names, and drops their aliases and generations at the end."""
    names: list[str] = []
    yield names
    store = open_store(Connection(uri=engine.uri, token=engine.token))
    for name in names:
        _remove(store, name)
    store.close()


def _remove(store: Store, name: str) -> None:
    with suppress(M3IndexError):
        store.drop_alias(name)
        for generation in generation_names(store, name):
            store.drop(generation)


@pytest.fixture(scope="session")
def new_index(engine: Engine, janitor: list[str]) -> Iterator[NewIndex]:
    """Opens an index on the server, with a unique name unless `collection` is given."""
    opened: list[OpenIndex] = []

    def make(collection: str | None = None, **options: Any) -> OpenIndex:
        if collection is None:
            collection = f"it_{os.getpid()}_{next(_numbers)}"
        if collection not in janitor:
            janitor.append(collection)
        options = {"uri": engine.uri, "token": engine.token, "encoder": FakeEncoder(), **options}
        index = OpenIndex(collection, **options)
        opened.append(index)
        return index

    yield make
    for index in opened:
        index.close()
