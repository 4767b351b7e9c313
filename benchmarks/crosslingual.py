#!/usr/bin/env python3
"""Searching in one language what is written in another: nDCG@10 of the dense vectors on XQuAD, for each
language of the questions and each language of the paragraphs.

    python benchmarks/crosslingual.py [--data ../shared/data/xquad] [--encoder offline]

The same 240 paragraphs and 1,190 questions in twelve languages. Of a paragraph counts what fits
into 512 tokens, and the search is exact. Prints the table of docs/results.md: a row for each language of the
questions, a column for each language of the paragraphs.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from m3index.distill.retrieval import MEASURE, encode, legs, read_collection, scored
from m3index.encoder.load import load

TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/xquad"))
    parser.add_argument("--encoder", default="offline")
    options = parser.parse_args()
    encoder = load(options.encoder)
    languages = sorted(path.name for path in options.data.iterdir() if (path / "corpus.jsonl").is_file())
    started = time.process_time()
    collections = {language: read_collection(options.data / language, language) for language in languages}
    encoded = {language: encode(encoder, found, TOKENS) for language, found in collections.items()}
    print("| questions \\ paragraphs | " + " | ".join(languages) + " |")
    print("|---" * (len(languages) + 1) + "|")
    for question in languages:
        row = []
        for paragraph in languages:
            # A paragraph and a question have the same id in every language.
            mixed = replace(collections[paragraph], queries=collections[question].queries)
            found = legs(encoded[question][0], encoded[paragraph][1], mixed, same_tokens=False)
            row.append(scored(found["dense"], mixed).mean(MEASURE))
        print(f"| {question} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
