#!/usr/bin/env python3
"""What a changed document costs: the share of its tokens that is encoded again, and the time of a night.

    python benchmarks/changes.py [--data ../shared/data] [--parts histories,edits,night]
        [--passage-tokens 512] [--overlap 64]

Nothing is encoded: tokens are counted with the tokenizer of `offline`, and the encoder returns a vector at
once. Without kept vectors, the share is 100 %.

histories: each version of rust-lang/book (5) and tldr (4) into the index of the version before. changed: the
documents of both versions whose text differs. least: what no way of cutting could have kept. changed or new:
with the documents that are new, among them those that were renamed.

edits: one edit at a random place of each of 112 chapters of rust-lang/book and of 40 speeches without a
heading, with a fixed seed: a sentence inserted, a paragraph deleted, a paragraph moved, a word changed.

night: rust-lang/book and longdocs (509 documents) on Milvus Lite; in 1 % of the documents a sentence is
inserted. CPU seconds of the sync, of which the encoder takes none, and the tokens that it is given.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from m3index.corpus.cut import windows
from m3index.corpus.memory import Documents
from m3index.corpus.options import Division
from m3index.corpus.outline import outline
from m3index.corpus.windows import SENTENCES, PassageSize, Tokenizer
from m3index.encoder.base import CallByCall
from m3index.encoder.load import load
from m3index.index.kept import KeptVectors, StoredVectors
from m3index.index.options import SyncOptions
from m3index.index.summary import Summary
from m3index.index.sync import sync
from m3index.store.base import Store
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Document, EncodedBatch, EncoderInfo, IntArray

SEED, DIM = 22, 16
WAYS: tuple[Division, ...] = ("structure", "tokens")
Corpus = Mapping[str, Document]


class StubEncoder(CallByCall):
    """Every passage gets the same vector, at once. tokens, overlap: of the passages."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int) -> None:
        self.tokenizer, self.tokens, self.overlap = tokenizer, tokens, overlap
        self.info = EncoderInfo("stub", DIM, 512, tokenizer.reserve, False, False, "stub", "stub")

    def prepare(self) -> None: ...

    def encode_ids(self, ids: Sequence[IntArray], **_: bool) -> EncodedBatch:
        dense = np.full((len(ids), DIM), DIM**-0.5, np.float32)
        return EncodedBatch(dense, None, np.array([len(i) for i in ids], np.int32))

    def encode_queries(self, texts: Sequence[str], **_: bool) -> EncodedBatch:
        raise NotImplementedError

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        raise NotImplementedError

    def close(self) -> None: ...


def read(path: Path) -> dict[str, Document]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["_id"]: Document(row["_id"], row["text"], row.get("title") or "") for row in rows}


def synced(store: Store, encoder: StubEncoder, corpus: Corpus, by: Division) -> Summary:
    options = SyncOptions(
        sparse="none",
        passages=by,
        passage_tokens=encoder.tokens,
        overlap=encoder.overlap,
        max_delete="100%",
        no_calibrate=True,
    )
    return sync(store, encoder, "bench", Documents(corpus.values()), options)


def tokens_of(documents: Sequence[Document], encoder: StubEncoder, by: Division) -> int:
    size = PassageSize(encoder.tokens, encoder.overlap, by)
    return sum(p.tokens for _, passages in windows(documents, encoder.tokenizer, size) for p in passages)


def changed(old: Corpus, new: Corpus) -> list[str]:
    return [i for i in new if i in old and (new[i].text, new[i].title) != (old[i].text, old[i].title)]


def share(old: Corpus, new: Corpus, encoder: StubEncoder, by: Division) -> tuple[int, int, int]:
    """The tokens of the documents that are new or changed, those encoded, and the number of documents."""
    store = MemoryStore()
    synced(store, encoder, old, by)
    summary = synced(store, encoder, new, by)
    differing = [new[i] for i in new if i not in old] + [new[i] for i in changed(old, new)]
    return tokens_of(differing, encoder, by), summary.tokens, len(differing)


def least(old: Corpus, new: Corpus, encoder: StubEncoder) -> float:
    """The share of the tokens in passages that the old text does not have, however it is cut."""
    whole = part = 0
    size = PassageSize(encoder.tokens, encoder.overlap, "structure")
    for document, passages in windows([new[i] for i in changed(old, new)], encoder.tokenizer, size):
        whole += sum(passage.tokens for passage in passages)
        before = old[document.doc_id].text
        part += sum(passage.tokens for passage in passages if passage.text not in before)
    return part / max(whole, 1)


