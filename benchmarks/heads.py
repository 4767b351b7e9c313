#!/usr/bin/env python3
"""What each head of a model is worth in each language: nDCG@10 on XQuAD, by exact search.

    python benchmarks/heads.py MODEL [--data ../shared/data/xquad] [--languages ar,de,...]

MODEL: a directory with a lexical and a multi-vector head, such as the teacher that benchmarks/distill.py
keeps. Of a paragraph counts what fits into 512 tokens. hybrid: both legs at equal weights, k = 60. reranked:
its first 20 by late interaction, over a sample of the questions, beside hybrid over the same sample.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from m3index.corpus.windows import windows
from m3index.distill.retrieval import MEASURE, Rankings, TestCollection, legs, read_collection
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.evaluate.measures import score_run
from m3index.search.rerank import late_interaction
from m3index.types import FloatArray

LANGUAGES = "ar,de,el,en,es,hi,ro,ru,th,tr,vi,zh"
TOKENS, RERANKED = 512, 20


def each(rankings: Rankings, collection: TestCollection) -> FloatArray:
    """nDCG@10 of each query."""
    run = {
        query.query_id: {doc_id: -float(rank) for rank, doc_id in enumerate(ranking)}
        for query, ranking in zip(collection.queries, rankings, strict=True)
    }
    values: FloatArray = score_run(run, collection.qrels, [MEASURE]).values[MEASURE]
    return values


def reordered(ranking: Sequence[str], query: FloatArray, texts: Mapping[str, FloatArray]) -> list[str]:
    """The first hits by late interaction, then the others as they were."""
    first = ranking[:RERANKED]
    order = np.argsort(-late_interaction(query, [texts[doc_id] for doc_id in first]), kind="stable")
    return [*(first[i] for i in order), *ranking[RERANKED:]]


def measured(encoder: ModelEncoder, collection: TestCollection, sample: int) -> dict[str, float]:
    firsts = [p[0].token_ids for _, p in windows(collection.documents, encoder.tokenizer, TOKENS, 0)]
    documents = encoder.encode_ids(firsts, lexical=True, multi_vector=True)
    queries = encoder.encode_queries([q.text for q in collection.queries], lexical=True, multi_vector=True)
    assert documents.multi_vector is not None
    assert queries.multi_vector is not None
    rankings = legs(queries, documents, collection, same_tokens=True)
    found = {mode: each(rankings[mode], collection) for mode in ("dense", "lexical", "hybrid")}
    texts = {d.doc_id: v for d, v in zip(collection.documents, documents.multi_vector, strict=True)}
    some = sorted(random.Random(0).sample(range(len(queries)), min(sample, len(queries))))
    late = list(rankings["hybrid"])
    for i in some:
        late[i] = reordered(late[i], queries.multi_vector[i], texts)
    figures = {mode: fmean(values.tolist()) for mode, values in found.items()}
    return figures | {
        "hybrid, sample": fmean(found["hybrid"][some].tolist()),
        "reranked, sample": fmean(each(late, collection)[some].tolist()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/xquad"))
    parser.add_argument("--languages", default=LANGUAGES)
    parser.add_argument("--sample", type=int, default=400, help="questions that are reranked")
    options = parser.parse_args()
    encoder = load(options.model)
    started = time.process_time()
    for language in options.languages.split(","):
        figures = measured(encoder, read_collection(options.data / language, language), options.sample)
        print(language, "  ".join(f"{name} {value:.4f}" for name, value in figures.items()), flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
