#!/usr/bin/env python3
"""What the host does for each token beside a fast GPU, with the GPU replaced by a stub that only takes time.

    python benchmarks/host.py                     encode to shards, ingest into a stub store
    python benchmarks/host.py --profile encode    where the main process spends it

The stub answers at the rate of a student and of a teacher on an H100, as the device of a real engine: packs
are planned, built and kept in flight, and outputs are checked, sorted and taken apart as they are with CUDA.
Documents are read from JSON Lines, hashed, cut with the real tokenizer of the offline model (XLM-R) into
passages of about `--tokens` tokens, with dense and lexical vectors of BGE-M3's width. The figures are CPU
nanoseconds of the main process for each token (user and system, all of its threads; not its workers), which a
busy machine does not disturb, and the share of the stub's rate that was reached, which it does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import models  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from m3index.corpus.readers import read  # noqa: E402
from m3index.corpus.windows import PassageSettings  # noqa: E402
from m3index.encoder import packing  # noqa: E402
from m3index.encoder.base import Wanted  # noqa: E402
from m3index.encoder.engine import Engine, Job, Lane, _Flight  # noqa: E402
from m3index.encoder.load import load  # noqa: E402
from m3index.encoder.model import ModelEncoder  # noqa: E402
from m3index.encoder.source import locate  # noqa: E402
from m3index.files import Folder  # noqa: E402
from m3index.index.options import IngestOptions  # noqa: E402
from m3index.index.sync import sync  # noqa: E402
from m3index.scale.encode import encode  # noqa: E402
from m3index.scale.options import EncodeOptions  # noqa: E402
from m3index.store.memory import MemoryStore  # noqa: E402
from m3index.types import Row  # noqa: E402

RATES = {"student": 2_000_000, "teacher": 700_000}
WIDTH, BUDGET = 1024, 65_536
WORDS = [word for line in models.LINES[:10] for word in line.split()]


class StubEngine(Engine):
    """An engine whose device takes the time of so many tokens and answers with numbers made before."""

    def __init__(self, rate: float, silent: np.ndarray) -> None:
        self.rate, self._silent, self._padding = rate, silent, 1
        self.precision, self.budget, self.wave_tokens = "fp16", BUDGET, 4 * BUDGET
        dice = torch.Generator().manual_seed(0)
        self._dense = torch.nn.functional.normalize(torch.randn(BUDGET // 8, WIDTH, generator=dice), dim=-1)
        self._weights = torch.rand(2 * BUDGET, generator=dice)
        self._free = 0.0

    def lane(self, wanted: Wanted) -> Lane:
        return Lane(self, wanted, 2)

    def _forward(self, job: Job, wanted: Wanted, precision: Any) -> _Flight:
        pack = packing.pack(job.rows, self._padding)
        outputs = {"dense": self._dense[: len(pack)]}
        if wanted.lexical:
            outputs["lexical"] = self._weights[: len(pack.ids)]
        done = self._free = max(time.monotonic(), self._free) + len(pack.ids) / self.rate
        return _Flight(job, pack, precision, outputs, lambda: time.sleep(max(0.0, done - time.monotonic())))


class StubStore(MemoryStore):
    """Takes rows and keeps only their number."""

    written = 0

    def upsert(self, name: str, rows: Sequence[Row]) -> None:  # noqa: ARG002
        self.written += len(rows)

    def get(self, *_: Any) -> dict[str, Mapping[str, Any]]:
        return {}

    def count(self, *_: Any) -> int:
        return self.written


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.directory or Path(temporary)
        model, corpus = folder / "model", folder / f"corpus-{args.passages}-{args.tokens}.jsonl"
        if not corpus.exists():
            write_model(model)
            write_corpus(corpus, model, args.passages, args.tokens)
        print(f"{args.passages} documents of one passage, {args.tokens} tokens each; {platform.machine()}, "
              f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")  # fmt: skip
        warm_up(args, model, corpus, folder)
        if args.profile:
            profiled(args, model, corpus)
            return
        print(f"{'command':8} {'device':8} {'workers':>7} {'ns a token':>11} {'of its rate':>12}  rounds")
        for device in args.devices:
            for workers in args.workers:
                for command in args.commands:
                    figures = [run(command, model, corpus, folder, RATES[device], workers)
                               for _ in range(args.rounds)]  # fmt: skip
                    ns = statistics.median(f["ns"] for f in figures)
                    share = statistics.median(f["share"] for f in figures)
                    rounds = " ".join(f"{f['ns']:.0f}" for f in figures)
                    print(
                        f"{command:8} {device:8} {workers:7} {ns:11.0f} {share:12.0%}  {rounds}", flush=True
                    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--passages", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--devices", choices=RATES, nargs="+", default=list(RATES))
    parser.add_argument("--commands", choices=("encode", "ingest"), nargs="+", default=["encode", "ingest"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--directory", type=Path, help="keep the model and the corpus here and use them again"
    )
    parser.add_argument("--profile", choices=("encode", "ingest"))
    return parser.parse_args()


def write_model(folder: Path) -> None:
    """A directory with heads of BGE-M3's width and a real tokenizer. Its other weights are never used."""
    models.write_m3(folder, limit=8192, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=16,
                    intermediate_size=64)  # fmt: skip
    real = locate("offline").directory
    (folder / "tokenizer.json").write_bytes((real / "tokenizer.json").read_bytes())


