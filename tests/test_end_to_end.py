"""From the corpus to the hit: numbers match an independent reference, texts are unchanged, and memory does
not grow with the corpus."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder
from models import LINES
from terminal import DATA, Command, write_jsonl
from tokenizers import Tokenizer

from m3index import Index
from m3index.encoder.options import Model
from m3index.index.collection import find
from m3index.index.options import IngestOptions
from m3index.progress import Progress, Silent
from m3index.service import IndexService
from m3index.store.filter import Filter
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import EncodedBatch, IntArray, Row, SparseRows

# ------------------------------------------------------------- the numbers


class Reference:
    """The dense and lexical vectors of BGE-M3, computed only with transformers and numpy."""

    SPECIALS = (0, 1, 2, 3)  # <s>, <pad>, </s>, <unk>

    def __init__(self, path: Path) -> None:
        from transformers import XLMRobertaModel

        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.model = XLMRobertaModel.from_pretrained(path, attn_implementation="eager").eval()
        head = torch.load(path / "sparse_linear.pt", weights_only=True)
        self.weight = head["weight"].numpy().astype(np.float64)[0]
        self.bias = float(head["bias"][0])

    def __call__(self, text: str) -> tuple[np.ndarray, dict[int, float]]:
        ids = self.tokenizer.encode(text).ids
        with torch.no_grad():
            hidden = self.model(torch.tensor([ids])).last_hidden_state[0].numpy().astype(np.float64)
        lexical: dict[int, float] = defaultdict(float)
        for token, state in zip(ids, hidden, strict=True):
            if token not in self.SPECIALS:
                lexical[token] = max(lexical[token], float(state @ self.weight) + self.bias, 0.0)
        return hidden[0] / np.linalg.norm(hidden[0]), {t: w for t, w in lexical.items() if w > 0}


def product(a: dict[int, float], b: dict[int, float]) -> float:
    return sum(weight * b[token] for token, weight in a.items() if token in b)


QUERIES = ("the quick brown fox", "懒狗 狐狸", "reads a book about search", *LINES[:6])


@pytest.fixture(scope="module")
def reference(m3_model: Path) -> Reference:
    return Reference(m3_model)


@pytest.fixture
def documents(tmp_path: Path) -> list[dict[str, Any]]:
    rows = [{"id": f"line-{n}", "text": line} for n, line in enumerate(LINES)]
    rows += [{"id": f"titled-{n}", "title": LINES[n - 1], "text": line} for n, line in enumerate(LINES[:5])]
    write_jsonl(tmp_path / "corpus.jsonl", rows)
    return rows


@pytest.fixture
def indexed(m3index: Command, m3_model: Path, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = m3index("ingest", "corpus.jsonl", "-e", m3_model, "--precision", "fp32", "--uri", "x.db", "--json")
    assert done.code == 0, done
    assert done.summary["passages"] == len(documents)
    return documents


def joined(row: dict[str, Any]) -> str:
    return f"{row['title']}\n{row['text']}" if "title" in row else str(row["text"])


def test_stored_vectors_are_those_of_the_reference(
    indexed: list[dict[str, Any]], reference: Reference
) -> None:
    store, fields = open_store(Connection(uri="x.db")), ["doc_id", "dense", "lexical"]
    stored = {row["doc_id"]: row for row in store.scan(find(store, "docs").name, None, fields)}
    store.close()
    assert len(stored) == len(indexed)
    for document in indexed:
        dense, lexical = reference(joined(document))
        row = stored[document["id"]]
        np.testing.assert_allclose(row["dense"], dense, atol=1e-5)
        assert row["lexical"].to_dict() == pytest.approx(lexical, abs=1e-5)


def test_leg_scores_are_computed_by_hand(
    m3index: Command, indexed: list[dict[str, Any]], reference: Reference
) -> None:
    vectors = {row["id"]: reference(joined(row)) for row in indexed}
    compared = 0
    for text in QUERIES:
        query_dense, query_lexical = reference(text)
        common = ("search", text, "--uri", "x.db", "--precision", "fp32", "-k", 50, "--json")
        dense = {hit["doc_id"]: hit["score"] for hit in m3index(*common, "--mode", "dense").hits}
        assert dense == pytest.approx({i: float(d @ query_dense) for i, (d, _) in vectors.items()}, abs=1e-5)
        lexical = {hit["doc_id"]: hit["score"] for hit in m3index(*common, "--mode", "sparse").hits}
        by_hand = {i: product(query_lexical, words) for i, (_, words) in vectors.items()}
        assert lexical == pytest.approx(
            {i: score for i, score in by_hand.items() if score > 0}, abs=1e-5, rel=1e-5
        )
        compared += len(lexical)
    assert compared > 20


def test_hybrid_is_weighted_reciprocal_rank_by_hand(
    m3index: Command, indexed: list[dict[str, Any]], reference: Reference
) -> None:
    vectors = {row["id"]: reference(joined(row)) for row in indexed}
    query_dense, query_lexical = reference(QUERIES[0])
    legs = {
        0.7: {i: float(d @ query_dense) for i, (d, _) in vectors.items()},
        0.3: {i: s for i, (_, w) in vectors.items() if (s := product(query_lexical, w)) > 0},
    }
    fused: dict[str, float] = defaultdict(float)
    for weight, scores in legs.items():
        for rank, doc_id in enumerate(sorted(scores, key=lambda i: -scores[i]), 1):
            fused[doc_id] += weight / (60 + rank)
    done = m3index("search", QUERIES[0], "--uri", "x.db", "--weights", "dense=0.7,sparse=0.3", "-k", 50,
                   "--precision", "fp32", "--json")  # fmt: skip
    assert {hit["doc_id"]: hit["score"] for hit in done.hits} == pytest.approx(dict(fused), abs=1e-9)


# --------------------------------------------------------------- the bytes


class CheapEncoder(FakeEncoder):
    """An encoder with vectors that take almost no time."""

    def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> EncodedBatch:
        dense = np.ones((len(ids), self.info.dim), np.float32)
        for vector, row in zip(dense, ids, strict=True):
            vector += np.bincount(row % self.info.dim, minlength=self.info.dim)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        heads = np.array([row[1] if len(row) > 2 else 4 for row in ids], np.int32)
        one_each = SparseRows(np.arange(len(ids) + 1), heads, np.ones(len(ids), np.float32))
        return EncodedBatch(
            dense, one_each if lexical else None, np.array([len(row) for row in ids], np.int32)
        )


@pytest.mark.parametrize("lexical", [True, False], ids=["lexical", "bm25"])
def test_xquad_is_returned_byte_for_byte(tmp_path: Path, lexical: bool) -> None:
    """Texts, titles, metadata and ids of 2,880 passages in twelve languages survive Milvus Lite."""
    path = DATA / "xquad" / "mixed" / "corpus.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there (M3INDEX_DATA)")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = {row["_id"]: row for row in map(json.loads, file)}
    assert len(rows) == 2_880
    encoder = CheapEncoder(limit=4096, lexical=lexical)
    with Index(uri=str(tmp_path / "x.db"), encoder=encoder) as index:
        summary = index.ingest([path], passage_tokens="full", overlap=0)
        assert (summary.exit, summary.added, summary.store_count) == (0, 2_880, 2_880)
    store = open_store(Connection(uri=str(tmp_path / "x.db")))
    stored = list(store.scan(find(store, "docs").name, None, ["doc_id", "title", "text", "metadata"]))
    store.close()
    with Index(uri=str(tmp_path / "x.db"), encoder=encoder) as index:
        assert index.ingest([path]).unchanged == 2_880
    assert len(stored) == 2_880
    for found in stored:
        row = rows[found["doc_id"]]
        assert found["text"].encode() == row["text"].encode()
        assert found["title"].encode() == row["title"].encode()
        extra = {key: value for key, value in row.items() if key not in ("_id", "title", "text", "metadata")}
        assert found["metadata"] == extra | row.get("metadata", {})


# -------------------------------------------------------------- the memory


class CountingStore(MemoryStore):
    """A store that only counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        self.rows += len(rows)

    def count(self, name: str, where: Filter | None = None) -> int:
        return self.rows


