from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEncoder
from index.support import INGEST, REINDEX, SETTINGS, VERIFY, ListCorpus, bad, doc, rows, run

from m3index.errors import (
    CollectionNotFoundError,
    DeletesWithheldError,
    Exit,
    GateError,
    MismatchError,
    NotFoundError,
    UsageError,
)
from m3index.index.generations import drop_old, generations, plan_rollback, rollback
from m3index.index.options import MaxDelete
from m3index.index.reindex import plan_reindex, reindex
from m3index.index.status import status
from m3index.index.verify import verify
from m3index.progress import Silent
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store.memory import MemoryStore
from m3index.types import Document, Leg, Rejected, Storage

CORPUS = [doc(f"d{i}", 5 + 7 * i, lang="en" if i % 2 else "de") for i in range(8)]
NEW = "new model"


def corpora(items: Iterable[Document | Rejected]) -> dict[str, Callable[[], ListCorpus]]:
    return {"default": lambda: ListCorpus(items)}


class Rejections(Silent):
    """Collects the rejected documents."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def rejected(self, rejected: Rejected) -> None:
        self.ids.append(rejected.doc_id)


def other() -> FakeEncoder:
    return FakeEncoder(name=NEW)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    run(store, CORPUS)
    return store


def test_a_new_model(store: MemoryStore) -> None:
    encoder = other()
    summary = reindex(store, encoder, "docs", REINDEX, corpora=corpora(CORPUS))
    assert (summary.exit, summary.generation, summary.added, summary.count_ok) == (0, 2, 8, True)
    assert (summary.command, summary.store_count) == ("reindex", encoder.encoded)
    rebuilt = MemoryStore()
    run(rebuilt, CORPUS, other())
    assert rows(store) == rows(rebuilt)
    assert store.resolve("docs") == "docs__g2"
    assert [(g.number, g.current, g.encoder) for g in generations(store, "docs")] == [
        (1, False, "fake"),
        (2, True, NEW),
    ]
    assert run(store, CORPUS, other()).unchanged == 8


def test_a_plan_predicts_and_writes_nothing(store: MemoryStore) -> None:
    before, count = rows(store), store.count("docs__g1")
    copied = plan_reindex(store, FakeEncoder(), "docs", replace(REINDEX, fields={"lang": "str"}))
    assert (copied.encodes, copied.generation, copied.rows) == (False, 2, count)
    assert plan_reindex(store, other(), "docs", REINDEX, corpora(CORPUS)).encodes
    with pytest.raises(UsageError, match="Name the corpus"):
        plan_reindex(store, other(), "docs", REINDEX)
    assert (store.collections(), rows(store)) == (["docs__g1"], before)


def test_a_declared_field_copies_the_vectors(store: MemoryStore) -> None:
    encoder, before = FakeEncoder(), rows(store)
    summary = reindex(store, encoder, "docs", replace(REINDEX, fields={"lang": "str"}))
    assert encoder.encoded == summary.tokens == 0
    assert (summary.added, summary.passages) == (8, len(before))
    after = rows(store)
    assert {row["lang"] for row in after.values()} == {"en", "de"}
    assert {k: {f: v for f, v in row.items() if f != "lang"} for k, row in after.items()} == before
    assert run(store, CORPUS, encoder).unchanged == 8
    rebuilt = MemoryStore()
    run(rebuilt, CORPUS, settings=replace(SETTINGS, fields={"lang": "str"}))
    assert rows(store) == rows(rebuilt)


def test_a_passage_of_only_spaces_is_copied(store: MemoryStore) -> None:
    corpus = [*CORPUS, doc("wide", "start" + " " * 200_000 + "end", lang="en")]
    run(store, corpus)
    assert any(row["text"].isspace() for row in rows(store).values())
    assert reindex(store, FakeEncoder(), "docs", replace(REINDEX, fields={"lang": "str"})).exit == 0
    assert run(store, corpus).unchanged == len(corpus)


def test_an_omitted_passage_size_is_kept(store: MemoryStore) -> None:
    omitted = {"passages_by": None, "passage_tokens": None, "overlap": None}
    for sizes in ({"passage_tokens": 10}, {"overlap": 2}, {"passages_by": "tokens"}, {}):
        layout = replace(REINDEX, **omitted | sizes)
        assert not plan_reindex(store, FakeEncoder(), "docs", layout).encodes, sizes
    other = replace(REINDEX, **omitted | {"passages_by": "structure"})
    assert plan_reindex(store, FakeEncoder(), "docs", other, corpora(CORPUS)).encodes
    finer = replace(REINDEX, **omitted | {"overlap": 0})
    assert reindex(store, FakeEncoder(), "docs", finer, corpora=corpora(CORPUS)).exit == 0
    assert status(store, "docs").passages == {"tokens": 10, "overlap": 0, "by": "tokens"}


def test_a_field_of_another_type_quarantines_its_document(store: MemoryStore) -> None:
    run(store, [*CORPUS, doc("n", 30, lang=7)])
    summary = reindex(store, FakeEncoder(), "docs", replace(REINDEX, fields={"lang": "str"}))
    assert (summary.exit, summary.quarantined) == (3, 1)
    assert "n" not in {row["doc_id"] for row in rows(store).values()}


@pytest.mark.parametrize("force", [False, True])
def test_fields_that_few_documents_match_do_not_empty_the_collection(store: MemoryStore, force: bool) -> None:
    wrong = replace(REINDEX, fields={"lang": "int"}, max_delete=None, force=force)
    rejections = Rejections()
    with pytest.raises(
        DeletesWithheldError, match=r"8 documents were rejected that the current generation has"
    ) as caught:
        reindex(store, FakeEncoder(), "docs", wrong, corpora=corpora(CORPUS), reporter=rejections)
    assert caught.value.summary is not None
    assert (caught.value.summary["quarantined"], caught.value.summary["deletes_withheld"]) == (8, 8)
    assert len(rejections.ids) == len(set(rejections.ids)) == 8
    assert (store.resolve("docs"), status(store, "docs").documents) == ("docs__g1", 8)
    allowed = replace(wrong, max_delete=MaxDelete(percent=100))
    assert reindex(store, FakeEncoder(), "docs", allowed, corpora=corpora(CORPUS)).exit == 3
    assert status(store, "docs").documents == 0


@pytest.mark.parametrize("force", [False, True])
def test_max_errors_stops_before_the_swap(store: MemoryStore, force: bool) -> None:
    corpus = [*CORPUS, doc("n", 30, lang=7), doc("m", 30, lang=8)]
    run(store, corpus)
    typed = replace(REINDEX, fields={"lang": "str"}, force=force)
    stopped = reindex(store, FakeEncoder(), "docs", replace(typed, max_errors=1), corpora=corpora(corpus))
    assert (stopped.exit, stopped.quarantined, store.resolve("docs")) == (Exit.STOPPED, 2, "docs__g1")
    done = reindex(store, FakeEncoder(), "docs", replace(typed, max_errors=2), corpora=corpora(corpus))
    assert (done.exit, done.quarantined, store.resolve("docs")) == (Exit.QUARANTINED, 2, "docs__g2")


def test_a_rejected_document_is_reported_once(store: MemoryStore) -> None:
    run(store, [*CORPUS, doc("n", 30, lang=7)])
    rejections = Rejections()
    reindex(store, FakeEncoder(), "docs", replace(REINDEX, fields={"lang": "str"}), reporter=rejections)
    assert rejections.ids == ["n"], "although it is read twice, before and during the swap"


def test_force_encodes_instead_of_copying(store: MemoryStore) -> None:
    encoder = FakeEncoder()
    with pytest.raises(UsageError, match="Name the corpus"):
        reindex(store, encoder, "docs", replace(REINDEX, force=True))
    reindex(store, encoder, "docs", replace(REINDEX, force=True), corpora=corpora(CORPUS))
    assert encoder.encoded == len(rows(store))


def test_a_sync_before_the_swap_is_not_lost(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a sync between the build of the new generation and the swap."""
    later = [*CORPUS[2:], doc("new", 30), doc("d1", "changed meanwhile")]
    state = {"corpus": CORPUS}

    def gate(old: str, new: str) -> None:
        assert (old, new) == ("docs__g1", "docs__g2")
        assert store.resolve("docs") == old
        state["corpus"] = later
        assert run(store, later).deleted == 1

    summary = reindex(
        store, other(), "docs", REINDEX, corpora={"default": lambda: ListCorpus(state["corpus"])}, gate=gate
    )
    assert summary.exit == 0
    rebuilt = MemoryStore()
    run(rebuilt, later, other())
    assert rows(store) == rows(rebuilt)


