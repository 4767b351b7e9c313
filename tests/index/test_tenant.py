"""Collections with tenants, and runs limited to one tenant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from index.support import REINDEX, SETTINGS, VERIFY, ListCorpus, doc, rows, run

from m3index.errors import DeletesWithheldError, MismatchError, UsageError
from m3index.index.changes import Deletion, apply_changes, plan_changes
from m3index.index.delete import delete
from m3index.index.forecast import plan
from m3index.index.options import DeleteOptions
from m3index.index.reindex import reindex
from m3index.index.status import status
from m3index.index.tenant import tenant_of
from m3index.index.verify import verify
from m3index.progress import Silent
from m3index.store.base import Store
from m3index.store.filter import Compare
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Document, Place, Rejected

ORG = replace(SETTINGS, tenant_field="org")
ACME = replace(SETTINGS, tenant="acme")
CORPUS = [
    doc("a", 30, org="acme"),
    doc("b", org="acme"),
    doc("c", 25, org="globex"),
    doc("d", org="globex"),
]


@pytest.fixture(params=["memory", "lite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that contains the corpus."""
    opened = open_store(Connection(uri="memory:" if request.param == "memory" else str(tmp_path / "t.db")))
    assert run(opened, CORPUS, settings=ORG).exit == 0
    yield opened
    opened.close()


def owners(store: Store) -> dict[str, str]:
    return {row["doc_id"]: row["org"] for row in rows(store).values()}


def reasons(store: Store, items: list[Document], **changes: str | None) -> list[str]:
    """The reasons for which a run rejects these documents."""

    class Recorder(Silent):
        def rejected(self, rejected: Rejected) -> None:
            reasons.append(f"{rejected.doc_id}: {rejected.reason}")

    reasons: list[str] = []
    run(store, items, settings=replace(ACME, **changes), reporter=Recorder())
    return reasons


def test_the_tenant_field_is_declared_and_shown(store: Store) -> None:
    target = store.resolve("docs")
    assert target is not None
    assert store.spec(target).tenant == "org"
    assert dict(store.spec(target).fields) == {"org": "str"}
    found = status(store, "docs")
    assert (found.tenant_field, found.fields) == ("org", {"org": "str"})
    assert owners(store) == {"a": "acme", "b": "acme", "c": "globex", "d": "globex"}
    assert run(store, CORPUS, settings=ORG).unchanged == 4, "the same field can be named again"


def test_a_document_without_a_tenant_is_quarantined(store: Store) -> None:
    for nobody in (doc("e"), doc("e", org=""), doc("e", org=None)):
        assert reasons(store, [nobody], tenant=None) == [
            "e: no 'org' in its metadata, which says whose it is (the tenant field)"
        ]
    assert "e" not in owners(store)


def test_a_document_that_changes_tenant_is_stored_once(store: Store) -> None:
    moved = [replace(CORPUS[0], metadata={"org": "globex"}), *CORPUS[1:]]
    summary = run(store, moved, settings=SETTINGS)
    assert (summary.metadata_only, summary.unchanged, summary.count_ok) == (1, 3, True)
    assert owners(store)["a"] == "globex"
    assert len([row for row in rows(store).values() if row["doc_id"] == "a"]) > 1


def test_an_existing_collection_cannot_get_a_tenant_field(store: Store) -> None:
    with pytest.raises(MismatchError, match=r"The tenant field of collection 'docs' is 'org', not 'lang'"):
        run(store, CORPUS, settings=replace(SETTINGS, tenant_field="lang"))
    with pytest.raises(UsageError, match="declared str and int"):
        run(store, CORPUS, settings=replace(SETTINGS, tenant_field="org:int"))
    plain = MemoryStore()
    run(plain, CORPUS)
    with pytest.raises(MismatchError, match=r"has no tenant field.*reindex -c docs"):
        run(plain, CORPUS, settings=ORG)
    with pytest.raises(UsageError, match="'docs' has no tenant field"):
        run(plain, CORPUS, settings=ACME)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tenant": "acme"}, "would have no tenant field"),
        ({"tenant": "acme", "tenant_field": "org:int"}, "'acme' is none"),
        ({"tenant": "", "tenant_field": "org"}, "tenant is empty"),
    ],
)
def test_no_collection_is_created_for_an_impossible_tenant(changes: dict[str, str], message: str) -> None:
    empty = MemoryStore()
    with pytest.raises(UsageError, match=message):
        run(empty, CORPUS, settings=replace(SETTINGS, **changes))
    assert empty.collections() == []


