"""A changed document keeps the vectors of the passages that are as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from index.support import ALL, INGEST, SETTINGS, ListCorpus, doc, rows, run

from m3index.index import kept
from m3index.index.options import SyncOptions, VerifyOptions
from m3index.index.sync import sync
from m3index.index.verify import verify
from m3index.store.base import Store
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.store.rows import row_fields, row_of
from m3index.types import Document, Storage

STRUCTURE = SyncOptions(passage_tokens=16, overlap=0, max_delete=ALL, max_errors="100%")


def section(name: str, count: int = 9) -> str:
    return f"# {name}\n\n" + " ".join(f"{name}{i}" for i in range(count)) + "\n\n"


def book(*names: str, doc_id: str = "book", title: str = "") -> Document:
    return Document(doc_id, "".join(map(section, names)), title, format="markdown")


def synced(store: Store, *documents: Document, settings: SyncOptions = STRUCTURE) -> tuple[int, int, int]:
    """Passages written, passages kept, and how many inputs were encoded."""
    encoder = FakeEncoder()
    summary = sync(store, encoder, "docs", ListCorpus(documents), settings)
    assert summary.count_ok
    return summary.passages, summary.passages_kept, encoder.encoded


def test_only_the_changed_section_is_encoded() -> None:
    store = MemoryStore()
    assert synced(store, book("One", "Two", "Three", "Four")) == (4, 0, 4)
    assert synced(store, book("One", "Two", "New", "Four")) == (4, 3, 1)
    assert synced(store, book("New", "One", "Two", "Four")) == (4, 4, 0)
    assert synced(store, book("One", "Four")) == (2, 2, 0)


def test_force_encodes_all() -> None:
    store = MemoryStore()
    synced(store, book("One", "Two"))
    assert synced(store, book("One", "New"), settings=replace(STRUCTURE, force=True)) == (2, 0, 2)


def test_what_is_encoded_with_a_passage_counts() -> None:
    """Another title or another heading above is another input."""
    store = MemoryStore()
    synced(store, book("One", "Two", title="Old"))
    assert synced(store, book("One", "Two", title="New")) == (2, 0, 2)
    text = "# Guide\n\n## A\n\n" + " ".join(f"a{i}" for i in range(7)) + "\n\n## B\n\n" + "b " * 7
    synced(store, Document("guide", text, format="markdown"))
    renamed = Document("guide", text.replace("Guide", "Book"), format="markdown")
    written, kept_ones, _ = synced(store, renamed)
    assert (written > 1, kept_ones) == (True, 0)


def test_passages_move_between_documents_of_a_run() -> None:
    store = MemoryStore()
    a, b = book("One", "Two", doc_id="a"), book("Three", "Four", doc_id="b")
    synced(store, a, b)
    assert synced(store, book("One", "Four", doc_id="a"), book("Three", "Two", doc_id="b")) == (4, 4, 0)


def test_a_moved_document_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LISTED_PER_SECOND", 1e9)
    store = MemoryStore()
    synced(store, book("One", "Two", doc_id="old/a"), book("Three", "Four", doc_id="b"))
    before = {row["text"]: row["dense"] for row in rows(store).values()}
    moved = replace(book("One", "Two", doc_id="new/a"), metadata={"path": "new/a"})
    assert synced(store, moved, book("Three", "Four", doc_id="b")) == (2, 2, 0)
    assert {row["text"]: row["dense"] for row in rows(store).values()} == before
    assert {row["doc_id"] for row in rows(store).values()} == {"new/a", "b"}


def test_the_store_is_not_listed_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where listing takes longer than to encode what is new."""
    store = MemoryStore()
    synced(store, book("One", "Two", doc_id="a"))
    monkeypatch.setattr(kept, "LISTED_PER_SECOND", 1e-9)
    assert synced(store, book("One", "Two", doc_id="b")) == (2, 0, 2)


def test_documents_of_another_source_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LISTED_PER_SECOND", 1e9)
    store = MemoryStore()
    synced(store, book("One", "Two", doc_id="a"))
    assert synced(store, book("One", "Two"), settings=replace(STRUCTURE, source="other")) == (2, 0, 2)


def test_rows_of_a_window_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_ROWS", 2)
    store = MemoryStore()
    synced(store, book("One", "Two", "Three", "Four"))
    assert synced(store, book("New", "One", "Two", "Three")) == (4, 2, 2)


