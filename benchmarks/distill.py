#!/usr/bin/env python3
"""A real student at small scale: all-MiniLM-L6-v2, 6 layers to 3, with a lexical head fitted first.

    python benchmarks/distill.py [--data ../shared/data] [--out DIR] [--threads 1]

The teacher gets a lexical head from BM25-like weights of the corpus (`--heads-only`); then its layers are
distilled with both heads, layer by layer. Training texts come from text_multilingual alone, with words
of the vocabulary in the place of some; whatever is also in SciFact or in the STS sets is left out by hash.
Measured against the teacher: held-out texts, STS-B dev, SciFact.
Needs `m3index[offline,eval]`. Prints each figure beside its bar, and the CPU seconds of each part.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from m3index.corpus.readers import read
from m3index.distill.certificate import read_pairs
from m3index.distill.data import text_digest
from m3index.distill.loop import Step
from m3index.distill.options import DistillOptions
from m3index.distill.run import distill
from m3index.encoder.options import Device
from m3index.types import Document, join_title

PYDOCS = "pydocs.en-es.jsonl.gz"
NEWS_STRETCHES = 12
DOCUMENTATION_STRETCHES = 2
LANGUAGES = ("deu",)
HEAD_TEXTS = 50_000
LAYERS = "0,2,5"
_MARKUP = re.compile(r":[\w:]+:`[~!]?([^`<]*?)(?: *<[^>]*>)?`|``|`_*|\*\*|\|")
_SENTENCE = re.compile(r"(?<=[.!?:;]) +(?=[A-Z])")


def training_texts(data: Path) -> list[str]:
    """English news sentences and half of those of the Python documentation, without its markup, and, since
    queries are short, stretches of 4 to 16 words of all; news sentences in German, which an English
    vocabulary spells in rare pieces. Shuffled."""
    draw = random.Random(0)
    texts = []

    def stretches(sentence: str, count: int) -> Iterator[str]:
        words = sentence.split()
        for _ in range(count):
            n = draw.randint(4, 16)
            if len(words) > n:
                start = draw.randrange(len(words) - n)
                yield " ".join(words[start : start + n])

    with gzip.open(data / "ntrex/eng.txt.gz", "rt", encoding="utf-8") as lines:
        for sentence in filter(None, map(str.strip, lines)):
            texts += [sentence, *stretches(sentence, NEWS_STRETCHES)]
    with gzip.open(data / PYDOCS, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = _MARKUP.sub(lambda found: found[1] or "", json.loads(line)["en"]).strip()
            for sentence in _SENTENCE.split(text):
                if len(sentence) > 20:
                    if draw.random() < 0.5:
                        texts.append(sentence)
                    texts += stretches(sentence, DOCUMENTATION_STRETCHES)
    for language in LANGUAGES:
        with gzip.open(data / f"ntrex/{language}.txt.gz", "rt", encoding="utf-8") as lines:
            texts += filter(None, map(str.strip, lines))
    draw.shuffle(texts)
    return texts


def evaluation_digests(data: Path) -> set[int]:
    """Of every text of SciFact and of the STS sets."""
    digests = set()
    for item in read([str(data / "scifact/corpus.jsonl.gz"), str(data / "scifact/queries.jsonl")]):
        if isinstance(item, Document):
            digests |= {text_digest(item.text), text_digest(join_title(item.title, item.text))}
    for path in sorted((data / "sts").glob("*.tsv")):
        digests |= {text_digest(text) for pair in read_pairs(path) for text in (pair.first, pair.second)}
    return digests


def corpus_lines(data: Path) -> list[str]:
    excluded = evaluation_digests(data)
    texts = (t for t in training_texts(data / "text_multilingual") if text_digest(t) not in excluded)
    return [json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)]


def bars(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(figure, measured, at least)."""
    pairs, dense, hybrid = found["pairs"], found["retrieval"]["dense"], found["retrieval"]["hybrid"]
    return [
        ("mean cosine, held-out texts", found["agreement"]["student"]["mean_cosine"], 0.90),
        ("STS-B dev: Spearman with the teacher", pairs["student"]["spearman"], 0.95),
        ("STS-B dev: Spearman with people, student - teacher",
         pairs["student"]["gold_spearman"] - pairs["teacher"]["gold_spearman"], -0.015),
        ("SciFact nDCG@10, dense, student / teacher",
         dense["student"]["ndcg_10"] / dense["teacher"]["ndcg_10"], 0.95),
        ("SciFact nDCG@10, hybrid, student / teacher",
         hybrid["student"]["ndcg_10"] / hybrid["teacher"]["ndcg_10"], 0.97),
        ("texts/s, student / teacher", found["speed"]["ratio"], 1.9),
    ]  # fmt: skip


