"""Measures how well two encoders agree on the same texts."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from m3index.corpus.cut import windows
from m3index.corpus.windows import PassageSize
from m3index.distill.data import HeldOut
from m3index.encoder.model import ModelEncoder
from m3index.types import Document, EncodedBatch, FloatArray, SparseRows

TOP_TOKENS = 5
_RANDOM_PAIRS = 5000


@dataclass(frozen=True, slots=True)
class Probes:
    """Texts that both encoders take whole, with their languages if tagged."""

    texts: Sequence[str]
    langs: Sequence[str | None]


def probes(held_out: Sequence[HeldOut], encoders: Sequence[ModelEncoder], tokens: int) -> Probes:
    """The first window of each held-out text, at most `tokens` long, if every encoder takes it whole."""
    first = encoders[0].tokenizer
    size = min(tokens, *(e.info.limit for e in encoders))
    documents = (Document(str(i), text.text) for i, text in enumerate(held_out))
    cut = [passages[0].text for _, passages in windows(documents, first, PassageSize(size, 0, "tokens"))]
    fits = [all(len(e.tokenizer.document_ids([text])[0]) <= e.info.limit for e in encoders) for text in cut]
    kept = [(text, probe.lang) for text, probe, fit in zip(cut, held_out, fits, strict=True) if fit]
    return Probes([text for text, _ in kept], [lang for _, lang in kept])


def encode(encoder: ModelEncoder, texts: Sequence[str]) -> EncodedBatch:
    """Encodes texts with every head of the encoder."""
    info = encoder.info
    return encoder.encode_documents(texts, lexical=info.lexical, multi_vector=info.multi_vector)


def figures(
    student: EncodedBatch, teacher: EncodedBatch, langs: Sequence[str | None], *, same_tokens: bool
) -> dict[str, Any]:
    """The figures of one student for the certificate, None for outputs that cannot be compared."""
    texts = _per_text(student, teacher, same_tokens)
    pearson, spearman = random_pairs(student.dense, teacher.dense)
    return {
        **{name: None if values is None else float(values.mean()) for name, values in texts.items()},
        "negative_mse_x100": _negative_mse(student.dense, teacher.dense),
        "pearson_random_pairs": pearson,
        "spearman_random_pairs": spearman,
        "weight_correlation": weight_correlation(student.lexical, teacher.lexical)
        if same_tokens and student.lexical is not None and teacher.lexical is not None
        else None,
        "languages": _by_language(texts, langs),
    }


def _per_text(
    student: EncodedBatch, teacher: EncodedBatch, same_tokens: bool
) -> dict[str, FloatArray | NDArray[np.float64] | None]:
    same_width = student.dense.shape == teacher.dense.shape
    lexical = same_tokens and student.lexical is not None and teacher.lexical is not None
    tokens = same_tokens and student.multi_vector is not None and teacher.multi_vector is not None
    return {
        "mean_cosine": (student.dense * teacher.dense).sum(1) if same_width else None,
        "token_overlap": token_overlap(student.lexical, teacher.lexical) if lexical else None,  # type: ignore[arg-type]
        "token_cosine": token_cosine(student.multi_vector, teacher.multi_vector) if tokens else None,  # type: ignore[arg-type]
    }


def _by_language(texts: Mapping[str, Any], langs: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    places: dict[str, list[int]] = defaultdict(list)
    for i, lang in enumerate(langs):
        if lang is not None:
            places[lang].append(i)
    return {
        lang: {"texts": len(rows)}
        | {name: None if values is None else float(values[rows].mean()) for name, values in texts.items()}
        for lang, rows in sorted(places.items())
    }


def _negative_mse(student: FloatArray, teacher: FloatArray) -> float | None:
    """-100 x the mean squared difference, as in sentence-transformers' MSEEvaluator."""
    if student.shape != teacher.shape:
        return None
    return float(-100 * np.square(student - teacher).mean())


