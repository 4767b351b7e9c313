#!/usr/bin/env python3
"""The cost of a run in which nothing has changed: documents/s, what they are spent on, memory.

    python benchmarks/sync.py [--sizes 10000 100000] [--uri DIR | http://...] [--words 120] [--dim 64]
    python benchmarks/sync.py --metadata [--sizes 10000] [--uri http://... --server-pid PID] [--dim 1024]

A made-up corpus is ingested once with an encoder that costs nothing, then synced again, each in a process
of its own: the figures are of a second run with `--thorough`, which compares every document. same files: a
run that finds the files as they were. reading: the corpus alone; hashing: the doc hashes alone;
asking: the store's strong reads of ordinals 0; listing: the scan for what has left; counting: the counts
before and after. Reading and asking run in a thread of their own.

--metadata: a run in which the metadata of every document has changed, and nothing else: CPU seconds (user and
system) of the process and of the server, and the seconds of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from m3index.corpus.cut import CutsHere
from m3index.corpus.hash import doc_hash
from m3index.corpus.readers import read
from m3index.corpus.windows import PassageSize, Tokens
from m3index.encoder.base import CallByCall
from m3index.index.options import SyncOptions
from m3index.index.seen import SeenKeys
from m3index.index.sync import sync
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Document, EncodedBatch, EncoderInfo, IntArray, document_key


class CostlessTokenizer(CutsHere):
    """One token for each ten characters."""

    limit, reserve = 512, 2

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._tokens(len(text)) for text in texts]

    def _tokens(self, characters: int) -> Tokens:
        starts = np.arange(0, characters, 10, dtype=np.int32)
        offsets = np.stack([starts, np.minimum(starts + 10, characters)], axis=1)
        ends = np.zeros((1, 2), np.int32)
        return Tokens(np.ones(len(starts) + 2, np.int32), np.concatenate([ends, offsets, ends]))


class CostlessEncoder(CallByCall):
    """Every passage gets the same vector."""

    tokenizer = CostlessTokenizer()

    def __init__(self, dim: int) -> None:
        self.info = EncoderInfo(
            name="costless", dim=dim, limit=512, window_reserve=2, lexical=False, multi_vector=False,
            space_id="costless", encoder_id="costless",
        )  # fmt: skip

    def prepare(self) -> None: ...

    def encode_ids(self, ids: Sequence[IntArray], **_: bool) -> EncodedBatch:
        dense = np.full((len(ids), self.info.dim), self.info.dim**-0.5, np.float32)
        return EncodedBatch(dense, None, np.array([len(i) for i in ids], np.int32))

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        raise NotImplementedError

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        raise NotImplementedError

    def close(self) -> None: ...


class Timed:
    """A store that keeps account of the time in its reads."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asking = self.listing = self.counting = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._store.get(*args)
        finally:
            self.asking += time.perf_counter() - started

    def count(self, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._store.count(*args)
        finally:
            self.counting += time.perf_counter() - started

    def scan(self, *args: Any) -> Iterator[Any]:
        rows = iter(self._store.scan(*args))
        while True:
            started = time.perf_counter()
            row = next(rows, None)
            self.listing += time.perf_counter() - started
            if row is None:
                return
            yield row


def write_corpus(path: Path, size: int, words: int, night: int = 0) -> None:
    random = np.random.default_rng(size)
    vocabulary = [f"word{i}" for i in range(5_000)]
    with path.open("w", encoding="utf-8") as file:
        for i in range(size):
            text = " ".join(vocabulary[j] for j in random.integers(0, len(vocabulary), words))
            file.write(json.dumps({"id": f"document-{i}", "text": text, "n": i + night}) + "\n")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_seconds_of(pid: int | None) -> float:
    """Those of another process; 0 if there is none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_run(uri: str, corpus: Path, dim: int, *, thorough: bool) -> dict[str, float]:
    store = Timed(open_store(Connection(uri=uri)))
    options = SyncOptions(sparse="none", thorough=thorough)
    before = cpu_seconds()
    summary = sync(store, CostlessEncoder(dim), "bench", read([corpus]), options)
    cpu = cpu_seconds() - before
    store.close()
    assert summary.exit == 0, summary
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "documents": summary.scanned,
        "added": summary.added,
        "unchanged": summary.unchanged,
        "metadata_only": summary.metadata_only,
        "cpu": cpu,
        "seconds": summary.seconds,
        "asking": store.asking,
        "listing": store.listing,
        "counting": store.counting,
        "peak_mb": peak,
    }


def alone(corpus: Path) -> dict[str, float]:
    """Reading and hashing by themselves, and the bytes of the seen-set."""
    started = time.perf_counter()
    documents = [item for item in read([corpus]) if isinstance(item, Document)]
    reading = time.perf_counter() - started
    size = PassageSize(512, 64, "structure")
    started = time.perf_counter()
    for document in documents:
        doc_hash(document, size)
    hashing = time.perf_counter() - started
    seen = SeenKeys()
    for document in documents:
        seen.add(bytes.fromhex(document_key("default", document.doc_id)))
    return {"reading": reading, "hashing": hashing, "seen_bytes": seen.nbytes / len(documents)}


def in_a_process(task: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--task", task, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def changed_metadata(size: int, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, dim = Path(folder) / "corpus.jsonl", str(options.dim)
        write_corpus(corpus, size, options.words)
        uri = options.uri or str(Path(folder) / "bench.db")
        in_a_process("run", uri, str(corpus), dim)
        write_corpus(corpus, size, options.words, night=1)
        before = cpu_seconds_of(options.server_pid)
        again = in_a_process("run", uri, str(corpus), dim)
        server = cpu_seconds_of(options.server_pid) - before
        assert again["metadata_only"] == size, again
        print(
            f"{size:9,}  {options.dim:10,}  {again['cpu']:11.1f}  {server:13.1f}  "
            f"{again['seconds']:7.1f}  {again['peak_mb']:7.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--uri", help="a server; without it, Milvus Lite in a temporary folder")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--metadata", action="store_true", help="the metadata of all documents has changed")
    parser.add_argument("--server-pid", type=int, help="the process of the server, to count its CPU seconds")
    parser.add_argument("--task", choices=["thorough", "run", "alone"], help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task in ("run", "thorough"):
        uri, path, dim = options.arguments
        print(json.dumps(one_run(uri, Path(path), int(dim), thorough=options.task == "thorough")))
        return
    if options.task == "alone":
        print(json.dumps(alone(Path(options.arguments[0]))))
        return
    if options.metadata:
        print("documents  dimensions  CPU seconds  of the server  seconds  peak MB")
        for size in options.sizes:
            changed_metadata(size, options)
        return
    columns = "reading  hashing  asking  listing  counting  peak MB  seen B/doc"
    print(f"documents  first run  no change  documents/s  same files  {columns}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.jsonl"
            write_corpus(corpus, size, options.words)
            uri = options.uri or str(Path(folder) / "bench.db")
            arguments = (uri, str(corpus), str(options.dim))
            first = in_a_process("run", *arguments)
            again = in_a_process("thorough", *arguments)
            same = in_a_process("run", *arguments)
            assert again["unchanged"] == size, again
            parts = in_a_process("alone", str(corpus))
            seconds = again["seconds"]
            shares = [
                parts["reading"],
                parts["hashing"],
                again["asking"],
                again["listing"],
                again["counting"],
            ]
            print(
                f"{size:9,}  {first['seconds']:7.1f} s  {seconds:7.1f} s  {size / seconds:11,.0f}  "
                f"{same['seconds']:8.2f} s  "
                + "  ".join(f"{share / seconds:6.0%}" for share in shares)
                + f"  {again['peak_mb']:7.0f}  {parts['seen_bytes']:10.1f}"
            )


if __name__ == "__main__":
    main()