STEPS: list[float] = []
"""CPU seconds of the process after each step of the last training."""


def progress(step: Step) -> None:
    if step["step"] == 1:
        STEPS.clear()
    STEPS.append(time.process_time())
    if step["step"] % 50 == 0:
        terms = "  ".join(
            f"{k} {step[k]:.4f}" for k in ("loss", "cosine", "lexical", "hidden", "layers") if k in step
        )
        print(f"  step {step['step']:.0f}/{step['total_steps']:.0f}  {terms}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path(os.environ.get("M3INDEX_DATA", Path(__file__).parents[2] / "shared/data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, help="keep the student here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1_425_000, help="to train on")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--replace-words", type=float, default=0.75)
    parser.add_argument("--plain-share", type=float, default=0.45)
    parser.add_argument("--long-share", type=float, default=0.1)
    parser.add_argument("--layers", type=float, default=10.0, help="weight of the inner layers' cosines")
    parser.add_argument("--hidden", type=float, default=10.0, help="weight of the hidden states' cosines")
    parser.add_argument("--similarity", type=float, default=10.0)
    parser.add_argument("--lexical", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the order of the texts")
    parser.add_argument("--quick", action="store_true", help="without SciFact")
    parser.add_argument("--teacher", help="a teacher with its lexical head, fitted before")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        lines = corpus_lines(args.data)
        print(f"{len(lines):,} texts")
        for name, count in (("head", HEAD_TEXTS), ("student", None)):
            (work / f"{name}.jsonl").write_text("".join(lines[:count]), "utf-8")
        data: dict[str, Any] = {
            "tokens": 256,
            "long_share": args.long_share,
            "held_out": 0.01,
            "replace_words": args.replace_words,
            "plain_share": args.plain_share,
        }
        cpu = Device(device="cpu")
        teacher, seconds = args.teacher or str(work / "teacher"), {}
        if args.teacher is None:
            began = time.process_time()
            distill(
                DistillOptions(
                    out=str(work / "teacher"), student="offline-en", heads_only=True,
                    corpus=[str(work / "head.jsonl")],
                    steps=40, learning_rate=1e-3, batch_tokens=4096, **data,
                ),
                cpu, on_step=progress,
            )  # fmt: skip
            seconds["lexical head"] = time.process_time() - began
        began = time.process_time()
        done = distill(
            DistillOptions(
                out=str(work / "student"), teacher=teacher, layers=LAYERS,
                corpus=[str(work / "student.jsonl")],
                w_similarity=args.similarity, w_lexical=args.lexical, w_colbert=0.0,
                w_hidden=args.hidden, w_layers=args.layers,
                steps=args.tokens // args.batch_tokens, learning_rate=args.rate,
                batch_tokens=args.batch_tokens, optimizer=args.optimizer, seed=args.seed,
                eval_pairs=str(args.data / "sts/stsb-en-dev.tsv"),
                eval_retrieval=None if args.quick else str(args.data / "scifact"), **data,
            ),
            cpu, on_step=progress,
        )  # fmt: skip
        seconds["student"] = time.process_time() - began
        seconds["of it training"] = (STEPS[-1] - STEPS[0]) * len(STEPS) / (len(STEPS) - 1)
        found = done.certificate
        assert found is not None
        print((done.out / "README.md").read_text("utf-8"))
        if args.out:
            shutil.copytree(done.out, args.out)
            if args.teacher is None:
                shutil.copytree(teacher, args.out.with_name(args.out.name + "-teacher"))
    print({part: round(value) for part, value in seconds.items()}, f"CPU seconds, {args.threads} thread(s)")
    if args.quick:
        return 0
    missed = 0
    for name, value, least in bars(found):
        missed += value < least
        print(f"{'ok  ' if value >= least else 'MISS'} {name}: {value:.4f} (at least {least})")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