def test_a_sync_during_a_copy_is_not_lost(store: MemoryStore) -> None:
    later = [doc("d0", 50, lang="xx"), *CORPUS[2:], doc("new", 30, lang="zz")]
    changed = replace(REINDEX, fields={"lang": "str"})
    reindex(store, FakeEncoder(), "docs", changed, gate=lambda _old, _new: run(store, later) and None)
    rebuilt = MemoryStore()
    run(rebuilt, later, settings=replace(SETTINGS, fields={"lang": "str"}))
    assert rows(store) == rows(rebuilt)


def test_searches_and_a_sync_run_during_a_reindex(store: MemoryStore) -> None:
    """No search fails, and the vectors of its hits all come from one encoder."""
    run(store, many := [doc(f"m{i}", 20, v=1) for i in range(300)])
    later = [doc(f"m{i}", 20, v=2) for i in range(300)]
    stop, problems, searched = threading.Event(), [], []
    state = {"corpus": many}

    def search() -> None:
        query = FakeEncoder().encode_queries(["m7w3"], lexical=True)
        while not stop.is_set():
            try:
                name = store.resolve("docs")
                assert name is not None
                hits = store.search(name, Leg.DENSE, [query.dense[0]], 50)[0]
                found = store.get(name, [h.passage_id for h in hits], ["doc_hash"])
                if len(hits) != 50 or len(found) != 50:
                    problems.append((name, len(hits), len(found)))
                searched.append(name)
            except Exception as error:
                problems.append(error)

    def sync_once() -> None:
        state["corpus"] = later
        run(store, later, settings=replace(SETTINGS, retry_lock=20.0))

    threads = [threading.Thread(target=search), threading.Thread(target=sync_once)]
    for thread in threads:
        thread.start()
    reindex(
        store,
        other(),
        "docs",
        replace(REINDEX, retry_lock=20.0),
        corpora={"default": lambda: ListCorpus(state["corpus"])},
    )
    threads[1].join()
    while "docs__g2" not in searched and threads[0].is_alive():
        pass
    stop.set()
    threads[0].join()
    assert not problems
    assert {"docs__g1", "docs__g2"} == set(searched)
    assert {row["metadata"]["v"] for row in rows(store).values()} == {2}, "the sync is not lost"