class Stream(io.RawIOBase):
    """JSON Lines generated while they are read."""

    def __init__(self, documents: int) -> None:
        self._lines = (self._line(n) for n in range(documents))
        self._left = b""

    def _line(self, n: int) -> bytes:
        text = f"document {n} and a word that takes its place in memory: {'o' * 1_000}"
        return json.dumps({"id": f"a rather long id of document {n}", "text": text}).encode() + b"\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._left) < len(buffer) and (line := next(self._lines, b"")):
            self._left += line
        data, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def peak(documents: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The peak number of bytes allocated by an ingest of this many documents from stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Stream(documents))))
    store = CountingStore()
    with IndexService(store, "docs", Model(encoder=CheapEncoder(limit=256))) as index:
        tracemalloc.start()
        try:
            summary = index.update(["-"], IngestOptions())
            held = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (summary.added, store.rows) == (documents, documents)
    return held


BYTES_A_DOCUMENT = 144
"""The bytes that a run may keep per finished document: a 16-byte key in a hash table that is at least a third
full, and twice that while the table grows (index/seen.py)."""


IN_FLIGHT = 8_000_000
"""The bytes of the windows that are read, encoded and written at the same time, with documents of 1 KB."""


def test_an_ingest_needs_less_memory_than_its_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = 12_000  # 12 MB of text
    assert peak(documents, monkeypatch) < IN_FLIGHT + BYTES_A_DOCUMENT * documents < 1_000 * documents


@pytest.mark.slow
def test_memory_is_bounded_by_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = 5_000, 50_000  # 5 MB and 50 MB of text
    small = peak(few, monkeypatch)
    large = peak(many, monkeypatch)
    assert small < IN_FLIGHT + BYTES_A_DOCUMENT * few
    assert large < IN_FLIGHT + BYTES_A_DOCUMENT * many < 1_000 * many / 3


# ------------------------------------------------------------ the progress


class Followed(Silent):
    def __init__(self) -> None:
        self.steps: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)


def test_progress_follows_writing(tmp_path: Path) -> None:
    """The reader is several windows ahead of the encoder, which must not distort the estimated time."""
    rows = ({"id": str(n), "text": f"document {n} {'o' * 1_000}"} for n in range(2_000))
    path, followed = write_jsonl(tmp_path / "c.jsonl", rows), Followed()
    with IndexService(MemoryStore(), "docs", Model(encoder=CheapEncoder(limit=256))) as index:
        index.update(path, IngestOptions(), reporter=followed)
        first, last = followed.steps[0], followed.steps[-1]
        assert (first.documents, first.bytes_read, first.total_bytes) == (0, 0, path.stat().st_size)
        assert (last.documents, last.bytes_read, last.total_bytes) == (2_000, *[path.stat().st_size] * 2)
        for before, after in pairwise(followed.steps):
            assert before.documents <= after.documents
            share = after.bytes_read / path.stat().st_size
            assert share <= after.documents / 2_000 + 0.02
        index.update(path, IngestOptions(), reporter=followed)
        assert followed.steps[-1].documents == 2_000
