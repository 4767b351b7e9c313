from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from index.support import INGEST, SETTINGS, VERIFY, ListCorpus, bad, doc, rows, run

from m3index.errors import DriftError, Exit, MismatchError, UsageError
from m3index.index.options import VerifyOptions, subset
from m3index.index.verify import Difference, Verification, verify
from m3index.store.memory import MemoryStore
from m3index.store.rows import row_fields, row_of
from m3index.types import Document, Rejected, Row, SparseVector, Storage, document_key, passage_key

NAME = "docs__g1"
CORPUS = [doc(f"d{i}", n, tag=i) for i, n in enumerate([30, 3, 40, 12, 1, 25])]


def key(doc_id: str, ordinal: int = 0) -> str:
    return passage_key(document_key("default", doc_id), ordinal)


def read(store: MemoryStore, passage_id: str) -> Row:
    spec = store.spec(NAME)
    return row_of(passage_id, store.get(NAME, [passage_id], row_fields(spec))[passage_id], spec)


def plant(doc_id: str, ordinal: int, **changes: Any) -> Callable[[MemoryStore], None]:
    def planted(store: MemoryStore) -> None:
        store.upsert(NAME, [replace(read(store, key(doc_id, ordinal)), **changes)])

    return planted


def missing(doc_id: str, *ordinals: int) -> Callable[[MemoryStore], None]:
    return lambda store: store.delete(NAME, [key(doc_id, o) for o in ordinals])


def ghost_passage(store: MemoryStore) -> None:
    store.upsert(NAME, [replace(read(store, key("d3", 0)), passage_id=key("d3", 7), ordinal=7)])


def ghost_document(store: MemoryStore) -> None:
    run(store, [doc("ghost", 25)], settings=INGEST)


def orphan(store: MemoryStore) -> None:
    ghost_document(store)
    store.delete(NAME, [key("ghost", 0)])


def turned(store: MemoryStore) -> None:
    row = read(store, key("d2", 3))
    store.upsert(NAME, [replace(row, dense=np.roll(row.dense, 1))])


FAULTS: list[tuple[str, Callable[[MemoryStore], None], set[tuple[str, str, int | None]]]] = [
    ("vector", turned, {("vector", "d2", 3)}),
    (
        "lexical weights",
        plant("d2", 1, sparse=SparseVector(np.array([7], np.int32), np.array([1.0], np.float32))),
        {("vector", "d2", 1)},
    ),
    ("missing passage", missing("d2", 2), {("missing", "d2", 2)}),
    ("missing first passage", missing("d2", 0), {("missing", "d2", 0)}),
    ("missing document", missing("d3", 0, 1), {("missing", "d3", None)}),
    ("ghost passage", ghost_passage, {("ghost", "d3", 7)}),
    ("ghost document", ghost_document, {("ghost", "ghost", None)}),
    ("orphan", orphan, {("ghost", "ghost", None)}),
    ("stale hash", plant("d5", 0, doc_hash="0.0"), {("hash", "d5", 0)}),
    ("half written", plant("d5", 0, doc_hash=""), {("hash", "d5", 0)}),
    ("wrong count", plant("d5", 0, passages=9), {("count", "d5", 0)}),
    ("count too small", plant("d5", 0, passages=1), {("count", "d5", 0)}),
    ("text", plant("d5", 1, text="not that"), {("text", "d5", 1)}),
    ("metadata", plant("d5", 1, metadata={"tag": 99}), {("metadata", "d5", 1)}),
]


def proof(
    store: MemoryStore,
    corpus: Sequence[Document | Rejected] = CORPUS,
    *,
    on_difference: Callable[[Difference], None] | None = None,
    **options: Any,
) -> Verification:
    """Verifies with VERIFY and these changes."""
    settings = replace(VERIFY, **options)
    return verify(store, FakeEncoder(), "docs", ListCorpus(corpus), settings, on_difference=on_difference)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    run(store, CORPUS)
    return store


def test_an_intact_index(store: MemoryStore) -> None:
    made: list[str] = []
    store.fail = made.append
    result = proof(store)
    assert (result.exit, result.differing, result.checked) == (0, 0, len(CORPUS))
    assert result.passages == result.store_count
    assert "before upsert" not in made
    assert store.properties(NAME)["last_verified"]


