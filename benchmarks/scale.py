"""Checks the sizing model of docs/scale.md: real shards, a real store, an encoder of a given rate.

    python benchmarks/scale.py                    20,000 passages, 2 workers, Milvus Lite
    python benchmarks/scale.py --passages 200000 --workers 4 --uri http://127.0.0.1:19530

The stub encoder takes the time that a device of `--rate` tokens/s would take and gives random unit vectors
and lexical weights of a realistic size; everything else is the real thing: reading, cutting, Parquet,
manifests, the search for repeated ids, upserts, counts. It prints what the model says, what was measured, and
what the model says for 1e6, 1e8 and 1e10 passages with the measured figures put in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from m3index.corpus.cut import CutsHere
from m3index.corpus.readers import read
from m3index.corpus.windows import Tokens
from m3index.encoder.base import CallByCall
from m3index.files import Folder
from m3index.scale.encode import encode
from m3index.scale.load import Shards, load
from m3index.scale.manifest import ShardFolder
from m3index.scale.options import EncodeOptions, LoadOptions
from m3index.scale.repeated import repeated
from m3index.scale.shards import reading
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import EncodedBatch, EncoderInfo, IntArray, SparseRows

DIM = 1024
ENCODE = EncodeOptions(passage_tokens=512, overlap=64, shard_documents=1024)
DENSE, WEIGHT, TEXT, OTHER = 0.86, 4.9, 0.32, 40
"""What Parquet makes of a passage: the share of its vector's bytes that is left, bytes of a lexical
weight, the share of its text, bytes of all the rest."""


class StubTokenizer(CutsHere):
    """Words are tokens; their ids are drawn as Zipf would have it."""

    limit, reserve = 8192, 2

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Tokens:
        words = text.split(" ")
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        starts = ends - [len(word) for word in words]
        ids = [0, *(4 + int(word[1:]) for word in words), 2]
        offsets = np.concatenate([[(0, 0)], np.stack([starts, ends], 1), [(0, 0)]])
        return Tokens(np.array(ids, np.int32), offsets.astype(np.int32))


class StubEncoder(CallByCall):
    """Sleeps as long as a device of `rate` tokens/s would work."""

    def __init__(self, rate: float) -> None:
        self.rate, self.tokenizer, self.busy = rate, StubTokenizer(), 0.0
        self.info = EncoderInfo("stub", DIM, 8192, 2, True, False, "stub", "stub")
        self._dice = np.random.default_rng(os.getpid())

    def prepare(self) -> None: ...

    def encode_ids(
        self,
        ids: Sequence[IntArray],
        *,
        lexical: bool,  # noqa: ARG002  (always)
        multi_vector: bool = False,  # noqa: ARG002  (never)
    ) -> EncodedBatch:
        started = time.perf_counter()
        dense = self._dice.standard_normal((len(ids), DIM), dtype=np.float32)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        rows = [np.unique(row[1:-1]) for row in ids]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        indices = np.concatenate(rows).astype(np.int32)
        weights = self._dice.random(len(indices), dtype=np.float32) * 0.3 + 1e-3
        tokens = np.array([len(row) for row in ids], np.int32)
        left = tokens.sum() / self.rate - (time.perf_counter() - started)
        time.sleep(max(left, 0.0))
        self.busy += time.perf_counter() - started
        return EncodedBatch(dense, SparseRows(indptr, indices, weights), tokens)

    def close(self) -> None: ...


def write_corpus(path: Path, passages: int) -> int:
    """One passage a document; returns its bytes."""
    dice = np.random.default_rng(0)
    with path.open("w") as file:
        for number in range(passages):
            words = np.minimum(dice.zipf(1.35, int(np.clip(dice.lognormal(4.7, 0.5), 8, 500))), 200_000)
            file.write(json.dumps({"id": f"d{number}", "text": " ".join(f"w{w}" for w in words)}) + "\n")
    return path.stat().st_size


def worker(corpus: str, out: str, index: int, of: int, rate: float, results: Any) -> None:
    encoder = StubEncoder(rate)
    settings = replace(ENCODE, shard=f"{index}/{of}")
    started = time.perf_counter()
    summary = encode(read([corpus]), Folder(out), encoder, settings)
    seconds = time.perf_counter() - started
    results.put({"tokens": summary.tokens, "seconds": seconds, "busy": encoder.busy})


def weights_of(shards: Shards) -> float:
    """Lexical weights of a passage, from the first shard."""
    folder, entry = shards.parts[0]
    with reading(folder.shards, entry.file) as file:
        return len(file.read(["lexical_values"]).column(0).combine_chunks().values) / entry.rows


@dataclass(frozen=True)
class Model:
    """docs/scale.md in numbers, for one passage and one second."""

    tokens: float
    shard_bytes: float
    read_documents: float
    repeated_documents: float
    load_rows: float

    def encode_seconds(self, passages: float, devices: int, rate: float) -> float:
        """The devices share the tokens; one reader walks all documents for all of them."""
        return max(passages * self.tokens / (devices * rate), passages / self.read_documents)

    def line(self, passages: float, rate: float, devices: int) -> str:
        hours = passages * self.tokens / rate / 3600
        wall = self.encode_seconds(passages, devices, rate) / 3600
        return (
            f"{passages:>8.0e} passages: {passages * DIM * 4 / 2**30:>10,.1f} GiB of vectors, "
            f"{passages * self.shard_bytes / 2**30:>10,.1f} GiB of shards, {hours:>10,.2f} device hours, "
            f"{wall:>8,.2f} h on {devices}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--passages", type=int, default=20_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rate", type=float, default=100_000, help="tokens/s of one stub device")
    options.add_argument("--load", type=int, default=5_000, help="passages that are loaded into the store")
    options.add_argument("--uri", help="default: Milvus Lite in the temporary folder")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="m3index-scale-"))
    corpus, out = folder / "corpus.jsonl", folder / "shards"
    size = write_corpus(corpus, given.passages)

    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=worker, args=(str(corpus), str(out), i, given.workers, given.rate, results))
        for i in range(given.workers)
    ]
    for process in processes:
        process.start()
    done = [results.get() for _ in processes]
    for process in processes:
        process.join()
    wall = max(one["seconds"] for one in done)
    tokens = sum(one["tokens"] for one in done)

    shards = Shards.open([Folder(out)])
    rows = sum(entry.rows for _, entry in shards.parts)
    shard_bytes = sum(entry.size for _, entry in shards.parts) / rows
    started = time.perf_counter()
    again = encode(read([str(corpus)]), Folder(out), StubEncoder(given.rate), ENCODE)
    reading = given.passages / (time.perf_counter() - started)
    assert again.written == 0
    started = time.perf_counter()
    assert len(repeated(shards.parts)) == 0
    looking = given.passages / (time.perf_counter() - started)

    part = folder / "part.jsonl"
    with corpus.open() as source:
        part.write_text("".join(line for _, line in zip(range(given.load), source, strict=False)))
    small = Folder(folder / "part")
    encode(read([str(part)]), small, StubEncoder(1e9), ENCODE)
    store = open_store(Connection(uri=given.uri or str(folder / "scale.db")))
    started = time.perf_counter()
    loaded = load(store, "m3index_scale", [small], LoadOptions(fresh=True, keep=0))
    loading = loaded.passages / (time.perf_counter() - started)
    store.close()
    assert loaded.count_ok
    assert len(ShardFolder(small).entries) > 0

    model = Model(tokens / rows, shard_bytes, reading, looking, loading)
    predicted = model.encode_seconds(given.passages, given.workers, given.rate)
    expected_bytes = DIM * 4 * DENSE + weights_of(shards) * WEIGHT + size / given.passages * TEXT + OTHER
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, "
          f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"encode, {given.workers} workers at {given.rate:,.0f} tokens/s: model {predicted:.1f} s, "
          f"measured {wall:.1f} s ({wall / predicted:.2f} x); devices busy "
          f"{100 * sum(o['busy'] for o in done) / given.workers / wall:.0f} %")  # fmt: skip
    print(f"shard bytes a passage: model {expected_bytes:,.0f}, measured {shard_bytes:,.0f} "
          f"({shard_bytes / expected_bytes:.2f} x); {model.tokens:.0f} tokens a passage")  # fmt: skip
    print(f"reading and hashing {reading:,.0f} documents/s; repeated ids {looking:,.0f} documents/s; "
          f"load {loading:,.0f} rows/s")  # fmt: skip
    for passages in (1e6, 1e8, 1e10):
        print(model.line(passages, given.rate, given.workers))


if __name__ == "__main__":
    main()
