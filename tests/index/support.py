"""Corpora, encoders and store snapshots for the tests of index/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fakes import FakeEncoder, token_id

from m3index.corpus.digest import CorpusDigest
from m3index.corpus.listing import Listing
from m3index.corpus.places import Skipped
from m3index.index.options import IngestOptions, MaxDelete, ReindexOptions, SyncOptions, VerifyOptions
from m3index.index.summary import Summary
from m3index.index.sync import sync
from m3index.store.base import Store
from m3index.store.rows import row_fields
from m3index.types import Document, EncodedBatch, IntArray, Place, Rejected, key_of_passage

ALL = MaxDelete(percent=100.0)
SETTINGS = SyncOptions(passages_by="tokens", passage_tokens=10, overlap=2, max_delete=ALL, max_errors="100%")
INGEST = IngestOptions(passages_by="tokens", passage_tokens=10, overlap=2, max_errors="100%")
PRUNE = replace(SETTINGS, removals_only=True)
REINDEX = ReindexOptions(passages_by="tokens", passage_tokens=10, overlap=2, max_delete=ALL)
VERIFY = VerifyOptions(max_delete=ALL)


class ListCorpus:
    """A corpus from a list."""

    def __init__(self, items: Iterable[Document | Rejected], *, read_errors: Sequence[Rejected] = ()) -> None:
        self.items = list(items)
        self.read_errors = list(read_errors)
        self.complete = False
        self.bytes_read = 0
        self.total_bytes: int | None = None
        self.repeatable = True
        self.listing = Listing()
        self.notes: list[str] = []
        self.skip_counts: dict[str, int] = {}

    def skips(self) -> Iterator[Skipped]:
        return iter(())

    def __iter__(self) -> Iterator[Document | Rejected]:
        self.complete = False
        yield from self.items
        unidentified = any(isinstance(item, Rejected) and not item.identified for item in self.items)
        self.complete = not self.read_errors and not unidentified

    def digest(self) -> CorpusDigest | None:
        return None

    def is_as_before(self, digest: CorpusDigest) -> bool:
        raise AssertionError(digest)


class BrokenEncoder(FakeEncoder):
    """A fake encoder that returns a non-finite vector for texts with the word `nan`."""

    def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> EncodedBatch:
        encoded = super()._encode(ids, lexical, multi_vector)
        for i, row in enumerate(ids):
            if token_id("nan") in row:
                encoded.dense[i, 0] = np.nan
        return encoded


def doc(doc_id: str, text: str | int = "some text", title: str = "", **metadata: Any) -> Document:
    """A document. text: the text or its number of words."""
    words = " ".join(f"{doc_id}w{i}" for i in range(text)) if isinstance(text, int) else text
    return Document(doc_id, words, title, metadata, Place("corpus.jsonl", 1))


def bad(doc_id: str | None = None) -> Rejected:
    return Rejected(Place("corpus.jsonl", 1), "no text", "{}", doc_id)


def rows(store: Store, alias: str = "docs") -> dict[str, dict[str, Any]]:
    """All contents of the collection in a comparable form."""
    name = store.resolve(alias)
    if name is None:
        return {}
    rows_by_id = {}
    for row in store.scan(name, None, row_fields(store.spec(name))):
        plain = dict(row)
        plain["dense"] = np.round(np.asarray(row["dense"], np.float64), 5).tolist()
        if "lexical" in row:
            plain["lexical"] = {k: round(v, 4) for k, v in row["lexical"].to_dict().items()}
        rows_by_id[row["passage_id"]] = plain
    return rows_by_id


def by_document(rows_by_id: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    documents: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows_by_id.values(), key=lambda r: r["ordinal"]):
        documents.setdefault(key_of_passage(row["passage_id"]), []).append(row)
    return documents


def check_invariant(rows_by_id: dict[str, dict[str, Any]]) -> None:
    """Checks the invariant that holds after a crash at any moment (m3index/index/write.py)."""
    for document_rows in by_document(rows_by_id).values():
        first, ordinals = document_rows[0], [row["ordinal"] for row in document_rows]
        assert ordinals[0] == 0, "rows without an ordinal 0"
        assert first["passages"] > ordinals[-1], "an ordinal not covered by `passages` of ordinal 0"
        if first["doc_hash"]:
            assert ordinals == list(range(first["passages"]))
            assert {row["doc_hash"] for row in document_rows} == {first["doc_hash"]}


def run(
    store: Store, items: Iterable[Document | Rejected], encoder: FakeEncoder | None = None, **options: Any
) -> Summary:
    settings = options.pop("settings", SETTINGS)
    return sync(store, encoder or FakeEncoder(), "docs", ListCorpus(items), settings, **options)


class FastEncoder(FakeEncoder):
    """A fake encoder for real corpora that caches the vectors of words and takes `limit` tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limit=512, **options)
        self._known: dict[int, np.ndarray] = {}

    def _vector(self, token: int) -> np.ndarray:
        if token not in self._known:
            self._known[token] = super()._vector(token)
        return self._known[token]
