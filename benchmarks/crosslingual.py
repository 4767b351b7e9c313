#!/usr/bin/env python3
"""Searching in one language what is written in another: nDCG@10 of the dense vectors on XQuAD, for each
language of the questions and each language of the paragraphs.

    python benchmarks/crosslingual.py [--data ../shared/data/xquad] [--encoder offline]

The same 240 paragraphs and 1,190 questions in twelve languages. Of a paragraph counts what fits
into 512 tokens, and the search is exact. Prints the table of docs/results.md: a row for each language of the
questions, a column for each language of the paragraphs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from m3index.corpus.readers import read
from m3index.corpus.windows import windows
from m3index.encoder.load import load
from m3index.evaluate.formats import read_qrels, read_queries
from m3index.evaluate.measures import score_run
from m3index.types import Document, FloatArray, Query

MEASURE = "nDCG@10"
HITS = 10
TOKENS = 512


def documents(folder: Path) -> list[Document]:
    return [item for item in read([str(folder / "corpus.jsonl")]) if isinstance(item, Document)]


def measured(
    queries: list[Query], ids: list[str], scores: FloatArray, qrels: dict[str, dict[str, int]]
) -> float:
    """scores: (queries, documents)."""
    run = {
        query.query_id: {ids[i]: float(row[i]) for i in np.argsort(-row, kind="stable")[:HITS]}
        for query, row in zip(queries, scores, strict=True)
    }
    return float(score_run(run, qrels, [MEASURE]).values[MEASURE].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/xquad"))
    parser.add_argument("--encoder", default="offline")
    options = parser.parse_args()
    encoder = load(options.encoder)
    languages = sorted(path.name for path in options.data.iterdir() if (path / "corpus.jsonl").is_file())
    queries, ids, vectors, asked = {}, {}, {}, {}
    started = time.process_time()
    for language in languages:
        folder = options.data / language
        corpus = documents(folder)
        queries[language] = list(read_queries(folder / "queries.jsonl"))
        ids[language] = [document.doc_id for document in corpus]
        firsts = [p[0].token_ids for _, p in windows(corpus, encoder.tokenizer, TOKENS, 0)]
        vectors[language] = encoder.encode_ids(firsts, lexical=False).dense
        asked[language] = encoder.encode_queries([query.text for query in queries[language]]).dense
    # A paragraph and a question have the same id in every language.
    qrels = read_qrels(options.data / languages[0] / "qrels" / "test.tsv")
    print("| questions \\ paragraphs | " + " | ".join(languages) + " |")
    print("|---" * (len(languages) + 1) + "|")
    for question in languages:
        row = [
            measured(queries[question], ids[paragraph], asked[question] @ vectors[paragraph].T, qrels)
            for paragraph in languages
        ]
        print(f"| {question} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