@pytest.mark.parametrize("storage", ["fp32", "fp16", "bf16"])
def test_kept_vectors_are_bit_for_bit_the_same(storage: Storage) -> None:
    store = MemoryStore()
    settings = replace(STRUCTURE, storage=storage)
    synced(store, book("One", "Two", "Three"), settings=settings)
    unchanged_bits(store, settings)


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_kept_vectors_are_bit_for_bit_the_same_on_lite(tmp_path: Path, sparse: str) -> None:
    store = MilvusStore.open(str(tmp_path / "kept.db"))
    try:
        settings = replace(STRUCTURE, sparse=sparse)
        synced(store, book("One", "Two", "Three"), settings=settings)
        unchanged_bits(store, settings)
    finally:
        store.close()


def unchanged_bits(store: Store, settings: SyncOptions) -> None:
    """Each run reads them back and writes them at other places."""

    def vectors() -> dict[str, tuple[bytes, object]]:
        name = store.resolve("docs")
        assert name is not None
        fields = ["text", "dense", *(["lexical"] if store.spec(name).sparse == "lexical" else [])]
        found = store.scan(name, None, fields)
        return {
            row["text"]: (
                np.asarray(row["dense"]).tobytes(),
                row["lexical"].to_dict() if "lexical" in row else None,
            )
            for row in found
        }

    before = vectors()
    for names in (["New", "One", "Two", "Three"], ["Three", "One", "Two"], ["One", "Two", "Three"]):
        assert synced(store, book(*names), settings=settings)[1] >= 3
        after = vectors()
        assert all(after[text] == found for text, found in before.items())


def test_half_a_document_keeps_what_it_has() -> None:
    """A crash left the first row without a hash, and rows of both versions."""
    store = MemoryStore()
    synced(store, book("One", "Two", "Three"))
    calls = 0

    def fail(_moment: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    store.fail = fail
    with pytest.raises(KeyboardInterrupt):
        synced(store, book("New", "Two", "Other"))
    store.fail = None
    first = next(row for row in rows(store).values() if row["ordinal"] == 0)
    assert not first["doc_hash"]
    written, kept_ones, encoded = synced(store, book("New", "Two", "Other"))
    assert (written, kept_ones + encoded) == (3, 3)
    assert kept_ones >= 2
    corpus = ListCorpus([book("New", "Two", "Other")])
    assert verify(store, FakeEncoder(), "docs", corpus, VerifyOptions()).differing == 0


def test_verify_encodes_again() -> None:
    """A wrong vector is found, and its repair is not the wrong vector."""
    store = MemoryStore()
    corpus = [book("One", "Two", "Three")]
    synced(store, *corpus)
    sound = rows(store)
    name = store.resolve("docs")
    assert name is not None
    key, spec = next(row["passage_id"] for row in sound.values() if row["ordinal"] == 1), store.spec(name)
    row = row_of(key, store.get(name, [key], row_fields(spec))[key], spec)
    store.upsert(name, [replace(row, dense=np.eye(16, dtype=np.float32)[0])])
    assert verify(store, FakeEncoder(), "docs", ListCorpus(corpus), VerifyOptions()).by_kind == {"vector": 1}
    verify(store, FakeEncoder(), "docs", ListCorpus(corpus), VerifyOptions(repair=True))
    assert rows(store) == sound


NAMES = st.lists(st.sampled_from(["One", "Two", "Three", "Four", "Five"]), min_size=1, max_size=6)
VERSION = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(NAMES, st.sampled_from(["", "T"])))


@settings(deadline=None)
@given(st.lists(VERSION, min_size=2, max_size=4))
def test_the_index_is_that_of_encoding_all(history: list[dict[str, tuple[list[str], str]]]) -> None:
    """Whatever was there before, with moves, insertions and deletions within and between documents."""
    store = MemoryStore()
    for version in history:
        documents = [book(*names, doc_id=i, title=title) for i, (names, title) in version.items()]
        sync(store, FakeEncoder(), "docs", ListCorpus(documents), STRUCTURE)
        rebuilt = MemoryStore()
        sync(rebuilt, FakeEncoder(), "docs", ListCorpus(documents), STRUCTURE)
        assert rows(store) == rows(rebuilt)


def test_metadata_alone_keeps_all() -> None:
    store = MemoryStore()
    run(store, [doc("a", 40, year=1)], settings=INGEST)
    encoder = FakeEncoder()
    summary = run(store, [doc("a", 40, year=2)], encoder, settings=INGEST)
    assert (summary.metadata_only, encoder.encoded) == (1, 0)
    assert summary.passages_kept == summary.passages > 1


def test_longer_windows_of_tokens_keep_those_before_an_edit() -> None:
    store = MemoryStore()
    text = " ".join(f"w{i}" for i in range(100))
    run(store, [doc("a", text)])
    encoder = FakeEncoder()
    summary = run(store, [doc("a", f"{text} end")], encoder, settings=SETTINGS)
    assert summary.passages_kept == summary.passages - encoder.encoded > 5
