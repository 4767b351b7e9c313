"""What fusing on the client costs.

    python benchmarks/search.py [--rows 10000] [--rounds 200]

1. Against a store whose legs take a given time: search time minus the slower leg's.
2. Against Milvus's own `hybrid_search`, on Milvus Lite as a file and behind `milvus-lite server`: the same
   vectors, the same limits, passages as hits, both with the texts of the final hits, in turn, query
   by query, so that both see the same machine.
3. With legs that take no time and on the same collections: a page, boosts, a sort and diversity beside the
   plain search, in turn. The figures are medians of the differences from the plain search of the same round,
   by the clock and by the processor time of this process (on Milvus Lite as a file, with its engine).
4. What phrases, exclusions and facets cost beside the plain search, in turn, on the same two engines: in CPU
   time of this process, which has the engine of a file in it, but not that of a server.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from m3index.schema import CollectionSpec
from m3index.search.options import SearchOptions
from m3index.search.searcher import Searcher, SearchTarget
from m3index.store.milvus import MilvusStore
from m3index.types import (
    Candidate,
    EncodedBatch,
    Leg,
    Row,
    SparseRows,
    SparseVector,
    document_key,
    passage_key,
)

DIM, VOCABULARY, TOKENS, DEPTH, K = 384, 20_000, 60, 100, 10
SPEC = CollectionSpec(DIM, "lexical", {"lang": "str", "year": "int"})
LANGUAGES = ["en", "de", "fr", None]
FIELDS = ["passage_id", "doc_id", "ordinal", "source", "title", "text", "metadata"]


class Vectors:
    """Documents and queries of random vectors; tokens by Zipf's law."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def dense(self, n: int) -> np.ndarray:
        rows = self.rng.standard_normal((n, DIM)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def lexical(self, n: int, tokens: int) -> SparseRows:
        indptr, indices = [0], []
        for _ in range(n):
            indices.append(np.unique(np.minimum(self.rng.zipf(1.3, tokens), VOCABULARY)))
            indptr.append(indptr[-1] + len(indices[-1]))
        flat = np.concatenate(indices).astype(np.int32)
        values = self.rng.uniform(0.05, 0.6, len(flat)).astype(np.float32)
        return SparseRows(np.array(indptr, np.int64), flat, values)


class Encoder:
    """Gives the vectors that were made before, so that no model is measured."""

    def __init__(self, dense: np.ndarray, lexical: SparseRows) -> None:
        self.dense, self.lexical = dense, lexical

    def prepare(self) -> None: ...

    def encode_queries(self, texts: Sequence[str], **_: bool) -> EncodedBatch:
        numbers = [int(text.split()[0]) for text in texts]
        rows = [self.lexical.row(i) for i in numbers]
        sparse = SparseRows(
            np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64),
            np.concatenate([row.indices for row in rows]),
            np.concatenate([row.values for row in rows]),
        )
        return EncodedBatch(self.dense[numbers], sparse, np.ones(len(numbers), np.int32))


