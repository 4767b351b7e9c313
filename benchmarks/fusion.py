#!/usr/bin/env python3
"""Fusion by evidence beside both legs, reciprocal rank fusion and the best weights: nDCG@10, by exact search.

    python benchmarks/fusion.py [--data ../shared/data] [--encoder MODEL] [--english MODEL] [--cache FOLDER]
        [--sets mono,cross,mixed,english,scifact,long,diluted] [--languages ar,de,...] [--sample 300]
        [--dilute 100000]

--encoder: a multilingual model (default offline); if it has a lexical head, both kinds of sparse vectors are
measured. --cache: keeps the vectors, so that a second run encodes nothing. --sample: questions of each pair
of languages. BM25 is that of Milvus Lite (m3index/store/analyzer.py); with icu4py installed, also with words
as the analyzer icu of servers divides them. The fusion is the product's own, with the depth and the passages
of a search.

Columns: m of the calibration; nDCG@10 of the legs; of reciprocal rank fusion, k = 60; of the best static
weights, which nobody knows beforehand; of evidence without m, and with it, with 95 % bootstrap intervals.
gain: evidence over the better leg. Over RRF: with p of the paired randomisation test. The constants of the
rule were chosen on mono, cross, mixed, and on ar, de, el and en of english (docs/results.md).
"""

from __future__ import annotations

import argparse
import gzip
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from m3index import schema
from m3index.corpus.cut import windows
from m3index.corpus.windows import PassageSize
from m3index.distill.retrieval import TestCollection, read_collection
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.evaluate.held import HeldQuery
from m3index.evaluate.statistics import difference, estimate
from m3index.evaluate.tune import table
from m3index.index.calibrate import SAMPLE_DOCUMENTS, Calibration, measure
from m3index.search.fusion import Fused, Ranking, chances_of, evidence, fuse
from m3index.search.trust import by_share
from m3index.store.analyzer import terms
from m3index.types import Document, EncodedBatch, Leg, SparseRows, document_key, join_title, passage_key

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
TOKENS, OVERLAP, DEPTH, CUT = 512, 64, 100, 10
SHARES = tuple(round(0.1 * i, 1) for i in range(11))
DISCOUNT = 1 / np.log2(np.arange(2, CUT + 2))
BM25 = schema.collection()["sparse"]["bm25"]["index"]["params"]


# ------------------------------------------------------------------------------------------------ collections


@dataclass
class Passages:
    """All passages of a collection, with the number of their document; documents are ordered by key."""

    texts: list[str]
    plain: list[str]
    keys: list[str]
    owners: np.ndarray
    vectors: EncodedBatch


