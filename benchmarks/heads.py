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
from dataclasses import replace
from pathlib import Path

import numpy as np

from m3index.distill.retrieval import MEASURE, TestCollection, encode, legs, read_collection, scored
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.search.rerank import late_interaction
from m3index.types import FloatArray

LANGUAGES = "ar,de,el,en,es,hi,ro,ru,th,tr,vi,zh"
TOKENS, RERANKED = 512, 20


def reordered(ranking: Sequence[str], query: FloatArray, texts: Mapping[str, FloatArray]) -> list[str]:
    """The first hits by late interaction, then the others as they were."""
    first = ranking[:RERANKED]
    order = np.argsort(-late_interaction(query, [texts[doc_id] for doc_id in first]), kind="stable")
    return [*(first[i] for i in order), *ranking[RERANKED:]]


def measured(encoder: ModelEncoder, collection: TestCollection, sample: int) -> dict[str, float]:
    queries, documents = encode(encoder, collection, TOKENS, multi_vector=True)
    assert documents.multi_vector is not None
    assert queries.multi_vector is not None
    rankings = legs(queries, documents, collection, same_tokens=True)
    texts = {d.doc_id: v for d, v in zip(collection.documents, documents.multi_vector, strict=True)}
    some = random.Random(0).sample(range(len(queries)), min(sample, len(queries)))
    part = replace(collection, queries=[collection.queries[i] for i in some])
    hybrid = [rankings["hybrid"][i] for i in some]
    late = [reordered(rankings["hybrid"][i], queries.multi_vector[i], texts) for i in some]
    return {
        **{mode: scored(rankings[mode], collection).mean(MEASURE) for mode in ("dense", "lexical", "hybrid")},
        "hybrid, sample": scored(hybrid, part).mean(MEASURE),
        "reranked, sample": scored(late, part).mean(MEASURE),
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
