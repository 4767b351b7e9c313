#!/usr/bin/env python3
"""Passages along the structure against windows of tokens: RR@10 of known items, by exact search.

    python benchmarks/passages.py [--data ../shared/data] [--encoder MODEL] [--cache FOLDER]
        [--sets rustbook,tldr,laws,speeches] [--queries 300] [--small 0.25]

A query is known to have one answer: `heading` asks with the heading of a section (one that no other section
of the set has), `sentence` with a sentence of the text, without its last third. Right is the first passage of
that document that has the heading and the first 100 characters after it, or the sentence. The passages of all
documents of a set compete, so that more and smaller passages are more to confuse.

Sets: rustbook (v5, 112 chapters), tldr (1,000 pages of v3), laws (40 of longdocs), speeches (40 of longdocs
without a heading). Samples and queries are drawn with a fixed seed; what two ways of cutting have in common
is encoded once. BM25 is that of Milvus Lite; fused is by evidence, the dense leg trusted fully. `structure -
tokens` is the mean difference with its 95 % bootstrap interval, paired by query.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from fusion import Bm25, Passages, ranked, sparse_leg

from m3index.corpus import structure
from m3index.corpus.cut import windows
from m3index.corpus.outline import outline
from m3index.corpus.windows import SENTENCES, PassageSize
from m3index.encoder.load import load
from m3index.evaluate.statistics import difference, estimate
from m3index.search.fusion import Ranking, fuse
from m3index.store.analyzer import terms
from m3index.types import Document, EncodedBatch, IntArray, Leg, Passage, join_title

SEED, CUT, HEAD = 22, 10, 100
TOKENS, OVERLAP = 512, 64


@dataclass(frozen=True)
class Item:
    """A query with the range of its document that the right passage holds."""

    kind: str
    query: str
    document: int
    start: int
    end: int


def read(path: Path) -> list[Document]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Document(row["_id"], row["text"], row.get("title") or "") for row in rows]


def sets(data: Path) -> Iterator[tuple[str, list[Document]]]:
    chosen = random.Random(SEED)
    yield "rustbook", read(data / "history_rustbook" / "v5.jsonl.gz")
    yield "tldr", chosen.sample(read(data / "history_tldr" / "v3.jsonl.gz"), 1_000)
    long = read(data / "longdocs" / "corpus.jsonl.gz")
    yield "laws", chosen.sample([d for d in long if d.doc_id.startswith("de-law")], 40)
    plain = [d for d in long if not outline(d.text, "").headings and len(d.text) < 60_000]
    yield "speeches", chosen.sample(plain, 40)


def items(documents: Sequence[Document], count: int) -> list[Item]:
    """The queries of a set."""
    chosen = random.Random(SEED)
    titled: list[Item] = []
    sentences: list[Item] = []
    for number, document in enumerate(documents):
        text, found = document.text, outline(document.text, document.format).headings
        ends = [*(heading.start for heading in found), len(text)][1:]
        for heading, end in zip(found, ends, strict=True):
            if heading.text and end - heading.start > HEAD:
                line = text.find("\n", heading.start)
                stop = min(line + 1 + HEAD, len(text[:end].rstrip()))
                titled.append(Item("heading", heading.text, number, heading.start, stop))
        begin = 0
        for match in SENTENCES.finditer(text):
            words = text[begin : match.start()].split()
            if 8 <= len(words) <= 40 and "\n\n" not in text[begin : match.start()].strip():
                asked = " ".join(words[: len(words) * 2 // 3])
                sentences.append(Item("sentence", asked, number, begin, match.start()))
            begin = match.end()
    often = Counter(item.query.casefold() for item in titled)
    titled = [item for item in titled if often[item.query.casefold()] == 1]
    return [item for kind in (titled, sentences) for item in chosen.sample(kind, min(count, len(kind)))]


class Encoded:
    """Encodes each input once; keeps the vectors in a file, if there is a folder for it."""

    def __init__(self, model: str, cache: Path | None) -> None:
        self.encoder = load(model)
        self.path = None if cache is None else cache / "passages.npz"
        self.known: dict[bytes, np.ndarray] = {}
        self.tokens, self.seconds = 0, 0.0
        if self.path is not None and self.path.exists():
            with np.load(self.path) as kept:
                self.known = dict(zip((k.tobytes() for k in kept["keys"]), kept["dense"], strict=True))

    def __call__(self, inputs: Sequence[IntArray]) -> np.ndarray:
        keys = [blake2b(ids.tobytes(), digest_size=16).digest() for ids in inputs]
        missing = {key: ids for key, ids in zip(keys, inputs, strict=True) if key not in self.known}
        if missing:
            started = time.perf_counter()
            batch = self.encoder.encode_ids(list(missing.values()), lexical=False)
            self.seconds += time.perf_counter() - started
            self.tokens += sum(map(len, missing.values()))
            self.known.update(zip(missing, batch.dense, strict=True))
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                found = np.frombuffer(b"".join(self.known), np.uint8).reshape(-1, 16)
                np.savez(self.path, keys=found, dense=np.array(list(self.known.values())))
        return np.array([self.known[key] for key in keys])


@dataclass(frozen=True)
class Index:
    """All passages of a set that was cut in one way, with the number of their document."""

    passages: Sequence[Passage]
    documents: Sequence[int]
    dense: np.ndarray
    bm25: Bm25


def index(documents: Sequence[Document], by: str, encoded: Encoded) -> Index:
    size = PassageSize(TOKENS, OVERLAP, by)
    cut = list(windows(documents, encoded.encoder.tokenizer, size))
    passages = [passage for _, of_one in cut for passage in of_one]
    texts = [join_title(d.title, p.breadcrumb, p.text) for d, of_one in cut for p in of_one]
    numbers = [number for number, (_, of_one) in enumerate(cut) for _ in of_one]
    return Index(passages, numbers, encoded([p.token_ids for p in passages]), Bm25(texts, terms))


def legs(found: Index, asked: Sequence[str], queries: np.ndarray) -> dict[str, list[Ranking]]:
    keys = [str(i) for i in range(len(found.passages))]
    dense = ranked(queries @ found.dense.T, keys, Leg.DENSE, np.ones(len(asked)))

    alone = Passages(
        [], [], keys, np.arange(len(keys)), EncodedBatch(found.dense, None, np.zeros(0, np.int32))
    )
    bm25 = sparse_leg(*found.bm25.queries(asked), found.bm25.matrix, alone, Leg.BM25)
    return {"dense": dense, "bm25": bm25}


def reciprocal_rank(ids: Sequence[str], found: Index, item: Item) -> float:
    for rank, id_ in enumerate(ids[:CUT], 1):
        passage = found.passages[int(id_)]
        if (
            found.documents[int(id_)] == item.document
            and passage.start <= item.start
            and item.end <= passage.end
        ):
            return 1 / rank
    return 0.0


def measured(found: Index, asked: Sequence[Item], queries: np.ndarray) -> dict[str, np.ndarray]:
    """RR@10 of each query, by leg."""
    rankings = legs(found, [item.query for item in asked], queries)
    pairs = zip(rankings["dense"], rankings["bm25"], strict=True)
    fused = [
        fuse({"dense": dense, "bm25": bm25}, {"dense": 1.0, "bm25": 1.0}, method="evidence")
        for dense, bm25 in pairs
    ]
    ids = {name: [ranking.ids for ranking in leg] for name, leg in rankings.items()}
    ids["fused"] = [[one.id for one in hits] for hits in fused]
    return {
        name: np.array([reciprocal_rank(i, found, item) for i, item in zip(of_leg, asked, strict=True)])
        for name, of_leg in ids.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sets", default="rustbook,tldr,laws,speeches")
    parser.add_argument("--queries", type=int, default=300, help="queries of each kind and set")
    parser.add_argument(
        "--small", type=float, default=structure.SMALL, help="up to which sections are joined"
    )
    options = parser.parse_args()
    structure.SMALL = options.small
    encoded, began = Encoded(options.encoder, options.cache), time.perf_counter()
    print("| set | passages, tokens | query | leg | tokens | structure | structure - tokens |")
    print("|---|---|---|---|---|---|---|")
    for name, documents in sets(options.data):
        if name not in options.sets.split(","):
            continue
        ways = {by: index(documents, by, encoded) for by in ("tokens", "structure")}
        sizes = " / ".join(
            f"{len(way.passages):,}, {sum(p.tokens for p in way.passages):,}" for way in ways.values()
        )
        all_items = items(documents, options.queries)
        for kind in ("heading", "sentence"):
            asked = [item for item in all_items if item.kind == kind]
            if not asked:
                continue
            texts = [item.query for item in asked]
            queries = encoded.encoder.encode_queries(texts, lexical=False)
            values = {by: measured(way, asked, queries.dense) for by, way in ways.items()}
            for leg in ("dense", "bm25", "fused"):
                one, other = values["tokens"][leg], values["structure"][leg]
                gain = difference(one, other)
                print(
                    f"| {name} | {sizes} | {kind} ({len(asked)}) | {leg} | {estimate(one).mean:.3f} | "
                    f"{estimate(other).mean:.3f} | {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |",
                    flush=True,
                )
    rate = encoded.tokens / encoded.seconds if encoded.seconds else 0
    seconds = time.perf_counter() - began
    print(f"{encoded.tokens:,} tokens encoded at {rate:,.0f} tokens/s; {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