@pytest.mark.parametrize("value", ["abc", "1.0", "99999999999999999999", "-99999999999999999999", " "])
def test_an_invalid_tenant_number(value: str) -> None:
    store = MemoryStore()
    numbered = [doc("a", org=1), doc("b", org=-(2**63))]
    run(store, numbered, settings=replace(SETTINGS, tenant_field="org:int"))
    with pytest.raises(UsageError, match="holds whole numbers of 64 bits"):
        delete(store, "docs", DeleteOptions(ids=["a"], tenant=value))
    assert delete(store, "docs", DeleteOptions(ids=["a", "b"], tenant=str(-(2**63)))).deleted == 1


def test_an_empty_tenant_does_not_mean_all_tenants(store: Store) -> None:
    for nobody in (
        lambda: replace(SETTINGS, tenant=""),
        lambda: replace(VERIFY, tenant="", repair=True),
        lambda: DeleteOptions(ids=["a"], tenant=""),
    ):
        with pytest.raises(UsageError, match="tenant is empty"):
            nobody()
    with pytest.raises(UsageError, match="tenant is empty"):
        tenant_of(store.spec("docs__g1"), "docs", "")


# ------------------------------------------------------------------------- runs for one tenant


def test_a_sync_of_one_tenant_leaves_the_others_alone(store: Store) -> None:
    summary = run(store, [doc("b", "other text", org="acme"), doc("e", org="acme")], settings=ACME)
    assert (summary.added, summary.updated, summary.deleted, summary.exit) == (1, 1, 1, 0)
    assert summary.count_ok
    assert owners(store) == {"b": "acme", "e": "acme", "c": "globex", "d": "globex"}


def test_the_guard_counts_only_the_tenant(store: Store) -> None:
    guard = replace(ACME, max_delete=1)
    assert run(store, [CORPUS[1]], settings=guard).deleted == 1
    summary = run(store, [doc("z", org="acme")], settings=replace(guard, max_delete=0))
    assert (summary.deletes_withheld, summary.exit) == (1, 14)


def test_documents_of_other_tenants_are_rejected(store: Store) -> None:
    before = rows(store)
    taken = doc("c", "mine now", org="acme")
    assert reasons(store, [*CORPUS[:2], taken, CORPUS[3]]) == [
        "c: a document of another tenant has this id; give each tenant a separate --source",
        "d: the document belongs to another tenant than this run",
    ]
    assert rows(store) == before
    assert reasons(store, [replace(CORPUS[0], metadata={"org": "globex"}), CORPUS[1]]) == [
        "a: the document belongs to another tenant than this run"
    ]
    assert rows(store) == before, (
        "a document in the corpus is not removed because it belongs to another tenant"
    )


def test_prune_and_plan_of_one_tenant(store: Store) -> None:
    forecast = plan(store, FakeEncoder(), "docs", ListCorpus([CORPUS[0]]), ACME)
    assert (forecast.unchanged, forecast.deleted) == (1, 1)
    assert run(store, [CORPUS[0]], settings=replace(ACME, removals_only=True)).deleted == 1
    assert set(owners(store)) == {"a", "c", "d"}