def test_a_failed_gate_leaves_the_build_for_the_next_run(store: MemoryStore) -> None:
    def refuse(_old: str, _new: str) -> None:
        raise GateError("nDCG@10 is worse")

    before = rows(store)
    with pytest.raises(GateError):
        reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS), gate=refuse)
    assert store.resolve("docs") == "docs__g1"
    assert rows(store) == before
    assert [(g.number, g.state) for g in generations(store, "docs")] == [(1, "live"), (2, "building")]
    encoder = other()
    summary = reindex(store, encoder, "docs", REINDEX, corpora=corpora(CORPUS))
    assert (summary.generation, summary.unchanged, encoder.encoded) == (2, 8, 0)


def test_an_interrupted_build_is_resumed_or_dropped(store: MemoryStore) -> None:
    class Stop:
        exit = Exit.INTERRUPTED

        def __init__(self) -> None:
            self.calls = 0

        def __call__(self) -> bool:
            self.calls += 1
            return self.calls > 4

    summary = reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS), stop=Stop())
    assert (summary.exit, store.resolve("docs")) == (130, "docs__g1")
    third = FakeEncoder(name="third")
    summary = reindex(store, third, "docs", REINDEX, corpora=corpora(CORPUS))
    assert summary.exit == 0
    assert [g.encoder for g in generations(store, "docs")] == ["fake", "third"]