@pytest.mark.parametrize(("fault", "expected"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_each_planted_fault_is_found_and_repaired(
    store: MemoryStore,
    fault: Callable[[MemoryStore], None],
    expected: set[tuple[str, str, int | None]],
) -> None:
    sound = rows(store)
    fault(store)
    differences: list[Difference] = []
    result = proof(store, on_difference=differences.append)
    assert {(d.kind, d.doc_id, d.ordinal) for d in differences} == expected
    assert all(d.detail for d in differences)
    assert (result.exit, result.differing, result.repaired) == (Exit.DRIFT, 1, 0)
    assert "last_verified" not in store.properties(NAME)

    written: list[str] = []
    upsert, delete = store.upsert, store.delete
    store.upsert = lambda name, r: (written.extend(x.doc_id for x in r), upsert(name, r))[1]  # type: ignore[method-assign]
    store.delete = lambda name, ids: (written.extend(ids), delete(name, ids))[1]  # type: ignore[method-assign]
    mended = proof(store, repair=True)
    assert (mended.exit, mended.differing) == (0, mended.repaired)
    assert rows(store) == sound
    faulty = {doc_id for _, doc_id, _ in expected}
    keys = {document_key("default", doc_id) for doc_id in faulty}
    assert all(w in faulty or w.partition("-")[0] in keys for w in written), "nothing else was touched"
    assert proof(store).exit == 0


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_rounded_vectors_match_and_others_are_found(storage: Storage) -> None:
    store = MemoryStore()
    run(store, CORPUS, settings=replace(SETTINGS, storage=storage))
    assert proof(store).exit == 0
    whole = read(store, key("d0", 1)).dense
    other = read(store, key("d2", 1)).dense
    near = whole + 0.15 * other
    plant("d0", 1, dense=(near / np.linalg.norm(near)).astype(np.float32))(store)
    result = proof(store)
    assert (result.by_kind, result.exit, result.storage) == ({"vector": 1}, Exit.DRIFT, storage)


def test_slices_cover_everything_once(store: MemoryStore) -> None:
    turned(store)
    missing("d0", 1)(store)
    ghost_document(store)
    parts = [proof(store, subset=f"{i}/4") for i in range(1, 5)]
    assert sum(p.checked for p in parts) == len(CORPUS)
    assert sum(p.differing for p in parts) == 3
    for i in range(1, 5):
        assert proof(store, subset=f"{i}/4", repair=True).exit == 0
    assert proof(store).exit == 0
    assert proof(store, subset="2/4").subset == "2/4"


def test_a_document_that_changed_later_is_a_difference(store: MemoryStore) -> None:
    corpus = [doc("d0", 31, tag=0), *CORPUS[1:]]
    result = proof(store, corpus=corpus)
    assert result.differing == 1
    assert {"hash", "text"} <= set(result.by_kind)


def test_ghosts_are_sought_only_in_a_complete_corpus(store: MemoryStore) -> None:
    result = proof(store, corpus=[*CORPUS[:-1], bad()], repair=True)
    assert (result.ghosts_sought, result.differing, result.exit) == (False, 0, Exit.QUARANTINED)
    assert proof(store).exit == 0


def test_a_document_whose_row_is_bad_now_is_stale(store: MemoryStore) -> None:
    result = proof(store, corpus=[*CORPUS[:-1], bad("d5"), bad("never indexed")], repair=True)
    assert (result.exit, result.by_kind, result.repaired) == (Exit.DRIFT, {"stale": 1}, 0)
    assert [d.doc_id for d in result] == ["d5"]
    unidentified = proof(store, corpus=[*CORPUS[:-1], bad("d5"), bad()])
    assert (unidentified.by_kind, unidentified.ghosts_sought) == ({"stale": 1}, False)


def test_a_document_that_does_not_fit_its_field_any_more_is_stale() -> None:
    store, typed = MemoryStore(), replace(SETTINGS, fields={"year": "int"})
    run(store, [doc("a", 3, year=1), doc("b", 3, year=2)], settings=typed)
    changed = [doc("a", 3, year=1), doc("b", 5, year="two"), doc("c", 3, year="three"), doc("a", 9, year=1)]
    assert run(store, changed, settings=typed).quarantined == 3
    result = proof(store, corpus=changed)
    assert (result.exit, result.by_kind, result.quarantined) == (Exit.DRIFT, {"stale": 1}, 3)


def test_repair_respects_the_guard(store: MemoryStore) -> None:
    run(store, [doc(f"x{i}") for i in range(15)], settings=INGEST)
    result = proof(store, repair=True, max_delete=None)
    assert (result.exit, result.differing, result.repaired) == (Exit.DRIFT, 15, 0)
    assert proof(store, repair=True).repaired == 15


def test_another_space_is_refused(store: MemoryStore) -> None:
    with pytest.raises(MismatchError):
        verify(store, FakeEncoder(space="other"), "docs", ListCorpus(CORPUS), VERIFY)


def test_raise_for_differences(store: MemoryStore) -> None:
    proof(store).raise_for_differences()
    turned(store)
    with pytest.raises(DriftError, match="In 'docs', 1 document differs from the corpus"):
        proof(store).raise_for_differences()
    assert [difference.doc_id for difference in proof(store)] == ["d2"]
    proof(store, repair=True).raise_for_differences()


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4"])
def test_invalid_subsets(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        subset(text)
    with pytest.raises(UsageError, match="subset takes a slice such as 3/64, not "):
        VerifyOptions(subset=text)
    assert subset("3/64") == VerifyOptions(subset=(3, 64)).slice == (3, 64)