def random_pairs(student: FloatArray, teacher: FloatArray, seed: int = 0) -> tuple[float, float]:
    """Pearson and Spearman correlations of the two models' cosines over random pairs of texts."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, len(teacher), (2, _RANDOM_PAIRS))
    a, b = a[a != b], b[a != b]
    return correlations((student[a] * student[b]).sum(1), (teacher[a] * teacher[b]).sum(1))


def correlations(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """(Pearson, Spearman)."""
    return float(np.corrcoef(x, y)[0, 1]), float(stats.spearmanr(x, y).statistic)


def token_overlap(student: SparseRows, teacher: SparseRows, k: int = TOP_TOKENS) -> NDArray[np.float64]:
    """For each text, the share of the teacher's k heaviest tokens that are among the student's. (n,)

    A text for which the teacher has no weights counts as agreement if the student has none either.
    """
    shares = []
    for i in range(len(teacher)):
        expected, actual = _heaviest(teacher, i, k), _heaviest(student, i, k)
        shares.append(len(expected & actual) / len(expected) if expected else float(not actual))
    return np.array(shares)


def _heaviest(rows: SparseRows, i: int, k: int) -> set[int]:
    row = rows.row(i)
    order = np.lexsort((row.indices, -row.values))[:k]
    return {int(token) for token in row.indices[order]}


def weight_correlation(student: SparseRows, teacher: SparseRows) -> float:
    """Pearson correlation of the weights over all tokens that either model weights; absent is zero."""
    pairs: list[NDArray[np.float32]] = []
    for i in range(len(teacher)):
        a, b = student.row(i), teacher.row(i)
        union = np.union1d(a.indices, b.indices)
        both = np.zeros((2, len(union)), np.float32)
        both[0, np.searchsorted(union, a.indices)] = a.values
        both[1, np.searchsorted(union, b.indices)] = b.values
        pairs.append(both)
    x, y = np.concatenate(pairs, axis=1)
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.any() and y.any() else 0.0


def token_cosine(student: Sequence[FloatArray], teacher: Sequence[FloatArray]) -> NDArray[np.float64]:
    """For each text, the mean cosine of the two vectors of each token. (n,)"""
    return np.array([float((s * t).sum(1).mean()) for s, t in zip(student, teacher, strict=True)])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts, with a human score if available."""

    first: str
    second: str
    gold: float | None


def pair_figures(cosines: Mapping[str, FloatArray], pairs: Sequence[Pair]) -> dict[str, Any]:
    """cosines: those of each model over the pairs, under `teacher`, `untrained`, `student`."""
    gold = np.array([p.gold for p in pairs], np.float32) if all(p.gold is not None for p in pairs) else None
    section: dict[str, Any] = {"pairs": len(pairs)}
    for name, values in cosines.items():
        pearson, spearman = correlations(values, cosines["teacher"])
        section[name] = {
            "pearson": pearson,
            "spearman": spearman,
            "gold_spearman": None if gold is None else correlations(values, gold)[1],
        }
    return section


def pair_cosines(encoder: ModelEncoder, pairs: Sequence[Pair]) -> FloatArray:
    """(pairs,) cosines of the dense vectors."""
    texts = [text for pair in pairs for text in (pair.first, pair.second)]
    dense = encoder.encode_documents(texts, lexical=False).dense
    cosines: FloatArray = (dense[0::2] * dense[1::2]).sum(1)
    return cosines


def speed(encoders: Mapping[str, ModelEncoder], texts: Sequence[str], rounds: int = 5) -> dict[str, float]:
    """Texts per second of each encoder without tokenisation. Takes the median of alternating rounds, so that
    other load on the machine affects all encoders alike."""
    rows = {name: e.tokenizer.document_ids(texts) for name, e in encoders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(rounds + 1):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder.encode_ids(rows[name], lexical=encoder.info.lexical)
            if turn:  # the first round loads and warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: len(texts) / statistics.median(values) for name, values in seconds.items()}