def test_delete_of_one_tenant(store: Store) -> None:
    assert delete(store, "docs", DeleteOptions(ids=["a", "c"], tenant="acme", dry_run=True)).deleted == 1
    assert delete(store, "docs", DeleteOptions(ids=["a", "c"], tenant="acme")).deleted == 1
    assert set(owners(store)) == {"b", "c", "d"}
    everything = DeleteOptions(where=Compare("ordinal", ">=", 0), tenant="globex")
    assert delete(store, "docs", everything).deleted == 2
    assert set(owners(store)) == {"b"}


def test_a_feed_of_one_tenant(store: Store) -> None:
    feed = [Deletion("a", Place("f")), Deletion("c", Place("f")), doc("e", org="acme"), doc("d", org="acme")]
    forecast = plan_changes(store, FakeEncoder(), "docs", feed, ACME)
    assert (forecast.deleted, forecast.added, forecast.quarantined) == (1, 1, 1)
    summary = apply_changes(store, FakeEncoder(), "docs", feed, ACME)
    assert (summary.deleted, summary.added, summary.quarantined, summary.count_ok) == (1, 1, 1, True)
    assert owners(store) == {"b": "acme", "c": "globex", "d": "globex", "e": "acme"}


def test_verify_of_one_tenant(store: Store) -> None:
    proof = verify(store, FakeEncoder(), "docs", ListCorpus(CORPUS[:2]), replace(VERIFY, tenant="acme"))
    assert (proof.checked, proof.exit) == (2, 0)
    assert (proof.tenant_field, proof.tenant) == ("org", "acme")
    mending = replace(VERIFY, tenant="acme", repair=True)
    proof = verify(store, FakeEncoder(), "docs", ListCorpus(CORPUS[:1]), mending)
    assert (proof.by_kind, proof.repaired, proof.exit) == ({"ghost": 1}, 1, 0)
    assert set(owners(store)) == {"a", "c", "d"}


def test_a_reindex_gives_changes_and_keeps_the_tenant_field(store: Store) -> None:
    encoder = FakeEncoder()
    reindex(store, encoder, "docs", replace(REINDEX, fields={"lang": "str"}))
    assert status(store, "docs").tenant_field == "org", "it is kept although it was not given"
    assert status(store, "docs").fields == {"lang": "str", "org": "str"}
    with pytest.raises(DeletesWithheldError, match="alias 'docs' was not moved"):
        reindex(store, encoder, "docs", replace(REINDEX, tenant_field="lang", max_delete=None))
    assert status(store, "docs").tenant_field == "org"
    assert set(owners(store)) == {"a", "b", "c", "d"}, "no document has a lang, and none is lost"
    plain = MemoryStore()
    run(plain, CORPUS)
    encoder = FakeEncoder()
    summary = reindex(plain, encoder, "docs", replace(REINDEX, tenant_field="org"))
    assert (summary.tokens, summary.store_count) == (0, len(rows(plain)))
    assert owners(plain) == {"a": "acme", "b": "acme", "c": "globex", "d": "globex"}


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["acme", "globex"]), st.integers(1, 30)), max_size=6
)


@given(history=st.lists(st.tuples(CHANGES, st.sampled_from(["acme", "globex"])), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_no_run_of_one_tenant_touches_another(history: list[tuple[list[tuple[str, str, int]], str]]) -> None:
    store = MemoryStore()
    run(store, CORPUS, settings=ORG)
    for corpus, tenant in history:
        before = {i: row for i, row in rows(store).items() if row["org"] != tenant}
        summary = run(
            store, [doc(i, words, org=org) for i, org, words in corpus], settings=replace(ACME, tenant=tenant)
        )
        assert summary.count_ok is not False
        after = rows(store)
        assert {i: row for i, row in after.items() if row["org"] != tenant} == before
        own = {i for i, org, _ in corpus if org == tenant}
        foreign = {row["doc_id"] for row in before.values()}
        met = {i for i, _, _ in corpus}
        assert {row["doc_id"] for row in after.values() if row["org"] == tenant} <= met
        assert own - foreign - {i for i, org, _ in corpus if org != tenant} <= {
            row["doc_id"] for row in after.values()
        }
