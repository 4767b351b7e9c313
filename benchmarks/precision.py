"""How near int8 and bf16 are to fp32 on a model and a collection of its users.

    python benchmarks/precision.py ../shared/data/scifact --encoder offline-en

The folder has `corpus.jsonl.gz` and `queries.jsonl` (`_id`, `title`, `text`). A document is its title and its
first 110 words; one over the model's limit is left out. Cosines are of documents; the ten nearest documents
of a query are found with queries of the same precision, and with queries in fp32.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from m3index.encoder.load import load
from m3index.types import SparseVector

TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    vectors, weights = {}, {}
    for precision in ("fp32", "bf16", "int8"):
        encoder = load(args.encoder, device="cpu", precision=precision)
        documents, queries = texts(args)
        ids = [i for i in encoder.tokenizer.document_ids(documents) if len(i) <= encoder.info.limit]
        batches = [encoder.encode_ids(ids[i : i + 64], lexical=encoder.info.lexical)
                   for i in range(0, len(ids), 64)]  # fmt: skip
        dense = np.concatenate([batch.dense for batch in batches])
        vectors[precision] = dense, encoder.encode_queries(queries, lexical=False).dense
        weights[precision] = [batch.lexical.row(i) for batch in batches if batch.lexical is not None
                              for i in range(len(batch.dense))]  # fmt: skip
        if precision == "fp32":
            print(f"{len(ids)} documents, {sum(map(len, ids))} tokens, {len(queries)} queries")
            continue
        (exact, exact_queries), (mine, my_queries) = vectors["fp32"], vectors[precision]
        cosines = (exact * mine).sum(1)
        right = nearest(exact_queries, exact)
        print(f"{precision}: cosine {cosines.mean():.5f} (mean), {cosines.min():.5f} (least), "
              f"{np.mean(cosines < 0.999):.1%} of them below 0.999; the ten nearest "
              f"{shared(right, nearest(my_queries, mine)):.1%} the same, "
              f"{shared(right, nearest(exact_queries, mine)):.1%} for queries in fp32")  # fmt: skip
        if weights["fp32"]:
            pairs = list(zip(weights["fp32"], weights[precision], strict=True))
            share = np.mean([heaviest(*pair) for pair in pairs])
            print(f"{precision}: the ten heaviest tokens {share:.1%} the same")


def heaviest(exact: SparseVector, mine: SparseVector) -> float:
    """Of the ten heaviest tokens, or as many as there are, the share that is the same."""
    a, b = (set(v.indices[np.argsort(-v.values, kind="stable")[:TOP]].tolist()) for v in (exact, mine))
    return len(a & b) / max(1, len(a))


def texts(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    with gzip.open(args.folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    picked = np.random.default_rng(0).choice(len(rows), min(args.documents, len(rows)), replace=False)
    documents = [f"{rows[i].get('title', '')}\n{' '.join(rows[i]['text'].split()[:110])}" for i in picked]
    with (args.folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = [json.loads(line)["text"] for line in lines]
    return documents, queries[: args.queries]


def nearest(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :TOP]


def shared(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)])) / TOP


if __name__ == "__main__":
    main()
