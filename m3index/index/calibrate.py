"""How far the dense leg of a collection can be trusted: measured on its own passages, without labels.

A query made of a stored passage (half of the words of one sentence) should find the document of that passage.
How high it ranks among a sample of the documents, as the mean of 1 / rank, tells a model that knows the
languages of the collection from one that does not.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from m3index.encoder.base import Encoder
from m3index.errors import UsageError
from m3index.index.collection import Collection, find
from m3index.index.lock import hold
from m3index.progress import Reporter
from m3index.store.analyzer import words
from m3index.store.base import Store, StoredRow
from m3index.store.filter import Compare
from m3index.types import MOST_TRUST, key_of_passage
from m3index.wording import many

PROPERTY = "calibration"

QUERIES = 150
SAMPLE_DOCUMENTS = 1_000
SAMPLE_ROWS = 10_000
LEAST_DOCUMENTS = 50
"""In a smaller collection, ranks say little, and a model is not measured."""

EVEN_ODDS, LEAST_MRR = 3.0, 0.01
"""A dense vote counts like a sparse one at odds of 3 to 1 (mrr 0.75), and at most `MOST_TRUST` times as much:
beyond, the sample is too small to tell. Chosen in benchmarks/fusion.py."""

MOST_WORDS, MOST_CHARACTERS = 16, 200
LEAST_WORDS = 6
"""The number of words from which a sentence makes a query."""

PASSAGE_SHARE, FEW_WORDS = 6, 4
"""A query has at most a sixth of the words of its passage, but may have four: half of the words of a document
of one sentence would find it again among anything."""

_SENTENCE_END = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[\u3002\uff01\uff1f\u0964\u061f\u06d4])|\n+")


@dataclass(frozen=True, slots=True)
class Calibration:
    """mrr: the mean of 1 / rank over `queries` pseudo queries. rows: of the collection at that time."""

    mrr: float
    queries: int
    rows: int

    @property
    def sentence(self) -> str:
        return (
            f"The dense leg found the documents of {many(self.queries, 'query', 'queries')} made of passages "
            f"with a mean reciprocal rank of {self.mrr:.3f}. With fusion by evidence, its votes count "
            f"{self.dense_trust:.2f} times."
        )

    @property
    def dense_trust(self) -> float:
        """What the votes of the dense leg are multiplied by: the odds that it is right, over `EVEN_ODDS`."""
        most = MOST_TRUST * EVEN_ODDS
        return min(most, max(self.mrr, LEAST_MRR) / max(1 - self.mrr, 1e-9)) / EVEN_ODDS

    def to_property(self) -> dict[str, str]:
        return {PROPERTY: json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> Self | None:
        """What was measured for a collection with these properties; None if nothing was."""
        return cls(**json.loads(properties[PROPERTY])) if properties.get(PROPERTY) else None

    def is_due(self, rows: int) -> bool:
        """Whether it should be measured again for a collection of now `rows` rows."""
        return rows >= 2 * self.rows


def calibrate_if_due(
    store: Store, target: Collection, encoder: Encoder, rows: int, reporter: Reporter
) -> None:
    """Measures the dense leg at the end of a run and keeps the result in the properties of the generation,
    unless that was done when the collection had more than half of its rows. rows: the number of rows now."""
    known = Calibration.of(target.properties)
    if target.spec.sparse == "none" or rows < LEAST_DOCUMENTS:
        return
    if known is not None and not known.is_due(rows):
        return
    reporter.stage("measuring how well the dense leg finds passages again")
    found = calibrate(store, target.name, encoder, rows)
    if found is not None:
        store.set_properties(target.name, found.to_property())
        reporter.note(found.sentence)


def recalibrate(store: Store, encoder: Encoder, alias: str) -> Calibration:
    """Measures the dense leg of the collection behind `alias` now. Raises UsageError if it is too small,
    CollectionNotFoundError and LockedError."""
    with hold(store, alias, 0.0, "m3index tune --without-labels") as lock:
        target = lock.lease(lambda: find(store, alias), rewrites=[])
        found = calibrate(store, target.name, encoder, store.count(target.name))
        if found is None:
            raise UsageError(
                f"Collection {alias!r} has fewer than {LEAST_DOCUMENTS} documents, which is too few to "
                "measure the dense leg by them."
            )
        store.set_properties(target.name, found.to_property())
        return found


def calibrate(store: Store, name: str, encoder: Encoder, rows: int) -> Calibration | None:
    """Measures the dense leg of the concrete collection `name`, which has `rows` rows, on a sample of its
    documents. The sample depends on their keys only, so that it is the same at every measurement. None if the
    collection is too small."""
    found = measure(list(_sample(store, name, rows)), encoder)
    return None if found is None else Calibration(*found, rows)


def measure(sample: Sequence[StoredRow], encoder: Encoder) -> tuple[float, int] | None:
    """(the mean reciprocal rank, the number of queries) among these documents, given as all their rows, by
    exact search; None if there are too few."""
    passages: dict[str, list[StoredRow]] = {}
    for row in sorted(sample, key=lambda row: str(row["passage_id"])):
        passages.setdefault(key_of_passage(row["passage_id"]), []).append(row)
    if len(passages) < LEAST_DOCUMENTS:
        return None
    asked = list(passages)[:QUERIES]
    most = min(MOST_CHARACTERS, encoder.info.limit // 2)  # a character is hardly ever two tokens
    texts = [pseudo_query([row["text"] for row in passages[key]], key)[:most] for key in asked]
    queries = encoder.encode_queries(texts, lexical=False).dense
    vectors = np.stack([row["dense"] for rows in passages.values() for row in rows])
    starts = np.cumsum([0, *map(len, passages.values())])[:-1]
    best = np.maximum.reduceat(queries @ vectors.T, starts, axis=1)
    own = best[np.arange(len(asked)), np.arange(len(asked))]
    ranks = 1 + (best > own[:, None]).sum(axis=1)
    return round(float((1 / ranks).mean()), 4), len(asked)


def pseudo_query(passages: list[str], seed: str) -> str:
    """Half of the words of one sentence of one of the passages, at most `MOST_WORDS` and not too large a part
    of the passage, in order. seed: determines the choice."""
    rng = random.Random(seed)  # noqa: S311  (it is no secret)
    sentences = [words(part) for part in _SENTENCE_END.split(rng.choice(passages)) if part]
    long = [sentence for sentence in sentences if len(sentence) >= LEAST_WORDS]
    chosen = rng.choice(long) if long else max(sentences, key=len, default=[])
    most = max(FEW_WORDS, math.ceil(sum(map(len, sentences)) / PASSAGE_SHARE))
    kept = rng.sample(range(len(chosen)), min(MOST_WORDS, most, math.ceil(len(chosen) / 2)))
    return " ".join(chosen[i] for i in sorted(kept))


def _sample(store: Store, name: str, rows: int) -> Iterator[StoredRow]:
    """All rows of about `SAMPLE_DOCUMENTS` documents, but of no more than have about `SAMPLE_ROWS` rows: of
    those with the lowest keys. Keys are digests, so this is as good as chance."""
    documents = store.count(name, Compare("ordinal", "==", 0))
    share = min(SAMPLE_DOCUMENTS / max(documents, 1), SAMPLE_ROWS / max(rows, 1))
    below = None if share >= 1 else Compare("passage_id", "<", f"{int(share * 16**8):08x}")
    return store.scan(name, below, ["text", "dense"])