def test_a_corpus_without_old_documents_does_not_replace_them(store: MemoryStore) -> None:
    guarded = replace(REINDEX, max_delete=None)
    run(store, [doc(f"x{i}") for i in range(30)], settings=INGEST)
    with pytest.raises(DeletesWithheldError, match="alias 'docs' was not moved") as caught:
        reindex(store, other(), "docs", guarded, corpora=corpora(CORPUS))
    assert caught.value.exit_code == 14
    with pytest.raises(DeletesWithheldError):
        reindex(store, other(), "docs", REINDEX, corpora=corpora([*CORPUS, bad()]))
    assert store.resolve("docs") == "docs__g1"
    assert reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS)).exit == 0


def test_every_source_must_be_named(store: MemoryStore) -> None:
    run(store, [doc("z")], settings=replace(SETTINGS, source="second"))
    with pytest.raises(UsageError, match="sources other than"):
        reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS))
    both = corpora(CORPUS) | {"second": lambda: ListCorpus([doc("z")])}
    assert reindex(store, other(), "docs", REINDEX, corpora=both).exit == 0
    assert {row["source"] for row in rows(store).values()} == {"default", "second"}


def test_rollback_and_old_generations(store: MemoryStore) -> None:
    before = rows(store)
    with pytest.raises(NotFoundError, match="no older"):
        rollback(store, "docs")
    reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS))
    assert plan_rollback(store, "docs").number == 1
    assert store.resolve("docs") == "docs__g2", "a plan moves nothing"
    assert rollback(store, "docs").number == 1
    assert rows(store) == before
    assert rollback(store, "docs", to=2).current
    with pytest.raises(NotFoundError, match="generations are: 1, 2"):
        rollback(store, "docs", to=7)
    reindex(store, FakeEncoder(name="third"), "docs", REINDEX, corpora=corpora(CORPUS))
    assert [g.number for g in generations(store, "docs")] == [2, 3], "one older generation is kept"
    assert drop_old(store, "docs", 0) == ["docs__g2"]
    with pytest.raises(CollectionNotFoundError):
        generations(store, "nothing")


def test_the_generations_that_served_last_are_kept(store: MemoryStore) -> None:
    """After a rollback the newer generation is the rejected one: it is not the one to keep."""
    reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS))
    rollback(store, "docs")
    run(store, CORPUS[:7])
    reindex(store, FakeEncoder(name="third"), "docs", REINDEX, corpora=corpora(CORPUS))
    first, third = generations(store, "docs")
    assert (first.number, third.number) == (1, 3), "2 was rejected, 1 was serving"
    assert first.served_until is not None
    assert third.served_until is None
    assert rollback(store, "docs").number == 1


def test_a_newer_generation_that_served_is_one_of_the_kept(store: MemoryStore) -> None:
    for name in ("second", "third"):
        settings = replace(REINDEX, keep=2)
        reindex(store, FakeEncoder(name=name), "docs", settings, corpora=corpora(CORPUS))
    rollback(store, "docs", to=1)
    rollback(store, "docs", to=2)
    assert drop_old(store, "docs", 1) == ["docs__g3"], "1 served after it"


def test_an_unfinished_generation_cannot_serve(store: MemoryStore) -> None:
    def refuse(_old: str, _new: str) -> None:
        raise GateError("no")

    with pytest.raises(GateError):
        reindex(store, other(), "docs", REINDEX, corpora=corpora(CORPUS), gate=refuse)
    for refused in (rollback, plan_rollback):
        with pytest.raises(UsageError, match="is unfinished"):
            refused(store, "docs", to=2)


