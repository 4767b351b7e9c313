from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from m3index.corpus.hash import doc_hash, same_content
from m3index.corpus.windows import PassageSize
from m3index.types import Document, Place

SIZE = PassageSize(512, 64, "structure")


def test_it_is_fixed() -> None:
    """Stored in collections: another value would mean to write all rows again."""
    document = Document("1", "Grüße, 世界", "Titel", {"b": 1, "a": ["é", None, 0.5]})
    assert doc_hash(document, SIZE) == "c42a3fcfed7f9e629b299e1a74bf1c23.5e7f6f6b3c4eced73153981b56bb8313"
    assert len(doc_hash(document, SIZE)) == 65


def test_what_counts() -> None:
    base = Document("1", "text", "title", {"a": 1, "b": 2})
    digest = doc_hash(base, SIZE)
    assert doc_hash(Document("2", "text", "title", {"b": 2, "a": 1}, Place("f", 3)), SIZE) == digest
    for changed in (
        doc_hash(Document("1", "text ", "title", base.metadata), SIZE),
        doc_hash(Document("1", "text", "title ", base.metadata), SIZE),
        doc_hash(base, PassageSize(511, 64, "structure")),
        doc_hash(base, PassageSize(512, 63, "structure")),
        doc_hash(base, PassageSize(512, 64, "tokens")),
        doc_hash(Document("1", "text", "title", base.metadata, format="markdown"), SIZE),
    ):
        assert not same_content(changed, digest)
        assert changed.split(".")[1] == digest.split(".")[1]
    other = doc_hash(Document("1", "text", "title", {"a": 1, "b": "2"}), SIZE)
    assert other != digest
    assert same_content(other, digest)


def test_the_empty_hash_is_like_nothing() -> None:
    assert not same_content("", "")
    assert not same_content("", doc_hash(Document("1", "x"), SIZE))


TEXT = st.text(min_size=1, max_size=6).filter(lambda text: not text.isspace())  # a document's is never blank


@given(st.text(max_size=6), TEXT, st.text(max_size=6), TEXT)
def test_no_two_contents_meet(a: str, b: str, c: str, d: str) -> None:
    one, two = doc_hash(Document("1", b, a), SIZE), doc_hash(Document("1", d, c), SIZE)
    assert same_content(one, two) == ((a, b) == (c, d))


def test_a_boundary_that_moves_is_seen() -> None:
    assert not same_content(
        doc_hash(Document("1", "bc", "a"), SIZE), doc_hash(Document("1", "c", "ab"), SIZE)
    )
    assert not same_content(
        doc_hash(Document("1", "3 x", ""), SIZE), doc_hash(Document("1", "x", "3 "), SIZE)
    )


def test_it_is_fast() -> None:
    document = Document("1", "word " * 200, "title", {"lang": "en", "year": 2001})
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1000):
            doc_hash(document, SIZE)
        best = min(best, time.perf_counter() - started)
    assert 1000 / best > 20_000
