"""After any crash, one clean run gives the same index as a rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from index.support import (
    INGEST,
    PRUNE,
    SETTINGS,
    BrokenEncoder,
    ListCorpus,
    bad,
    by_document,
    check_invariant,
    doc,
    rows,
    run,
)

from m3index.errors import Exit, StoreError, UnreachableError
from m3index.index.options import IngestOptions, Mode
from m3index.index.sync import sync
from m3index.index.write import mark
from m3index.store.base import StoredRow
from m3index.store.memory import MemoryStore
from m3index.types import Document, Rejected, document_key, passage_key

IDS = ("a", "b", 'c"] or passage_id in ["')
FIELDS = {"year": "int"}
SETTINGS_OF: dict[Mode, IngestOptions] = {
    "ingest": replace(INGEST, fields=FIELDS),
    "sync": replace(SETTINGS, fields=FIELDS),
    "prune": replace(PRUNE, fields=FIELDS),
}
Item = Document | Rejected


class CrashError(Exception):
    """The process has died."""


FAULTS = (CrashError("killed"), UnreachableError("no answer"), StoreError("refused for good"))


@dataclass(frozen=True)
class Step:
    """One run: its corpus, and the write at which a fault occurs (None: no fault)."""

    corpus: tuple[Item, ...]
    mode: Mode
    fault_at: int | None
    fault: Exception


def documents(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Item]:
    good = st.builds(
        doc,
        ids,
        st.sampled_from((1, 8, 9, 17, 40)),
        st.sampled_from(("", "one title")),
        tag=st.sampled_from(("x", "y")),
        year=st.sampled_from((None, 1999)),
    )
    wrong_type = st.builds(lambda i: doc(i, 20, year="no year"), ids)
    refused_at_once = st.builds(lambda i: doc(i, 20, blob="x" * 70_000), ids)
    refused_later = st.builds(lambda i: doc(i, " ".join(["word"] * 20 + ["nan"])), ids)
    rejected = st.builds(bad, st.one_of(st.none(), ids))
    return st.one_of(good, good, good, good, wrong_type, refused_at_once, refused_later, rejected)


def night_of(tag: str, fault_at: int | None) -> Step:
    """A run in which only the metadata of documents of one passage and of several has changed."""
    corpus = (doc("a", 40, tag=tag), doc("b", 1, tag=tag), doc(IDS[2], 17, tag=tag, year=1999))
    return Step(corpus, "sync", fault_at, FAULTS[0])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("back", [True, False], ids=["the corpus goes back", "the corpus stays"])
def test_a_crash_at_any_write_of_a_change_of_metadata(batch: int, back: bool) -> None:
    crashes = 0
    while True:
        store = MemoryStore(batch=batch)
        assert work(store, night_of("x", None))
        made: list[str] = []
        struck = not work(store, night_of("y", crashes), made)
        check_invariant(rows(store))
        last = night_of("x" if back else "y", None)
        clean(last.corpus, store)
        rebuilt = MemoryStore()
        clean(last.corpus, rebuilt)
        assert rows(store) == rows(rebuilt)
        if not struck:
            break
        crashes += 1
    assert crashes > 2 * 7 // batch
    assert "after update" in made
    assert "after upsert" not in made, "no row is written whole"


def steps() -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        st.lists(documents(st.sampled_from(IDS)), min_size=3, max_size=8).map(tuple) | st.just(()),
        st.sampled_from(("ingest", "sync", "sync", "prune")),
        st.one_of(st.none(), st.integers(0, 12), st.integers(0, 40)),
        st.sampled_from(FAULTS),
    )


def work(store: MemoryStore, step: Step, made: list[str] | None = None) -> bool:
    """Runs a step; returns False if its fault occurred. made: gets the names of its writes."""
    made = [] if made is None else made

    def fail(moment: str) -> None:
        made.append(moment)
        if step.fault_at is not None and len(made) > step.fault_at:
            raise step.fault

    store.fail = fail
    try:
        sync(store, BrokenEncoder(), "docs", ListCorpus(step.corpus), SETTINGS_OF[step.mode])
    except (CrashError, StoreError):
        return False
    finally:
        store.fail = None
    return True


def clean(corpus: tuple[Item, ...], store: MemoryStore) -> tuple[BrokenEncoder, int]:
    encoder = BrokenEncoder()
    summary = sync(store, encoder, "docs", ListCorpus(corpus), SETTINGS_OF["sync"])
    assert summary.count_ok
    assert summary.exit in (Exit.OK, Exit.QUARANTINED, Exit.DELETES_WITHHELD)
    return encoder, summary.exit


@given(st.lists(steps(), min_size=2, max_size=5), st.integers(1, 4))
@example([Step((doc("a", 30),), "sync", 3, FAULTS[0]), Step((doc("a", 1),), "sync", 2, FAULTS[0])], 1)
@example([Step((doc("a", 40),), "sync", None, FAULTS[0]), Step((doc("a", 1),), "ingest", None, FAULTS[0])], 1)
@example([Step((doc("a", 40),), "sync", None, FAULTS[0]), Step((doc("a", 9),), "ingest", 2, FAULTS[0])], 1)
@example([Step((doc("a", 30),), "sync", None, FAULTS[0]), Step((), "sync", 4, FAULTS[0])], 1)
@example([night_of("x", None), night_of("y", 5), night_of("y", 11), night_of("x", 8)], 2)
def test_a_clean_run_after_any_crash_equals_a_rebuild(history: list[Step], batch: int) -> None:
    store = MemoryStore(batch=batch)
    for step in history:
        event("a fault struck" if not work(store, step) else "no fault")
        check_invariant(rows(store))

    corpus = history[-1].corpus
    _, exit_code = clean(corpus, store)
    check_invariant(rows(store))
    rebuilt_store = MemoryStore()
    clean(corpus, rebuilt_store)

    now, rebuilt = by_document(rows(store)), by_document(rows(rebuilt_store))
    assert {key: now.get(key) for key in rebuilt} == rebuilt
    in_corpus = {document_key("default", item.doc_id) for item in corpus if item.doc_id is not None}
    left_over = now.keys() - rebuilt.keys()
    if exit_code != Exit.DELETES_WITHHELD:
        assert left_over <= in_corpus, "only documents that are rejected in the corpus keep an older version"

    before = rows(store)
    encoder, _ = clean(corpus, store)
    assert rows(store) == before
    if not left_over and len(rebuilt) == len(in_corpus):
        assert encoder.encoded == 0


def test_a_mark_leaves_out_what_another_run_has_removed() -> None:
    """Between the read and the write of a mark; what is stored is marked all the same."""

    class Meanwhile(MemoryStore):
        gone: str | None = None

        def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
            found = super().get(name, passage_ids, fields)
            if self.gone is not None:
                gone, self.gone = self.gone, None
                self.delete(name, [gone])
            return found

    store = Meanwhile()
    run(store, [doc("a", 30), doc("b", 30)])
    [first, second] = [document_key("default", name) for name in "ab"]
    store.gone = passage_key(first, 0)
    name = store.collections()[0]
    mark(store, name, store.spec(name), {first: 3, second: 3})
    assert store.get(name, [passage_key(first, 0)], []) == {}
    assert store.get(name, [passage_key(second, 0)], ["doc_hash"])[passage_key(second, 0)]["doc_hash"] == ""
