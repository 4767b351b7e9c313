from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import SETTINGS, doc, rows, run

from m3index.errors import CollectionNotFoundError, MismatchError, MissingHeadError, UsageError
from m3index.index.collection import find, generation_number
from m3index.index.options import SyncOptions
from m3index.store.memory import MemoryStore


class CrashError(Exception):
    pass


@pytest.mark.parametrize("moment", ["before create", "after create", "before point", "after point"])
def test_a_crash_during_creation_is_repaired(moment: str) -> None:
    store = MemoryStore()

    def fail(now: str) -> None:
        if now == moment:
            raise CrashError

    store.fail = fail
    with pytest.raises(CrashError):
        run(store, [doc("a")])
    store.fail = None
    assert run(store, [doc("a")]).added == 1
    assert store.collections() == ["docs__g1"]
    assert store.resolve("docs") == "docs__g1"


def test_properties_of_a_new_collection() -> None:
    store = MemoryStore()
    run(store, [doc("a")], settings=replace(SETTINGS, fields={"lang": "str"}))
    properties = find(store, "docs").properties
    assert properties["space_id"] == FakeEncoder().info.space_id
    assert properties["encoder"] == "fake"
    assert properties["fields"] == '{"lang": "str"}'
    assert properties["state"] == "live"
    assert len(properties["uuid"]) == 32


@pytest.mark.parametrize(
    ("encoder", "options", "error"),
    [
        (FakeEncoder(space="other"), {}, MismatchError),
        (FakeEncoder(dim=8), {}, MismatchError),
        (FakeEncoder(), {"sparse": "bm25"}, MismatchError),
        (FakeEncoder(), {"analyzer": "icu"}, MismatchError),
        (FakeEncoder(), {"fields": {"year": "int"}}, MismatchError),
        (FakeEncoder(), {"fields": {"lang": "int"}}, MismatchError),
        (FakeEncoder(lexical=False), {}, MissingHeadError),
    ],
)
def test_a_run_with_another_layout_is_refused(
    encoder: FakeEncoder, options: dict[str, Any], error: type[Exception]
) -> None:
    store = MemoryStore()
    run(store, [doc("a")], settings=replace(SETTINGS, fields={"lang": "str"}))
    before = rows(store)
    with pytest.raises(error) as caught:
        run(store, [doc("b")], encoder, settings=replace(SETTINGS, **options))
    assert rows(store) == before
    assert error is MissingHeadError or "m3index reindex" in str(caught.value)


def test_another_encoder_of_the_same_space_is_accepted() -> None:
    store = MemoryStore()
    run(store, [doc("a")], FakeEncoder(name="teacher", space="m3"))
    assert run(store, [doc("a")], FakeEncoder(name="student", space="m3")).unchanged == 1


def test_another_schema_version_is_refused() -> None:
    store = MemoryStore()
    run(store, [doc("a")])
    store.set_properties("docs__g1", {"schema_version": "0"})
    with pytest.raises(MismatchError, match="schema version 0"):
        run(store, [doc("a")])


def test_names() -> None:
    with pytest.raises(CollectionNotFoundError, match="no collection"):
        find(MemoryStore(), "docs")
    with pytest.raises(MissingHeadError):
        run(MemoryStore(), [doc("a")], FakeEncoder(lexical=False), settings=SyncOptions(sparse="lexical"))
    assert generation_number("docs", "docs__g12") == 12
    assert generation_number("docs", "docs__g0") is None
    assert generation_number("docs", "docs2__g1") is None
    assert generation_number("d.cs", "docs__g1") is None


def test_several_generations_without_an_alias_are_an_error() -> None:
    store = MemoryStore()
    run(store, [doc("a")])
    spec, properties = store.spec("docs__g1"), store.properties("docs__g1")
    store.create("docs__g2", spec, properties)
    store.drop_alias("docs")
    with pytest.raises(UsageError, match="m3index generations rollback -c docs --to N"):
        run(store, [doc("a")])
