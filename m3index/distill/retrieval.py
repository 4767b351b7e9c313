"""Evaluates the teacher and the untrained and trained student on a test collection, alone and mixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from m3index.corpus.cut import windows
from m3index.corpus.readers import read
from m3index.corpus.windows import PassageSize
from m3index.encoder.model import ModelEncoder
from m3index.errors import UsageError
from m3index.evaluate.formats import read_qrels, read_queries
from m3index.evaluate.measures import Scores, score_run
from m3index.evaluate.statistics import estimate
from m3index.search.fusion import Ranking, fuse
from m3index.search.options import RUN_HITS
from m3index.types import Document, EncodedBatch, Query, SparseRows
from m3index.wording import short_names

DEPTH = RUN_HITS
MEASURE = "nDCG@10"

WAYS: Mapping[str, tuple[str, str]] = {
    "teacher": ("teacher", "teacher"),
    "untrained": ("untrained", "untrained"),
    "student": ("student", "student"),
    "student_queries": ("student", "teacher"),
    "teacher_queries": ("teacher", "student"),
}
"""Name of a way to search -> (model that encodes the queries, model that encodes the documents)."""

Rankings: TypeAlias = list[list[str]]
"""The ids of the documents that each query found, best first."""


@dataclass(frozen=True, slots=True)
class TestCollection:
    """A BEIR directory: `corpus.jsonl[.gz]`, `queries.jsonl`, `qrels/*.tsv`. Has only judged queries."""

    name: str
    documents: Sequence[Document]
    queries: Sequence[Query]
    qrels: Mapping[str, Mapping[str, int]]


def read_collections(directories: Sequence[str]) -> list[TestCollection]:
    """Reads each under a short name (`wording.short_names`)."""
    return [read_collection(path, name) for name, path in short_names(directories).items()]


def read_collection(directory: Path, name: str) -> TestCollection:
    """Reads `qrels/test.tsv`, or else the only qrels file. Raises UsageError for other directories."""
    corpora = [p for p in (directory / "corpus.jsonl", directory / "corpus.jsonl.gz") if p.is_file()]
    judged = sorted((directory / "qrels").glob("*.tsv"))
    chosen = [p for p in judged if p.stem == "test"] or judged
    if not corpora or len(chosen) != 1:
        raise UsageError(
            f"{directory} is not a BEIR directory (corpus.jsonl, queries.jsonl, qrels/test.tsv)."
        )
    qrels = read_qrels(chosen[0])
    queries = [q for q in read_queries(directory / "queries.jsonl") if q.query_id in qrels]
    documents = [d for d in read([corpora[0]]) if isinstance(d, Document)]
    if not queries or not documents:
        raise UsageError(f"{directory} has no documents, or none of its judged queries has a text.")
    return TestCollection(name, documents, queries, qrels)


def evaluate(
    collection: TestCollection, encoders: Mapping[str, ModelEncoder], tokens: int, *, same_tokens: bool
) -> dict[str, Any]:
    """nDCG@10 with 95 % bootstrap intervals, and the share of the teacher's top ten documents among the top
    ten, for each mode and each possible way of `WAYS`.

    Documents are represented by their first window of at most `tokens`. The search is exact.
    """
    size = min(tokens, *(e.info.limit for e in encoders.values()))
    texts = {name: encode(e, collection, size) for name, e in encoders.items()}
    by_way = {
        way: legs(texts[q][0], texts[d][1], collection, same_tokens=same_tokens or q == d)
        for way, (q, d) in WAYS.items()
        if q in texts and d in texts
    }
    report: dict[str, Any] = {
        "collection": collection.name,
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "document_tokens": size,
    }
    for mode in ("dense", "lexical", "hybrid"):
        ways = {way: modes[mode] for way, modes in by_way.items() if mode in modes}
        report[mode] = (
            {way: _figures(rankings, ways["teacher"], collection) for way, rankings in ways.items()}
            if "teacher" in ways
            else None
        )
    return report


def encode(
    encoder: ModelEncoder, collection: TestCollection, size: int, *, multi_vector: bool = False
) -> tuple[EncodedBatch, EncodedBatch]:
    """The queries, and the first window of each document of at most `size` tokens. Both are in the order of
    the collection, and have lexical weights if the encoder has that head."""
    lexical = encoder.info.lexical
    texts = [q.text for q in collection.queries]
    queries = encoder.encode_queries(texts, lexical=lexical, multi_vector=multi_vector)
    firsts = [
        p[0].token_ids
        for _, p in windows(collection.documents, encoder.tokenizer, PassageSize(size, 0, "tokens"))
    ]
    return queries, encoder.encode_ids(firsts, lexical=lexical, multi_vector=multi_vector)


def legs(
    queries: EncodedBatch, documents: EncodedBatch, collection: TestCollection, *, same_tokens: bool
) -> dict[str, Rankings]:
    """The rankings of each leg that both sides support (`dense`, `lexical`), and of their fusion (`hybrid`),
    by exact search. Both sides are in the order of the collection."""
    ids = np.array([d.doc_id for d in collection.documents])
    ranked: dict[str, tuple[Rankings, list[NDArray[np.float32]]]] = {}
    if queries.dense.shape[1] == documents.dense.shape[1]:
        ranked["dense"] = _rank(queries.dense @ documents.dense.T, ids)
    if same_tokens and queries.lexical is not None and documents.lexical is not None:
        width = 1 + int(max(queries.lexical.indices.max(initial=0), documents.lexical.indices.max(initial=0)))
        product = _matrix(queries.lexical, width) @ _matrix(documents.lexical, width).T
        ranked["lexical"] = _rank(product.toarray(), ids, least=0.0)
    rankings = {leg: ranking for leg, (ranking, _) in ranked.items()}
    if len(ranked) == 2:
        rankings["hybrid"] = [_fused(ranked, i) for i in range(len(queries))]
    return rankings


def _matrix(rows: SparseRows, width: int) -> Any:
    return sparse.csr_matrix((rows.values, rows.indices, rows.indptr), shape=(len(rows), width))


def _rank(
    scores: NDArray[np.float32], ids: NDArray[np.str_], least: float = -math.inf
) -> tuple[Rankings, list[NDArray[np.float32]]]:
    """The best `DEPTH` documents of each query with scores above `least`, and the scores. Ties sort by id."""
    by_id = np.argsort(np.argsort(ids))
    rankings, kept = [], []
    for row in scores:
        order = np.lexsort((by_id, -row))[:DEPTH]
        order = order[row[order] > least]
        rankings.append([str(ids[i]) for i in order])
        kept.append(row[order])
    return rankings, kept


def _fused(legs: Mapping[str, tuple[Rankings, list[NDArray[np.float32]]]], i: int) -> list[str]:
    rankings = {leg: Ranking(ids[i], scores[i].tolist()) for leg, (ids, scores) in legs.items()}
    return [f.id for f in fuse(rankings, dict.fromkeys(rankings, 1.0))]


def scored(rankings: Rankings, collection: TestCollection) -> Scores:
    """`MEASURE` for each query. rankings: in the order of the collection."""
    run = {
        query.query_id: {doc_id: -float(rank) for rank, doc_id in enumerate(ranking)}
        for query, ranking in zip(collection.queries, rankings, strict=True)
    }
    return score_run(run, collection.qrels, [MEASURE])


def _figures(rankings: Rankings, teacher: Rankings, collection: TestCollection) -> dict[str, float]:
    interval = estimate(scored(rankings, collection).values[MEASURE])
    pairs = zip(rankings, teacher, strict=True)
    overlap = [len({*ranking[:10]} & {*best[:10]}) / max(1, len(best[:10])) for ranking, best in pairs]
    return {
        "ndcg_10": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "overlap_10": float(np.mean(overlap)),
    }