def write_corpus(path: Path, model: Path, passages: int, tokens: int) -> None:
    """Documents of words in ten languages, with a title and metadata, each just within a passage."""
    tokenizer = load(str(model), device="cpu").tokenizer
    dice = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(passages):
            title = " ".join(dice.choice(WORDS, 4))
            text = " ".join(dice.choice(WORDS, tokens))
            room = tokens - len(tokenizer.document_ids([title + "\n"])[0])
            offsets = tokenizer.documents([text])[0].offsets
            row = {"id": f"d{number}", "title": title, "text": text[: int(offsets[room, 1])].strip(),
                   "metadata": {"lang": "xx", "year": 1990 + number % 30}}  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def encoder_of(model: Path, rate: float, workers: int) -> ModelEncoder:
    encoder = load(str(model), device="cpu", workers=workers)
    encoder._engines = [StubEngine(rate, encoder.tokenizer.silent_ids)]  # type: ignore[list-item]
    encoder._layout.config.pop("vocab_size")  # type: ignore[attr-defined]  # the stub knows every word
    gc.freeze()  # as a command does once its model is loaded
    size = PassageSettings(512, 64).resolve(encoder.tokenizer)
    for _ in encoder.tokenizer.cuts([(None, [("", "warm up", "")])] * (2 * workers + 1), size):
        pass
    return encoder


ENCODE = EncodeOptions(passage_tokens=512, overlap=64)
INGEST = IngestOptions(passage_tokens=512, overlap=64)


def work(command: str, encoder: ModelEncoder, corpus: Path, out: Path) -> int:
    """Runs the command; returns the number of its tokens."""
    documents = read([str(corpus)])
    documents.apart = lambda: encoder.workers > 0
    if command == "encode":
        return encode(documents, Folder(out), encoder, ENCODE).tokens
    return sync(StubStore(), encoder, "docs", documents, INGEST).tokens


def run(command: str, model: Path, corpus: Path, folder: Path, rate: float, workers: int) -> dict[str, float]:
    encoder = encoder_of(model, rate, workers)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            cpu, wall = time.process_time(), time.perf_counter()
            tokens = work(command, encoder, corpus, Path(out))
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        encoder.close()
    return {"ns": 1e9 * cpu / tokens, "share": tokens / wall / rate}


def warm_up(args: argparse.Namespace, model: Path, corpus: Path, folder: Path) -> None:
    """Imports what the commands import, so that it is not counted."""
    few = folder / "few.jsonl"
    few.write_text("".join(corpus.read_text("utf-8").splitlines(keepends=True)[:64]), "utf-8")
    for command in args.commands:
        run(command, model, few, folder, RATES["student"], 0)


def profiled(args: argparse.Namespace, model: Path, corpus: Path) -> None:
    """Prints where all threads of the main process spend their time, each thread by itself."""
    import cProfile
    import pstats

    profiles: list[cProfile.Profile] = []
    run_thread = threading.Thread.run

    def run_profiled(self: threading.Thread) -> None:
        profiles.append(profile := cProfile.Profile(time.thread_time))
        profile.runcall(run_thread, self)

    threading.Thread.run = run_profiled  # type: ignore[method-assign]
    encoder = encoder_of(model, RATES[args.devices[0]], args.workers[-1])
    profiles.append(profile := cProfile.Profile(time.thread_time))
    with tempfile.TemporaryDirectory() as out:
        tokens = profile.runcall(work, args.profile, encoder, corpus, Path(out))
    encoder.close()
    print(f"{tokens} tokens")
    for one in profiles:
        pstats.Stats(one).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
