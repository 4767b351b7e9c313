#!/usr/bin/env python3
"""Real students at small scale, with both heads, and a certificate beside its bars.

    python benchmarks/distill.py [--plan multilingual] [--data ../shared/data] [--out DIR] [--threads 1]

--plan multilingual: `offline` (multilingual-e5-small), 12 layers to 4; trained on text_multilingual in 51
languages. Measured on STS in 8 languages, XQuAD in 12 languages and all of them mixed, and SciFact.
--plan english: `offline-en` (all-MiniLM-L6-v2), 6 layers to 3; trained on the English and German of
text_multilingual. Measured on STS-B dev and SciFact.

The teacher gets a lexical head from BM25-like weights of the corpus (`--heads-only`); then its layers are
distilled with both heads, layer by layer. Whatever is also in the test collections or in the STS sets is left
out by hash. Needs `m3index[offline,eval]`. Prints the certificate, the bars and the CPU seconds of each part.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from m3index.corpus.readers import read
from m3index.distill.certificate import read_pairs
from m3index.distill.data import text_digest
from m3index.distill.loop import Step
from m3index.distill.options import RECIPES, DistillOptions, Loss
from m3index.distill.run import distill
from m3index.encoder.options import Device
from m3index.options import options_of
from m3index.types import Document, join_title

Text: TypeAlias = tuple[str, str]
"""Language, text."""

Bar: TypeAlias = tuple[str, float, float]
"""Figure, measured, at least."""

XQUAD = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
STS = ("stsb-en", "stsb-de", "stsb-es", "stsb-fr", "stsb-ru", "stsb-zh", "stsb-ja", "korsts")
WITHOUT_SPACES = {"tha": 3, "zho-CN": 2, "zho-TW": 2, "jpn": 2, "zh": 2, "ja": 2}
"""Language -> characters that stand for a word, in scripts without spaces."""

_MARKUP = re.compile(r":[\w:]+:`[~!]?([^`<]*?)(?: *<[^>]*>)?`|``|`_*|\*\*|\|")
_SENTENCE = re.compile(r"(?<=[.!?:;]) +(?=[A-ZÀ-Þ])|(?<=[。！？])")


def news(data: Path, language: str) -> Iterator[str]:
    with gzip.open(data / f"ntrex/{language}.txt.gz", "rt", encoding="utf-8") as lines:
        yield from filter(None, map(str.strip, lines))


def documentation(data: Path, other: str, *languages: str) -> Iterator[Text]:
    """Paragraphs of the Python documentation in English and another language, without their markup."""
    with gzip.open(data / f"pydocs.en-{other}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for language in languages:
                yield language, _MARKUP.sub(lambda found: found[1] or "", row[language]).strip()


def stretches(
    draw: random.Random, sentence: str, count: int, language: str, words: tuple[int, int]
) -> Iterator[str]:
    """Parts of a sentence, since queries are short. words: the least and the greatest number."""
    size = WITHOUT_SPACES.get(language)
    units = [sentence[i : i + size] for i in range(0, len(sentence), size)] if size else sentence.split()
    for _ in range(count):
        n = draw.randint(*words)
        if len(units) > n:
            start = draw.randrange(len(units) - n)
            yield ("" if size else " ").join(units[start : start + n])


def english_texts(data: Path) -> list[Text]:
    """English news sentences and half of those of the Python documentation, and stretches of 4 to 16 words of
    all; news sentences in German, which an English vocabulary spells in rare pieces. Shuffled."""
    draw = random.Random(0)
    texts: list[Text] = []
    for sentence in news(data, "eng"):
        texts += [("eng", part) for part in (sentence, *stretches(draw, sentence, 12, "eng", (4, 16)))]
    for language, text in documentation(data, "es", "en"):
        for sentence in _SENTENCE.split(text):
            if len(sentence) > 20:
                if draw.random() < 0.5:
                    texts.append((language, sentence))
                texts += [(language, part) for part in stretches(draw, sentence, 2, language, (4, 16))]
    texts += [("deu", sentence) for sentence in news(data, "deu")]
    draw.shuffle(texts)
    return texts


NEWS = {
    *("arb", "deu", "ell", "eng", "fra", "hin", "jpn", "kor"),
    *("ron", "rus", "spa", "tha", "tur", "vie", "zho-CN", "zho-TW"),
}
NEWS_STRETCHES = 2
OTHER_NEWS = 0.25
PARAGRAPHS = 4_000


def multilingual_texts(data: Path) -> list[Text]:
    """News sentences in 16 languages with two stretches of 3 to 14 words of each, a quarter of those in 35
    further languages, and half of the sentences of 4,000 paragraphs of each translation of the Python
    documentation and of 1,200 of the original. Shuffled."""
    draw = random.Random(0)
    texts: list[Text] = []
    for path in sorted((data / "ntrex").glob("*.txt.gz")):
        language = path.name.removesuffix(".txt.gz")
        for sentence in news(data, language):
            if language in NEWS:
                parts = stretches(draw, sentence, NEWS_STRETCHES, language, (3, 14))
                texts += [(language, part) for part in (sentence, *parts)]
            elif draw.random() < OTHER_NEWS:
                texts.append((language, sentence))
    for translation in ("es", "fr", "ja", "ko", "zh"):
        both = documentation(data, translation, translation, "en")
        paragraphs = list(zip(both, both, strict=True))
        draw.shuffle(paragraphs)
        for translated, original in paragraphs[:PARAGRAPHS]:
            for language, text in (translated, *([original] if draw.random() < 0.3 else [])):
                texts += [
                    (language, sentence)
                    for sentence in _SENTENCE.split(text)
                    if len(sentence) > 10 and draw.random() < 0.5
                ]
    draw.shuffle(texts)
    return texts


@dataclass(frozen=True)
class Plan:
    """tokens: to train on. head, settings: options of `distill` for the lexical head and the student."""

    teacher: str
    layers: str
    texts: Callable[[Path], list[Text]]
    head: Mapping[str, Any]
    head_texts: int
    tokens: int
    settings: Mapping[str, Any]
    pairs: Sequence[str]
    collections: Sequence[str]
    bars: Callable[[Mapping[str, Any]], list[Bar]]


def spearman(pairs: Mapping[str, Any]) -> float:
    return float(pairs["student"]["spearman"])


def share(collection: Mapping[str, Any], mode: str) -> float:
    """The student's nDCG@10 as a share of the teacher's."""
    return float(collection[mode]["student"]["ndcg_10"] / collection[mode]["teacher"]["ndcg_10"])


def english_bars(found: Mapping[str, Any]) -> list[Bar]:
    (pairs,), (scifact,) = found["pairs"], found["retrieval"]
    return [
        ("mean cosine, held-out texts", found["agreement"]["student"]["mean_cosine"], 0.90),
        ("STS-B dev: Spearman with the teacher", spearman(pairs), 0.95),
        ("STS-B dev: Spearman with people, student - teacher",
         pairs["student"]["gold_spearman"] - pairs["teacher"]["gold_spearman"], -0.015),
        ("SciFact nDCG@10, dense, student / teacher", share(scifact, "dense"), 0.95),
        ("SciFact nDCG@10, hybrid, student / teacher", share(scifact, "hybrid"), 0.97),
        ("texts/s, student / teacher", found["speed"]["ratio"], 1.9),
    ]  # fmt: skip


def multilingual_bars(found: Mapping[str, Any]) -> list[Bar]:
    agreement = [spearman(pairs) for pairs in found["pairs"]]
    xquad = [c for c in found["retrieval"] if c["collection"].split("/")[-1] in XQUAD]
    mode = "hybrid" if "student" in xquad[0].get("hybrid", ()) else "dense"
    shares = [share(collection, mode) for collection in xquad]
    return [
        ("STS: Spearman with the teacher, mean of languages", fmean(agreement), 0.95),
        ("STS: Spearman with the teacher, worst language", min(agreement), 0.93),
        (f"XQuAD nDCG@10, {mode}, student / teacher, mean of languages", fmean(shares), 0.97),
        (f"XQuAD nDCG@10, {mode}, student / teacher, worst language", min(shares), 0.95),
        ("texts/s, student / teacher", found["speed"]["ratio"], 2.5),
    ]


PLANS = {
    "english": Plan(
        teacher="offline-en", layers="0,2,5", texts=english_texts,
        head_texts=50_000, head={"steps": 40, "learning_rate": 1e-3, "batch_tokens": 4096},
        tokens=1_425_000,
        settings={
            "w_similarity": 10.0, "w_lexical": 1.0, "w_hidden": 10.0, "w_layers": 10.0, "optimizer": "muon",
            "learning_rate": 1.5e-3, "batch_tokens": 2048, "replace_words": 0.75, "plain_share": 0.45,
        },
        pairs=["sts/stsb-en-dev.tsv"], collections=["scifact"], bars=english_bars,
    ),
    "multilingual": Plan(
        teacher="offline", layers="0,2,5,11", texts=multilingual_texts,
        head_texts=100_000, head={"steps": 60, "learning_rate": 1e-3, "batch_tokens": 4096},
        tokens=2_000_000,
        settings={
            "standardise": True, "w_cosine": 2.0, "w_similarity": 100.0, "w_lexical": 0.2, "w_hidden": 1.0,
            "w_layers": 1.0, "w_colbert": 0.5, "optimizer": "muon", "learning_rate": 3e-3,
            "batch_tokens": 2048, "replace_words": 0.5, "plain_share": 0.5,
        },
        pairs=[f"sts/{name}-dev.tsv" for name in STS],
        collections=[*(f"xquad/{language}" for language in XQUAD), "xquad/mixed", "scifact"],
        bars=multilingual_bars,
    ),
}  # fmt: skip


def evaluation_digests(data: Path, collections: Sequence[str]) -> set[int]:
    """Of every text of the test collections and of the STS sets, train parts too."""
    digests = set()
    for name in collections:
        corpora = [str(path) for path in (data / name).glob("corpus.jsonl*")]
        for item in read([*corpora, str(data / name / "queries.jsonl")]):
            if isinstance(item, Document):
                digests |= {text_digest(item.text), text_digest(join_title(item.title, "", item.text))}
    for path in sorted((data / "sts").glob("*.tsv")):
        digests |= {text_digest(text) for pair in read_pairs(path) for text in (pair.first, pair.second)}
    return digests


STEPS: list[float] = []
"""CPU seconds of the process after each step of the last training."""


def progress(step: Step) -> None:
    if step["step"] == 1:
        STEPS.clear()
    STEPS.append(time.process_time())
    if step["step"] % 50 == 0:
        names = ("loss", "cosine", "mse", "similarity", "lexical", "hidden", "layers")
        terms = "  ".join(f"{k} {step[k]:.4f}" for k in names if k in step)
        print(f"  step {step['step']:.0f}/{step['total_steps']:.0f}  {terms}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path(os.environ.get("M3INDEX_DATA", Path(__file__).parents[2] / "shared/data"))
    parser.add_argument("--plan", choices=sorted(PLANS), default="multilingual")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, help="keep the student here, and the teacher beside it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", help="of the teacher, instead of the plan's")
    parser.add_argument("--tokens", type=int, help="to train on, instead of the plan's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option of distill"
    )
    parser.add_argument(
        "--recipe",
        choices=sorted(RECIPES),
        help="its losses and heads instead of the plan's",
    )
    parser.add_argument(
        "--collections", metavar="LIST", help="collections separated by commas, instead of the plan's"
    )
    parser.add_argument("--quick", action="store_true", help="without the test collections")
    parser.add_argument("--teacher", help="a teacher with its lexical head, fitted before")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = PLANS[args.plan]
    settings = dict(plan.settings)
    if args.recipe:
        losses = {option.name for option in options_of(Loss)}
        settings = {n: v for n, v in settings.items() if n not in losses} | {"recipe": args.recipe}
    collections = plan.collections if args.collections is None else args.collections.split(",")
    for setting in args.set:
        name, _, value = setting.partition("=")
        settings[name] = json.loads(value) if value[:1] in "-0123456789.tfn[" else value
    tokens = args.tokens or plan.tokens
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        excluded = evaluation_digests(args.data, plan.collections)
        texts = [t for t in plan.texts(args.data / "text_multilingual") if text_digest(t[1]) not in excluded]
        lines = [
            json.dumps({"id": str(i), "text": text, "lang": lang}) + "\n"
            for i, (lang, text) in enumerate(texts)
        ]
        print(f"{len(lines):,} texts")
        for name, count in (("head", plan.head_texts), ("student", None)):
            (work / f"{name}.jsonl").write_text("".join(lines[:count]), "utf-8")
        data: dict[str, Any] = {"tokens": 256, "long_share": 0.1, "held_out": 0.01}
        cpu = Device(device="cpu")
        teacher, seconds = args.teacher or str(work / "teacher"), {}
        if args.teacher is None:
            began = time.process_time()
            distill(
                DistillOptions(
                    out=teacher, student=plan.teacher, heads_only=True, corpus=[str(work / "head.jsonl")],
                    **plan.head, **data,
                ),
                cpu, on_step=progress,
            )  # fmt: skip
            seconds["lexical head"] = time.process_time() - began
        began = time.process_time()
        done = distill(
            DistillOptions(
                out=str(work / "student"), teacher=teacher, layers=args.layers or plan.layers,
                corpus=[str(work / "student.jsonl")], steps=tokens // settings["batch_tokens"],
                eval_pairs=[str(args.data / name) for name in plan.pairs],
                eval_retrieval=[] if args.quick else [str(args.data / name) for name in collections],
                **data, **settings,
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
    for name, value, least in plan.bars(found):
        missed += value < least
        print(f"{'ok  ' if value >= least else 'MISS'} {name}: {value:.4f} (at least {least})")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
