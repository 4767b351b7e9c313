#!/usr/bin/env python3
"""Retrieval quality on SciFact with a model of PyPI, beside sentence-transformers on the same texts.

    python benchmarks/scifact.py [--data ../shared/data/scifact] [--encoder offline] [--threads 2]

Ingests the 5,183 abstracts into Milvus Lite, runs the 300 test queries by each mode, and prints nDCG@10
and Recall@100. The reference: sentence-transformers encodes the same passages, exact search by a matrix
product, best passage for each document; and once more the way it is mostly used, cutting off each
abstract at the model's limit. Needs `m3index[offline,eval]` and sentence-transformers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from m3index.corpus.readers import read
from m3index.encoder.load import load
from m3index.encoder.options import Model
from m3index.evaluate.formats import read_qrels, read_queries
from m3index.evaluate.runs import as_run
from m3index.index.options import IngestOptions
from m3index.search.options import SearchOptions
from m3index.service import IndexService
from m3index.store.options import Connection
from m3index.types import Document, Query, join_title, joined

MEASURES = ("nDCG@10", "R@100")


def measured(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> list[float]:
    import ir_measures

    measures = [ir_measures.parse_measure(name) for name in MEASURES]
    found = ir_measures.calc_aggregate(measures, qrels, run)
    return [found[measure] for measure in measures]


def exact(
    queries: list[Query], vectors: np.ndarray, ids: list[str], passages: np.ndarray, k: int = 100
) -> dict[str, dict[str, float]]:
    """Exact search; a document counts by its best passage."""
    scores = vectors @ passages.T
    run = {}
    for query, row in zip(queries, scores, strict=True):
        best: dict[str, float] = {}
        for doc_id, score in zip(ids, row.tolist(), strict=True):
            best[doc_id] = max(score, best.get(doc_id, -9.0))
        run[query.query_id] = dict(sorted(best.items(), key=lambda item: -item[1])[:k])
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/scifact"))
    parser.add_argument("--encoder", default="offline", help="a model in sentence-transformers' layout")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    qrels = read_qrels(options.data / "qrels" / "test.tsv")
    queries = [q for q in read_queries(options.data / "queries.jsonl") if q.query_id in qrels]
    rows: list[tuple[str, list[float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        connection = Connection(collection="scifact", uri=f"{folder}/scifact.db")
        with IndexService.open(connection, Model(encoder=load(options.encoder))) as index:
            corpus = next(p for p in options.data.glob("corpus.jsonl*"))
            started = time.perf_counter()
            summary = index.update(corpus, IngestOptions())
            print(
                f"{summary.added} documents, {summary.passages} passages, {summary.tokens} tokens: "
                f"{time.perf_counter() - started:.0f} s"
            )
            for mode in ("dense", "sparse", "hybrid"):
                results = index.run(queries, SearchOptions(mode=mode, k=100, depth=1000))
                run = as_run({result.query.query_id: result.hits for result in results})
                rows.append((f"m3index {mode}", measured(qrels, run)))
            stored = list(index.store.scan(index.current().name, None, ["doc_id", "title", "text"]))
        rows += reference(options.encoder, queries, qrels, stored, corpus)
    print(f"\n{'':40} {'  '.join(f'{name:>8}' for name in MEASURES)}")
    for name, values in rows:
        print(f"{name:40} {'  '.join(f'{value:8.4f}' for value in values)}")


def reference(
    encoder: str, queries: list[Query], qrels: dict[str, dict[str, int]], stored: list[dict], corpus: Path
) -> list[tuple[str, list[float]]]:
    from sentence_transformers import SentenceTransformer

    from m3index.encoder.source import locate

    model = SentenceTransformer(str(locate(encoder).directory), device="cpu")

    def encoded(texts: list[str], role: str = "document") -> np.ndarray:
        return model.encode(
            texts, prompt=model.prompts.get(role, ""), batch_size=32, normalize_embeddings=True,
            show_progress_bar=False,
        )  # fmt: skip

    asked = encoded([query.text for query in queries], "query")
    texts = [joined(row) for row in stored]
    same = exact(queries, asked, [row["doc_id"] for row in stored], encoded(texts))
    documents = [item for item in read([corpus]) if isinstance(item, Document)]
    whole = encoded([join_title(d.title, "", d.text) for d in documents])
    cut = exact(queries, asked, [d.doc_id for d in documents], whole)
    return [
        ("sentence-transformers, same passages", measured(qrels, same)),
        ("sentence-transformers, truncating", measured(qrels, cut)),
    ]


if __name__ == "__main__":
    main()