def test_a_crash_at_any_write_leaves_a_collection_that_serves(store: MemoryStore) -> None:
    for fault in range(60):
        calls: list[Any] = []

        def fail(moment: str, calls: list[Any] = calls, fault: int = fault) -> None:
            calls.append(moment)
            if len(calls) > fault:
                raise InterruptedError

        fresh = MemoryStore()
        run(fresh, CORPUS)
        fresh.fail = fail
        crashed = False
        try:
            reindex(fresh, other(), "docs", REINDEX, corpora=corpora(CORPUS))
        except InterruptedError:
            crashed = True
        fresh.fail = None
        assert len(rows(fresh)) == len(rows(store))
        if fresh.resolve("docs") == "docs__g1":
            assert reindex(fresh, other(), "docs", REINDEX, corpora=corpora(CORPUS)).exit == 0
        assert run(fresh, CORPUS, other()).unchanged == 8
        if not crashed:
            return
    pytest.fail("no run was left alone")


# ------------------------------------------------------------------- storage and indexes


def spec_of(store: MemoryStore) -> CollectionSpec:
    name = store.resolve("docs")
    assert name is not None
    return store.spec(name)


def test_another_index_class_encodes_nothing(store: MemoryStore) -> None:
    before, encoder = rows(store), FakeEncoder()
    large = replace(REINDEX, index_class="large", index=["dense.type=HNSW_SQ"])
    assert not plan_reindex(store, encoder, "docs", large).encodes
    summary = reindex(store, encoder, "docs", large)
    assert (summary.tokens, summary.exit) == (0, 0)
    assert rows(store) == before
    assert spec_of(store).index == IndexChoice("large", ("dense.type=HNSW_SQ",))
    assert status(store, "docs").index_class == "large, dense.type=HNSW_SQ"
    assert run(store, CORPUS).unchanged == len(CORPUS), "a run without index options is accepted"
    with pytest.raises(MismatchError, match=r"is large, dense.type=HNSW_SQ.*not huge.*reindex"):
        run(store, CORPUS, settings=replace(SETTINGS, index_class="huge"))
    reindex(store, encoder, "docs", replace(REINDEX, fields={"lang": "str"}))
    assert spec_of(store).index == large.index_choice, "other changes keep it"


def test_a_build_of_another_class_is_not_resumed(store: MemoryStore) -> None:
    class Stop:
        exit = Exit.INTERRUPTED

        def __call__(self) -> bool:
            return True

    stopped = reindex(store, FakeEncoder(), "docs", replace(REINDEX, index_class="huge"), stop=Stop())
    assert (stopped.exit, store.resolve("docs"), stopped.generation) == (130, "docs__g1", 2)
    assert generations(store, "docs")[1].state == "building"
    reindex(store, FakeEncoder(), "docs", replace(REINDEX, index_class="large"))
    assert spec_of(store).index == IndexChoice("large")


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_storage_is_narrowed_by_copying_and_widened_by_encoding(store: MemoryStore, storage: Storage) -> None:
    before, encoder = rows(store), FakeEncoder()
    narrow = replace(REINDEX, storage=storage)
    assert reindex(store, encoder, "docs", narrow).tokens == 0
    assert spec_of(store).storage == status(store, "docs").storage == storage
    assert rows(store) != before
    proof = verify(store, encoder, "docs", ListCorpus(CORPUS), VERIFY)
    assert (proof.exit, proof.storage) == (0, storage)
    assert run(store, CORPUS, settings=replace(SETTINGS, storage=storage)).unchanged == len(CORPUS)
    with pytest.raises(MismatchError, match=f"stores dense vectors as {storage}, not fp32"):
        run(store, CORPUS, settings=replace(SETTINGS, storage="fp32"))
    with pytest.raises(UsageError, match="cannot be reused"):
        reindex(store, encoder, "docs", replace(REINDEX, storage="fp32"))
    wide = replace(REINDEX, storage="fp32")
    assert reindex(store, encoder, "docs", wide, corpora=corpora(CORPUS)).tokens > 0
    assert rows(store) == before
