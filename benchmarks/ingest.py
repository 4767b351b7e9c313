#!/usr/bin/env python3
"""What an ingest costs over encoding the same texts alone.

    python benchmarks/ingest.py [--shape teacher] [--texts 48] [--rounds 3] [--uri http://127.0.0.1:PORT]

A random model of the real shape, with both heads, in one process, in turn: the encoder alone over the
passages, and the whole ingest (reading, cutting, hashing, encoding, writing) into the in-memory store and,
with --uri, into a server, which works in a process of its own (`milvus-lite server --data-dir DIR --port
PORT`). In CPU seconds of this process, which a busy machine does not disturb, and in seconds of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import encode  # noqa: E402
import torch  # noqa: E402

from m3index.corpus.readers import read  # noqa: E402
from m3index.encoder.load import load  # noqa: E402
from m3index.encoder.options import Model  # noqa: E402
from m3index.index.options import IngestOptions  # noqa: E402
from m3index.service import IndexService  # noqa: E402
from m3index.store.options import Connection  # noqa: E402
from m3index.types import Document  # noqa: E402

torch.set_num_threads(1)


def write_corpus(path: Path, texts: int) -> None:
    lengths = encode.text_lengths("lognormal", texts)
    rows = (json.dumps({"id": f"d{i}", "text": encode.text_of(n, i)}) + "\n" for i, n in enumerate(lengths))
    path.write_text("".join(rows), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=encode.LAYERS, default="teacher")
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uri", help="a server")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, args.texts)
        model = encode.random_model(Path(folder) / "model", encode.LAYERS[args.shape])
        encoder = load(str(model), device="cpu")
        texts = [item.text for item in read([str(corpus)]) if isinstance(item, Document)]
        rows = encoder.tokenizer.document_ids(texts)

        def alone() -> None:
            encoder.encode_ids(rows, lexical=True)

        def into(uri: str) -> Callable[[], None]:
            def ingest() -> None:
                name = f"bench{time.monotonic_ns()}"
                index = IndexService.open(Connection(collection=name, uri=uri), Model(encoder=encoder))
                summary = index.update(corpus, IngestOptions())
                assert summary.added == args.texts, summary
                index.store.close()

            return ingest

        ways = {"encoding alone": alone, "ingest, in-memory store": into("memory:")}
        if args.uri:
            ways["ingest, server"] = into(args.uri)
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        wall: dict[str, list[float]] = {name: [] for name in ways}
        encoder.encode_ids(rows[:2], lexical=True)
        for _ in range(args.rounds):
            for name, way in ways.items():
                began, clock = time.process_time(), time.perf_counter()
                way()
                cpu[name].append(time.process_time() - began)
                wall[name].append(time.perf_counter() - clock)
        print(
            f"{args.shape}, {len(rows)} texts, {sum(map(len, rows))} tokens, medians of {args.rounds} rounds"
        )
        base = [statistics.median(seconds["encoding alone"]) for seconds in (cpu, wall)]
        for name in ways:
            a, b = statistics.median(cpu[name]), statistics.median(wall[name])
            print(
                f"{name:26} CPU {a:7.2f} s, ratio {a / base[0]:5.3f}   "
                f"clock {b:7.2f} s, ratio {b / base[1]:5.3f}"
            )


if __name__ == "__main__":
    main()