class TimedStore:
    """Legs that take exactly as long as they are told, and answer with `limit` passages."""

    def __init__(self, seconds: dict[Leg, float]) -> None:
        self.seconds = seconds
        keys = [document_key("default", str(i)) for i in range(2 * DEPTH)]
        self.vectors = dict(zip([passage_key(k, 0) for k in keys], Vectors(0).dense(len(keys)), strict=True))
        values = {k: fields_of(i) for i, k in enumerate(keys)}
        self.found = {
            Leg.DENSE: [
                Candidate(passage_key(k, 0), 1 - i / 1e3, values[k]) for i, k in enumerate(keys[:DEPTH])
            ],
            Leg.LEXICAL: [
                Candidate(passage_key(k, 0), 9 - i / 1e3, values[k]) for i, k in enumerate(keys[DEPTH // 2 :])
            ],
        }

    def search(
        self, _name: str, leg: Leg, queries: Sequence[Any], limit: int, *_: Any
    ) -> list[list[Candidate]]:
        time.sleep(self.seconds[leg])
        return [self.found[leg][:limit] for _ in queries]

    def get(self, _name: str, keys: Sequence[str], _fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        tokens = SparseVector(np.array([1], np.int32), np.array([1.0], np.float32))
        row = {
            "doc_id": "d", "ordinal": 0, "source": "default", "title": "t", "text": "text", "metadata": {},
            "lexical": tokens,
        }  # fmt: skip
        return {key: {**row, "dense": self.vectors[key]} for key in keys}


def given_latencies(encoder: Encoder, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for dense, sparse in ((0.0, 0.0), (0.005, 0.02), (0.02, 0.005), (0.05, 0.05)):
        store = TimedStore({Leg.DENSE: dense, Leg.LEXICAL: sparse})
        searcher = Searcher(SearchTarget(store, "c", SPEC, lambda: encoder))  # type: ignore[arg-type, return-value]
        searcher.search("0")
        slower = max(dense, sparse)
        over = [1e3 * (timed(lambda s=searcher, i=i: s.search(str(i % 50))) - slower) for i in range(rounds)]
        rows.append({"dense_ms": 1e3 * dense, "sparse_ms": 1e3 * sparse, "over_slower_leg_ms": summary(over)})
    return rows


def against_milvus(store: MilvusStore, rows: int, rounds: int, seed: int) -> dict[str, Any]:
    from pymilvus import AnnSearchRequest, RRFRanker

    vectors = Vectors(seed)
    name = "bench__g1"
    store.create(name, SPEC, {})
    for start in range(0, rows, 1000):
        dense, lexical = vectors.dense(1000), vectors.lexical(1000, TOKENS)
        store.upsert(
            name, [document(start + i, dense[i], lexical, i) for i in range(min(1000, rows - start))]
        )
    store.flush(name)
    dense, lexical = vectors.dense(50), vectors.lexical(50, 8)
    encoder = Encoder(dense, lexical)
    searcher = Searcher(SearchTarget(store, name, SPEC, lambda: encoder))  # type: ignore[arg-type, return-value]
    options = SearchOptions(k=K, depth=DEPTH, passages=True, fusion="rrf")
    client = store._client

    def theirs(i: int) -> list[str]:
        sparse = lexical.row(i).to_dict()
        legs = [
            AnnSearchRequest([dense[i]], "dense", {"metric_type": "IP", "params": {"ef": 256}}, limit=DEPTH),
            AnnSearchRequest([sparse], "lexical", {"metric_type": "IP", "params": {}}, limit=DEPTH),
        ]
        hits = client.hybrid_search(
            name, legs, RRFRanker(60), limit=K, output_fields=FIELDS, consistency_level="Strong"
        )
        return [hit["passage_id"] for hit in hits[0]]

    def ours(i: int) -> list[str]:
        return [hit.passage_id for hit in searcher.search(str(i), options)]

    for i in range(5):
        ours(i), theirs(i)
    same = sum(ours(i) == theirs(i) for i in range(50))
    same_sets = sum(set(ours(i)) == set(theirs(i)) for i in range(50))
    a, b = [], []
    for i in range(rounds):
        pair = [(a, ours), (b, theirs)]
        for times, search in pair if i % 2 else reversed(pair):
            times.append(1e3 * timed(lambda s=search, i=i: s(i % 50)))
    return {
        "rows": rows,
        "m3index_ms": summary(a),
        "hybrid_search_ms": summary(b),
        "ratio_of_medians": round(statistics.median(a) / statistics.median(b), 3),
        "same_hits_in_same_order": f"{same}/50",
        "same_hits": f"{same_sets}/50",
    }


ARRANGED: dict[str, dict[str, Any]] = {
    "page": {"page": 5},
    "boosts": {"boost": ["lang=en: 1.2", "year: gauss(2026, scale=3)"]},
    "sort": {"sort": "year:desc"},
    "diversity": {"diversity": 0.3},
    "boosts_diversity_page": {
        "boost": ["lang=en: 1.2", "year: gauss(2026, scale=3)"],
        "diversity": 0.3,
        "page": 5,
    },
}


def arranged(store: Any, rounds: int, seed: int) -> dict[str, Any]:
    """What each way to arrange hits costs, on the collection of `against_milvus`."""
    vectors = Vectors(seed + 1)
    encoder = Encoder(vectors.dense(50), vectors.lexical(50, 8))
    searcher = Searcher(SearchTarget(store, "bench__g1", SPEC, lambda: encoder))  # type: ignore[arg-type, return-value]
    ways = {"plain": SearchOptions(k=K)} | {n: SearchOptions(k=K, **more) for n, more in ARRANGED.items()}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(-3, rounds):
        for name in vectors.rng.permutation([*ways]):  # else each would always follow the same one
            start, used = time.perf_counter(), time.process_time()
            result = searcher.search(str(i % 50), ways[name])
            seconds, spent = time.perf_counter() - start, time.process_time() - used
            assert len(result) == K
            if i >= 0:
                wall[name].append(1e3 * seconds)
                cpu[name].append(1e3 * spent)

    def more(times: dict[str, list[float]], name: str) -> float:
        return round(statistics.median(a - b for a, b in zip(times[name], times["plain"], strict=True)), 2)

    return {
        "plain_ms": summary(wall["plain"]),
        "plain_cpu_ms": round(statistics.median(cpu["plain"]), 2),
        "more_ms": {name: more(wall, name) for name in ARRANGED},
        "more_cpu_ms": {name: more(cpu, name) for name in ARRANGED},
    }


def fields_of(number: int) -> dict[str, Any]:
    return {"lang": LANGUAGES[number % 4], "year": 1990 + number % 37}


WORD_LANGUAGES = ("en", "de", "fr", "es", "it", "tr", "ar", "ru", "el", "zh", "ko", "ja")
WORDED = CollectionSpec(DIM, "lexical", {"lang": "str", "year": "int"})


def worded(number: int, dense: np.ndarray, lexical: SparseRows, i: int) -> Row:
    """A document of 1,500 characters; one in ten has `honey bees`, the others `bees` and `honey`."""
    row = document(number, dense, lexical, i)
    words = "honey bees" if number % 10 == 0 else "bees like honey"
    text = f"{row.text} {words} " + "more words that fill the passage up to its length " * 20
    fields = {"lang": WORD_LANGUAGES[number % len(WORD_LANGUAGES)], "year": 1990 + number % 35}
    return replace(row, text=text[:1500], fields=fields)


def conditions_and_facets(store: MilvusStore, rows: int, rounds: int, seed: int) -> Iterator[dict[str, Any]]:
    """Each search in turn with the plain one of the same depth, in CPU time."""
    vectors, name = Vectors(seed), "words__g1"
    store.create(name, WORDED, {})
    for start in range(0, rows, 1000):
        dense, lexical = vectors.dense(1000), vectors.lexical(1000, TOKENS)
        store.upsert(name, [worded(start + i, dense[i], lexical, i) for i in range(min(1000, rows - start))])
    store.flush(name)
    encoder = Encoder(vectors.dense(50), vectors.lexical(50, 8))
    searcher = Searcher(SearchTarget(store, name, WORDED, lambda: encoder))  # type: ignore[arg-type, return-value]
    facets = {"facets": ["lang", "year"]}
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("an exclusion that nothing has", "{} -wasps", {}),
        ("a phrase that all have", '{} "some words"', {}),
        ("a phrase that one in ten has", '{} "honey bees"', {}),
        ("a phrase that nothing has", '{} "bees honey"', {}),
        ("facets of what is found", "{}", facets),
        (f"facets of {rows:,} found passages", "{}", {**facets, "depth": rows}),
        (f"facets over a filter that {rows:,} match", "{}", {**facets, "facets_over": "filter"}),
    ]
    for what, form, more in cases:
        plain, asked = SearchOptions(k=K, depth=more.get("depth", DEPTH)), SearchOptions(k=K, **more)
        pair: list[tuple[list[float], Callable[[int], object]]] = [
            ([], lambda i, o=plain: searcher.search(str(i), o)),  # type: ignore[misc]
            ([], lambda i, o=asked, f=form: searcher.search(f.format(i), o)),  # type: ignore[misc]
        ]
        for i in range(-2, max(10, rounds // 4)):
            for times, search in pair if i % 2 else reversed(pair):
                start = time.process_time()
                search(i % 50)
                if i >= 0:
                    times.append(1e3 * (time.process_time() - start))
        (before, _), (after, _) = pair
        over = round(statistics.median(after) - statistics.median(before), 2)
        yield {"search": what, "plain_cpu_ms": summary(before), "cpu_ms": summary(after), "over_ms": over}


def document(number: int, dense: np.ndarray, lexical: SparseRows, i: int) -> Row:
    key = document_key("default", str(number))
    text = f"passage {number} " + "some words that stand for a passage of text " * 10
    return Row(
        passage_id=passage_key(key, 0), doc_id=str(number), ordinal=0, source="default", doc_hash="h",
        passages=1, title=f"Title {number}", breadcrumb="", anchor="", text=text, metadata={"n": number},
        fields=fields_of(number), dense=dense, sparse=lexical.row(i),
    )  # fmt: skip


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(times: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=20)
    return {"median": round(statistics.median(times), 2), "p95": round(cuts[18], 2)}


@contextmanager
def lite_server(folder: Path) -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [Path(sys.executable).parent / "milvus-lite", "server", "--data-dir", folder]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def on_engine(store: MilvusStore, engine: str, arguments: argparse.Namespace) -> None:
    rows, rounds, seed = arguments.rows, arguments.rounds, arguments.seed
    if arguments.only != "words":
        found, ways = against_milvus(store, rows, rounds, seed), arranged(store, rounds, seed)
        print(json.dumps({"benchmark": engine, **found}), flush=True)
        print(json.dumps({"benchmark": f"arranged, {engine}", **ways}), flush=True)
    for row in conditions_and_facets(store, rows, rounds, seed):
        print(json.dumps({"benchmark": f"words and facets, {engine}", **row}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["words"], help="only phrases, exclusions and facets")
    arguments = parser.parse_args()
    vectors = Vectors(arguments.seed)
    encoder = Encoder(vectors.dense(50), vectors.lexical(50, 8))
    for row in given_latencies(encoder, arguments.rounds) if arguments.only is None else []:
        print(json.dumps({"benchmark": "given latencies", **row}), flush=True)
    if arguments.only is None:
        instant = TimedStore({Leg.DENSE: 0.0, Leg.LEXICAL: 0.0})
        ways = arranged(instant, arguments.rounds, arguments.seed)
        print(json.dumps({"benchmark": "arranged, legs that take no time", **ways}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        store = MilvusStore.open(str(Path(folder) / "bench.db"))
        try:
            on_engine(store, "Milvus Lite, a file", arguments)
        finally:
            store.close()
        with lite_server(Path(folder) / "server") as uri:
            store = MilvusStore.open(uri)
            try:
                on_engine(store, "milvus-lite server", arguments)
            finally:
                store.close()


if __name__ == "__main__":
    main()