class Encoded:
    """Encodes with one model; keeps the vectors in a folder, if there is one."""

    def __init__(self, model: str, cache: Path | None) -> None:
        self.encoder: ModelEncoder = load(model)
        self.folder = None if cache is None else cache / self.encoder.info.encoder_id[:16].replace("/", "_")

    def _kept(self, name: str, make: Callable[[], EncodedBatch]) -> EncodedBatch:
        path = None if self.folder is None else self.folder / f"{name}.npz"
        if path is None or not path.exists():
            batch = make()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                parts = {"dense": batch.dense, "tokens": batch.tokens}
                if batch.lexical is not None:
                    rows = batch.lexical
                    parts |= {"indptr": rows.indptr, "indices": rows.indices, "values": rows.values}
                np.savez(path, **parts)
            return batch
        with np.load(path) as kept:
            rows = None
            if "indptr" in kept:
                rows = SparseRows(kept["indptr"], kept["indices"], kept["values"])
            return EncodedBatch(kept["dense"], rows, kept["tokens"], None)

    def queries(self, name: str, texts: Sequence[str]) -> EncodedBatch:
        return self._kept(f"{name}.queries", lambda: self.encoder.encode_queries(texts))

    def passages(self, name: str, documents: Sequence[Document]) -> Passages:
        size = min(TOKENS, self.encoder.info.limit)
        cut = list(
            windows(documents, self.encoder.tokenizer, PassageSize(size, min(OVERLAP, size // 4), "tokens"))
        )
        inputs = [passage.token_ids for _, passages in cut for passage in passages]
        lexical = self.encoder.info.lexical
        vectors = self._kept(f"{name}.passages", lambda: self.encoder.encode_ids(inputs, lexical=lexical))
        return Passages(
            [join_title(d.title, p.breadcrumb, p.text) for d, passages in cut for p in passages],
            [p.text for _, passages in cut for p in passages],
            [document_key(name, d.doc_id) for d, _ in cut],
            np.repeat(np.arange(len(cut)), [len(passages) for _, passages in cut]),
            vectors,
        )


def joined(parts: Sequence[Passages]) -> Passages:
    """One collection of several; of the keys, the order is that of a collection."""
    keys = [key for part in parts for key in part.keys]
    order = {key: i for i, key in enumerate(sorted(keys))}
    number = np.array([order[key] for key in keys])
    offsets = np.cumsum([0, *(len(part.keys) for part in parts)])
    owners = np.concatenate(
        [number[part.owners + offset] for part, offset in zip(parts, offsets, strict=False)]
    )
    lexical = None
    if all(part.vectors.lexical is not None for part in parts):
        stacked = sparse.vstack([matrix(part.vectors.lexical) for part in parts]).tocsr()
        lexical = SparseRows(stacked.indptr.astype(np.int64), stacked.indices, stacked.data)
    dense = np.concatenate([part.vectors.dense for part in parts])
    tokens = np.concatenate([part.vectors.tokens for part in parts])
    return Passages(
        [text for part in parts for text in part.texts],
        [text for part in parts for text in part.plain],
        sorted(keys),
        owners,
        EncodedBatch(dense, lexical, tokens, None),
    )


def matrix(rows: SparseRows | None) -> Any:
    assert rows is not None
    return sparse.csr_matrix((rows.values, rows.indices, rows.indptr), shape=(len(rows), 300_000))


# ----------------------------------------------------------------------------------------------------- legs


def icu() -> Callable[[str], Counter[str]] | None:
    """Words as ICU divides them, lower-cased, without punctuation; None if icu4py is not installed."""
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        return None
    return lambda text: Counter(
        word for word in WordBreaker(text.lower(), "root") if any(c.isalnum() for c in word)
    )


class Bm25:
    """Exact BM25, as m3index/store/memory.py."""

    def __init__(self, texts: Sequence[str], analyze: Callable[[str], Counter[str]]) -> None:
        self.analyze = analyze
        self.words: dict[str, int] = {}
        rows, columns, counts = [], [], []
        for row, text in enumerate(texts):
            for word, count in analyze(text).items():
                rows.append(row)
                columns.append(self.words.setdefault(word, len(self.words)))
                counts.append(count)
        found = sparse.coo_matrix((np.array(counts, float), (rows, columns)), (len(texts), len(self.words)))
        frequency = np.bincount(found.col, minlength=len(self.words))
        idf = np.log((len(texts) - frequency + 0.5) / (frequency + 0.5) + 1)
        length = np.bincount(found.row, found.data, minlength=len(texts))
        norm = BM25["bm25_k1"] * (1 - BM25["bm25_b"] + BM25["bm25_b"] * length / length.mean())
        weights = idf[found.col] * found.data * (BM25["bm25_k1"] + 1) / (found.data + norm[found.row])
        self.matrix = sparse.csr_matrix((weights, (found.row, found.col)), found.shape)

    def queries(self, texts: Sequence[str]) -> tuple[Any, np.ndarray]:
        """The queries as a matrix, and how many distinct words each has, known or not."""
        counted = [self.analyze(text) for text in texts]
        found = [
            (i, self.words[w], n) for i, c in enumerate(counted) for w, n in c.items() if w in self.words
        ]
        rows, columns, counts = zip(*found, strict=True)
        shape = (len(texts), len(self.words))
        return sparse.csr_matrix((np.array(counts, float), (rows, columns)), shape), np.array(
            list(map(len, counted))
        )


def best_of(scores: np.ndarray, passages: Passages) -> np.ndarray:
    """The score of each document: that of its best passage."""
    order = np.argsort(passages.owners, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(passages.owners[order]) > 0])
    return np.maximum.reduceat(scores[:, order], starts, axis=1)


def ranked(scores: np.ndarray, keys: Sequence[str], leg: Leg, trust: np.ndarray) -> list[Ranking]:
    """The best `DEPTH` documents of each query; a sparse leg finds what scores above 0."""
    rankings = []
    for row, t in zip(scores, trust, strict=True):
        some = np.argpartition(-row, DEPTH)[: DEPTH + 1] if len(row) > DEPTH else np.arange(len(row))
        order = some[np.lexsort((some, -row[some]))][:DEPTH]
        if leg is not Leg.DENSE:
            order = order[row[order] > 0]
        ids = tuple(keys[i] for i in order)
        rankings.append(Ranking(ids, tuple(row[order].tolist()), ids, leg, DEPTH, float(t)))
    return rankings


def dense_leg(queries: np.ndarray, passages: Passages, trust: float) -> list[Ranking]:
    found = []
    for part in np.array_split(queries, max(1, len(queries) // 100)):
        scores = best_of(part @ passages.vectors.dense.T, passages)
        found += ranked(scores, passages.keys, Leg.DENSE, np.full(len(part), trust))
    return found


def sparse_leg(queries: Any, words: np.ndarray, weights: Any, passages: Passages, leg: Leg) -> list[Ranking]:
    """weights: (passages, words). words: how many each query has, for its share in the best passage."""
    found, columns = [], weights.T.tocsr()
    for part in np.array_split(np.arange(queries.shape[0]), max(1, queries.shape[0] // 100)):
        scores = np.asarray((queries[part] @ columns).todense(), dtype=np.float32)
        best = weights[scores.argmax(axis=1)]
        shared = np.asarray((queries[part] > 0).multiply(best > 0).sum(axis=1)).ravel()
        trust = np.array([by_share(share) for share in shared / np.maximum(words[part], 1)])
        found += ranked(best_of(scores, passages), passages.keys, leg, trust)
    return found


def legs_of(
    passages: Passages, texts: Sequence[str], vectors: EncodedBatch, kinds: Sequence[str]
) -> Iterator[tuple[str, list[Ranking]]]:
    """The sparse legs by kind."""
    for kind in kinds:
        if kind == "lexical":
            if passages.vectors.lexical is None:
                continue
            queries, weights = matrix(vectors.lexical), matrix(passages.vectors.lexical)
            words = np.diff(queries.indptr)
            yield kind, sparse_leg(queries, words, weights, passages, Leg.LEXICAL)
            continue
        analyze = terms if kind == "stems" else icu()
        if analyze is not None:
            bm25 = Bm25(passages.texts, analyze)
            yield kind, sparse_leg(*bm25.queries(texts), bm25.matrix, passages, Leg.BM25)


# ------------------------------------------------------------------------------------------------- measures


Judged = Sequence[dict[str, int]]
"""For each query, its relevant documents by key."""


def ndcg(ids: Sequence[str], judged: dict[str, int]) -> float:
    gains = [judged.get(id_, 0) for id_ in ids[:CUT]]
    ideal = sorted(judged.values(), reverse=True)[:CUT]
    return float((gains * DISCOUNT[: len(gains)]).sum() / (ideal * DISCOUNT[: len(ideal)]).sum())


def best_static(dense: Sequence[Ranking], other: Sequence[Ranking], judged: Judged) -> float:
    """The greatest mean over the shares of the weights, k = 60, both legs alone among them."""
    held = []
    for first, second, relevant in zip(dense, other, judged, strict=True):
        ids = sorted({*first.ids, *second.ids})
        number = {id_: i for i, id_ in enumerate(ids)}
        ranks = np.zeros((len(ids), 2), np.int64)
        for column, leg in enumerate((first, second)):
            ranks[[number[id_] for id_ in leg.ids], column] = np.arange(1, len(leg) + 1)
        found = [id_ for id_ in relevant if id_ in number]
        held.append(
            HeldQuery(
                "",
                ranks,
                np.array([number[id_] for id_ in found], np.int64),
                np.array([relevant[id_] for id_ in found], np.float64),
                np.array(sorted(relevant.values(), reverse=True), np.float64),
                np.full(len(found), np.inf),  # only the weightings are compared here
            )
        )
    return float(table(held, f"nDCG@{CUT}", SHARES, (60,), (DEPTH,)).mean(axis=0).max())


def by_language(dense: Ranking, other: Ranking, same: Callable[[str], bool]) -> list[Fused]:
    """Evidence where the documents and the query declare their languages: the dense leg votes in place of the
    sparse one for documents in other languages only."""
    rankings = {"dense": dense, "sparse": other}
    chances = chances_of(rankings)
    votes = evidence(rankings, chances)
    plain = [dense.trust * chances["dense"].vote(score) for score in dense.scores]
    parts: dict[str, float] = dict(zip(other.ids, votes["sparse"], strict=True))
    for id_, vote in zip(dense.ids, plain, strict=True):
        times = dense.unseen - (dense.unseen - 1) * other.trust if same(id_) else dense.unseen
        parts[id_] = parts.get(id_, 0.0) + times * vote
    return [
        Fused(id_, score, {}) for id_, score in sorted(parts.items(), key=lambda item: (-item[1], item[0]))
    ]


WEIGHTS = {"dense": 1.0, "sparse": 1.0}
COLUMNS = (
    "set", "sparse leg", "m", "dense", "sparse", "RRF", "best weights", "evidence, no m", "evidence", "gain",
    "over RRF",
)  # fmt: skip


@dataclass
class Line:
    """What was measured on one set."""

    name: str
    kind: str
    better: np.ndarray
    rrf: np.ndarray
    found: np.ndarray

    @property
    def gain(self) -> float:
        return float(self.found.mean() - self.better.mean())


def measured(
    name: str,
    kind: str,
    dense: Sequence[Ranking],
    other: Sequence[Ranking],
    judged: Judged,
    mrr: float | None,
    same: Callable[[int, str], bool] | None = None,
) -> Line:
    """Prints the line of a set."""

    def values(rankings: Iterator[Sequence[str]]) -> np.ndarray:
        return np.array([ndcg(ids, relevant) for ids, relevant in zip(rankings, judged, strict=True)])

    def fused(method: Any, trust: float | None = None) -> np.ndarray:
        pairs = zip(dense, other, strict=True)
        return values(
            [
                f.id
                for f in fuse(
                    {"dense": d if trust is None else replace(d, trust=trust), "sparse": s},
                    WEIGHTS,
                    method=method,
                )
            ]
            for d, s in pairs
        )

    alone = values(d.ids for d in dense), values(s.ids for s in other)
    better = max(alone, key=lambda v: v.mean())
    rrf, without, found = fused("rrf"), fused("evidence", 1.0), fused("evidence")
    interval, over = estimate(found), difference(rrf, found)
    line = Line(name, kind, better, rrf, found)
    sign = "p < 0.001" if over.p < 0.001 else f"p = {over.p:.3f}"
    cells = [
        name, kind, "-" if mrr is None else f"{mrr:.3f}", f"{alone[0].mean():.3f}", f"{alone[1].mean():.3f}",
        f"{rrf.mean():.3f}", f"{best_static(dense, other, judged):.3f}", f"{without.mean():.3f}",
        f"**{interval.mean:.3f}** [{interval.low:.3f}, {interval.high:.3f}]", f"{line.gain:+.3f}",
        f"{over.mean:+.3f} ({sign})",
    ]  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)
    if same is not None:
        language = values(
            [f.id for f in by_language(d, s, lambda id_, i=i: same(i, id_))]
            for i, (d, s) in enumerate(zip(dense, other, strict=True))
        )
        print(f"<!-- {name}, {kind}: with the languages of query and documents {language.mean():.3f} -->")
    return line


# ----------------------------------------------------------------------------------------------------- sets


def calibrated(encoded: Encoded, passages: Passages) -> float | None:
    """m of a collection, as the product measures it."""
    rows = [
        {"passage_id": passage_key(passages.keys[owner], i), "text": text, "dense": vector}
        for i, (owner, text, vector) in enumerate(
            zip(passages.owners.tolist(), passages.plain, passages.vectors.dense, strict=True)
        )
        if owner < SAMPLE_DOCUMENTS
    ]
    found = measure(rows, encoded.encoder)
    return None if found is None else found[0]


def trust_of(mrr: float | None) -> float:
    return 1.0 if mrr is None else Calibration(mrr, 0, 0).dense_trust


class Study:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data = options, options.data
        self.multilingual = Encoded(options.encoder, options.cache)
        self.lines: list[Line] = []
        self._read: dict[str, TestCollection] = {}

    def collection(self, name: str) -> TestCollection:
        if name not in self._read:
            self._read[name] = read_collection(self.data / name, name)
        return self._read[name]

    def passages(self, encoded: Encoded, name: str) -> Passages:
        return joined([encoded.passages(name.replace("/", "-"), self.collection(name).documents)])

    def add(
        self,
        encoded: Encoded,
        passages: Passages,
        asked: Sequence[tuple[str, list[int]]],
        name: str,
        kinds: Sequence[str],
        judged: Judged,
        same: Callable[[int, str], bool] | None = None,
    ) -> None:
        """asked: names of sets with the numbers of the queries to ask."""
        texts, dense, lexical = [], [], []
        for of_set, numbers in asked:
            queries = self.collection(of_set).queries
            vectors = encoded.queries(of_set.replace("/", "-"), [q.text for q in queries])
            texts += [queries[i].text for i in numbers]
            dense.append(vectors.dense[numbers])
            if vectors.lexical is not None:
                lexical.append(matrix(vectors.lexical)[numbers])
        rows = None
        if lexical:
            stacked = sparse.vstack(lexical).tocsr()
            rows = SparseRows(stacked.indptr.astype(np.int64), stacked.indices, stacked.data)
        vectors = EncodedBatch(np.concatenate(dense), rows, np.zeros(len(texts), np.int32), None)
        mrr = calibrated(encoded, passages)
        first = dense_leg(vectors.dense, passages, trust_of(mrr))
        for kind, second in legs_of(passages, texts, vectors, kinds):
            self.lines.append(measured(name, kind, first, second, judged, mrr, same))

    def judged(self, name: str, numbers: Sequence[int], source: str = "") -> Judged:
        found = self.collection(name)
        return [
            {document_key((source or name).replace("/", "-"), d): level
             for d, level in found.qrels[found.queries[i].query_id].items()}
            for i in numbers
        ]  # fmt: skip

    def all_of(self, name: str) -> list[int]:
        return list(range(len(self.collection(name).queries)))

    # -- the sets

    def simple(self, encoded: Encoded, name: str, kinds: Sequence[str], label: str) -> None:
        numbers = self.all_of(name)
        self.add(
            encoded, self.passages(encoded, name), [(name, numbers)], label, kinds, self.judged(name, numbers)
        )

    def mono(self) -> None:
        for language in self.options.languages:
            self.simple(
                self.multilingual, f"xquad/{language}", ("stems", "icu", "lexical"), f"XQuAD {language}"
            )

    def english(self) -> None:
        encoded = Encoded(self.options.english, self.options.cache)
        for language in LANGUAGES:
            self.simple(encoded, f"xquad/{language}", ("stems",), f"XQuAD {language}, English model")
        if "scifact" in self.options.sets:
            self.simple(encoded, "scifact", ("stems",), "SciFact, English model")

    def scifact(self) -> None:
        self.simple(self.multilingual, "scifact", ("stems", "icu", "lexical"), "SciFact")

    def long(self) -> None:
        self.simple(self.multilingual, "longdocs", ("stems", "lexical"), "long documents")

    def cross(self) -> None:
        for paragraphs in self.options.languages:
            passages = self.passages(self.multilingual, f"xquad/{paragraphs}")
            for questions in self.options.languages:
                if questions != paragraphs:
                    name = f"xquad/{questions}"
                    numbers = sorted(random.Random(0).sample(self.all_of(name), self.options.sample))
                    judged = self.judged(name, numbers, f"xquad/{paragraphs}")
                    asked = [(name, numbers)]
                    label = f"{questions} asks {paragraphs}"
                    self.add(self.multilingual, passages, asked, label, ("stems", "lexical"), judged)

    def mixed(self, extra: Sequence[Passages] = (), label: str = "XQuAD, 12 languages in one") -> None:
        parts = [
            self.multilingual.passages(f"xquad-{language}", self.collection(f"xquad/{language}").documents)
            for language in LANGUAGES
        ]
        language_of = {
            key: language for language, part in zip(LANGUAGES, parts, strict=True) for key in part.keys
        }
        asked, judged, languages = [], [], []
        for i, language in enumerate(LANGUAGES):
            numbers = self.all_of(f"xquad/{language}")[i :: len(LANGUAGES)]
            asked.append((f"xquad/{language}", numbers))
            for number in numbers:
                everywhere: dict[str, int] = {}
                for other in LANGUAGES:
                    [found] = self.judged(f"xquad/{language}", [number], f"xquad/{other}")
                    everywhere |= dict.fromkeys(found, 2 if other == language else 1)
                judged.append(everywhere)
                languages.append(language)
        kinds = ("stems", "icu", "lexical") if not extra else ("stems", "lexical")
        self.add(
            self.multilingual, joined([*parts, *extra]), asked, label, kinds, judged,
            lambda i, key: language_of.get(key) == languages[i],
        )  # fmt: skip

    def news(self) -> list[Passages]:
        """About `--dilute` sentences of news, from 51 languages."""
        if not self.options.dilute:
            return []
        lines: list[Document] = []
        for path in sorted((self.data / "text_multilingual" / "ntrex").glob("*.txt.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                texts = [text for line in file if (text := line.strip())]
            lines += [Document(f"{path.name}-{i}", text) for i, text in enumerate(texts)]
        step = max(1, len(lines) // self.options.dilute)
        return [self.multilingual.passages(f"ntrex-{step}", lines[::step])]

    def diluted(self) -> None:
        """The same questions in a collection that is mostly something else: SciFact, and news."""
        extra = [self.multilingual.passages("scifact", self.collection("scifact").documents), *self.news()]
        total = sum(len(part.texts) for part in extra)
        for language in ("en", "de", "zh"):
            name, numbers = f"xquad/{language}", self.all_of(f"xquad/{language}")
            own = self.multilingual.passages(f"xquad-{language}", self.collection(name).documents)
            for questions in (language, "ru"):
                label = f"{questions} asks {language}, and {total:,} other rows"
                asked = [(f"xquad/{questions}", numbers)]
                judged = self.judged(f"xquad/{questions}", numbers, name)
                self.add(self.multilingual, joined([own, *extra]), asked, label, ("stems", "lexical"), judged)
        self.mixed(extra, f"12 languages in one, and {total:,} other rows")
        if news := extra[1:]:
            numbers, rows = self.all_of("scifact"), sum(len(part.texts) for part in news)
            judged, asked = self.judged("scifact", numbers), [("scifact", numbers)]
            label = f"SciFact, and {rows:,} other rows"
            self.add(self.multilingual, joined(extra), asked, label, ("stems", "lexical"), judged)


def summary(lines: Sequence[Line]) -> None:
    gains = sorted(lines, key=lambda line: line.gain)
    worse = [
        line.name for line in lines if (over := difference(line.rrf, line.found)).mean < 0 and over.p < 0.05
    ]
    print(f"\n{len(lines)} sets. Gain over the better leg: mean {np.mean([x.gain for x in lines]):+.4f}, "
          f"worst {gains[0].gain:+.4f} ({gains[0].name}, {gains[0].kind}).")  # fmt: skip
    rrf = [float(line.rrf.mean() - line.better.mean()) for line in lines]
    print(f"RRF: mean {np.mean(rrf):+.4f}, worst {min(rrf):+.4f}.")
    print(f"Significantly below RRF (p < 0.05): {', '.join(worse) or 'none'}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--english", default="offline-en")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sets", default="mono,cross,mixed,english,scifact,long,diluted")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="of mono and cross")
    parser.add_argument("--sample", type=int, default=300, help="questions of each pair of languages")
    parser.add_argument("--dilute", type=int, default=100_000, help="sentences of news")
    options = parser.parse_args()
    options.sets, options.languages = options.sets.split(","), options.languages.split(",")
    started, study = time.process_time(), Study(options)
    for name in options.sets:
        print(f"\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
        before = len(study.lines)
        getattr(study, name)()
        summary(study.lines[before:])
    if len(options.sets) > 1:
        summary(study.lines)
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