def histories(data: Path, encoder: StubEncoder) -> None:
    columns = ["history", "changed", "tokens", "structure", "least", "windows of tokens"]
    columns += ["changed or new", "tokens", "structure"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, count in (("rustbook", 5), ("tldr", 4)):
        versions = [read(data / f"history_{name}" / f"v{i}.jsonl.gz") for i in range(1, count + 1)]
        for number, (old, new) in enumerate(pairwise(versions), 1):
            before, after = ({i: version[i] for i in old if i in new} for version in (old, new))
            whole, part, documents = share(before, after, encoder, "structure")
            whole_windows, part_windows, _ = share(before, after, encoder, "tokens")
            whole_all, part_all, documents_all = share(old, new, encoder, "structure")
            cells = [
                f"{name} v{number} to v{number + 1}",
                f"{documents:,}",
                f"{whole:,}",
                f"{part / whole:.1%}",
                f"{least(before, after, encoder):.1%}",
                f"{part_windows / whole_windows:.1%}",
                f"{documents_all:,}",
                f"{whole_all:,}",
                f"{part_all / whole_all:.1%}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


# ------------------------------------------------------------------------------------------------- edits


def _parts(text: str, ends: Sequence[int]) -> list[str]:
    starts = [0, *ends]
    return [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True)]


def _paragraphs(text: str) -> list[str]:
    return _parts(text, [i + 2 for i in range(len(text) - 2) if text[i : i + 2] == "\n\n"])


def inserted(text: str, chosen: random.Random) -> str:
    ends = [match.end() for match in SENTENCES.finditer(text)] or [0]
    place = chosen.choice(ends)
    return f"{text[:place]}This sentence, number {chosen.randrange(10**6)}, is new. {text[place:]}"


def deleted(text: str, chosen: random.Random) -> str:
    parts = _paragraphs(text)
    if len(parts) > 1:
        del parts[chosen.randrange(len(parts))]
    return "".join(parts)


def moved(text: str, chosen: random.Random) -> str:
    parts = _paragraphs(text)
    part = parts.pop(chosen.randrange(len(parts)))
    parts.insert(chosen.randrange(len(parts) + 1), part)
    return "".join(parts)


def changed_word(text: str, chosen: random.Random) -> str:
    words = text.split(" ")
    words[chosen.randrange(len(words))] = f"changed{chosen.randrange(10**6)}"
    return " ".join(words)


EDITS: Mapping[str, Callable[[str, random.Random], str]] = {
    "a sentence inserted": inserted,
    "a paragraph deleted": deleted,
    "a paragraph moved": moved,
    "a word changed": changed_word,
}


def speeches(data: Path) -> dict[str, Document]:
    long = read(data / "longdocs" / "corpus.jsonl.gz")
    plain = [i for i, d in long.items() if not outline(d.text, "").headings and len(d.text) < 60_000]
    return {i: long[i] for i in random.Random(SEED).sample(plain, 40)}


def edits(data: Path, encoder: StubEncoder) -> None:
    print("| corpus | edit | structure | tokens |")
    print("|---|---|---|---|")
    for name, corpus in (
        ("rustbook", read(data / "history_rustbook" / "v5.jsonl.gz")),
        ("speeches", speeches(data)),
    ):
        for edit, make in EDITS.items():
            chosen = random.Random(SEED)
            new = {i: replace(d, text=make(d.text, chosen)) for i, d in corpus.items()}
            found = [share(corpus, new, encoder, by) for by in WAYS]
            cells = [f"{part / max(whole, 1):.1%}" for whole, part, _ in found]
            print(f"| {name} | {edit} | " + " | ".join(cells) + " |", flush=True)


# ------------------------------------------------------------------------------------------------- night


def nights(data: Path) -> Iterator[Corpus]:
    corpus = read(data / "history_rustbook" / "v5.jsonl.gz") | read(data / "longdocs" / "corpus.jsonl.gz")
    yield corpus
    chosen = random.Random(SEED)
    for _ in range(3):
        for i in chosen.sample(sorted(corpus), round(len(corpus) / 100)):
            corpus = corpus | {i: replace(corpus[i], text=inserted(corpus[i].text, chosen))}
        yield corpus


def night(data: Path, encoder: StubEncoder) -> None:
    print("| night | updated | passages | kept | tokens encoded | CPU s |")
    print("|---|---|---|---|---|---|")
    for keeps in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Connection(uri=str(Path(folder) / "night.db")))
            of = StoredVectors.of
            if not keeps:
                StoredVectors.of = lambda *_: KeptVectors()  # type: ignore[method-assign]
            for number, corpus in enumerate(nights(data)):
                started = time.process_time()
                summary = synced(store, encoder, corpus, "structure")
                name = "the first" if not number else "vectors kept" if keeps else "all encoded"
                print(
                    f"| {name} | {summary.updated} | {summary.passages:,} | {summary.passages_kept:,} | "
                    f"{summary.tokens:,} | {time.process_time() - started:.1f} |",
                    flush=True,
                )
            StoredVectors.of = of  # type: ignore[method-assign]
            store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--parts", default="histories,edits,night")
    parser.add_argument("--passage-tokens", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    options = parser.parse_args()
    encoder = StubEncoder(load("offline").tokenizer, options.passage_tokens, options.overlap)
    for name, part in (("histories", histories), ("edits", edits), ("night", night)):
        if name in options.parts.split(","):
            part(options.data, encoder)


if __name__ == "__main__":
    main()
