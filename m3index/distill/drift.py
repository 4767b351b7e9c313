"""Whether the vectors in a collection still agree with the teacher."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3index.distill.agreement import TOP_TOKENS, token_overlap
from m3index.encoder import certificate as certificates
from m3index.encoder.model import ModelEncoder
from m3index.errors import GateError, MismatchError, UsageError
from m3index.store.base import Store, StoredRow
from m3index.types import SparseRows, join_title


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of a sample of stored passages with the teacher.

    mean_cosine, lowest_cosine: of the dense vectors. token_overlap: mean share of the teacher's five
    heaviest tokens among the stored ones; None where either has no lexical weights. worst: the passages
    that agree least, with their cosines.
    """

    passages: int
    mean_cosine: float
    lowest_cosine: float
    token_overlap: float | None
    worst: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What agreement is right: as much as the certificate says of the student that wrote the passages,
    less `SLACK`. teacher: the one that the certificate names."""

    teacher: str | None
    cosine: float
    overlap: float | None


SLACK = 0.02


def expected(directory: Path) -> Expected:
    """Of the model that wrote a collection; without a certificate the bars of `encoder.certificate`."""
    certificate = certificates.read(directory)
    if certificate is None:
        return Expected(None, certificates.BARS.cosine, None)
    found = certificate["agreement"]["student"]
    return Expected(
        teacher=certificate["teacher"]["name"],
        cosine=(found["mean_cosine"] or certificates.BARS.cosine) - SLACK,
        overlap=None if found["token_overlap"] is None else found["token_overlap"] - SLACK,
    )


def measure(
    store: Store, collection: str, teacher: ModelEncoder, *, sample: int = 200, seed: int = 0
) -> Agreement:
    """Encodes a random sample of the stored passages with the teacher and compares.

    collection: the concrete name. Raises UsageError for an empty collection, MismatchError for vectors
    of another width than the teacher's.
    """
    spec = store.spec(collection)
    if spec.dim != teacher.info.dim:
        raise MismatchError(
            f"{collection} has vectors of {spec.dim} dimensions, the teacher of {teacher.info.dim}."
        )
    lexical = spec.sparse == "lexical" and teacher.info.lexical
    ids = sampled(store, collection, sample, seed)
    fields = ["title", "text", "dense", *["lexical"] * lexical]
    rows = list(store.get(collection, ids, fields).items())
    inputs = teacher.tokenizer.document_ids([join_title(row["title"], row["text"]) for _, row in rows])
    fits = [i for i, tokens in enumerate(inputs) if len(tokens) <= teacher.info.limit]
    if not fits:
        raise UsageError(f"{collection} has no passages that this teacher takes whole.")
    rows = [rows[i] for i in fits]
    encoded = teacher.encode_ids([inputs[i] for i in fits], lexical=lexical)
    stored = np.array([row["dense"] for _, row in rows], np.float32)
    cosines = (stored * encoded.dense).sum(1) / np.linalg.norm(stored, axis=1)
    overlap = None
    if encoded.lexical is not None:
        overlap = float(token_overlap(_rows([row for _, row in rows]), encoded.lexical, TOP_TOKENS).mean())
    order = np.argsort(cosines, kind="stable")[:5]
    return Agreement(
        passages=len(rows),
        mean_cosine=float(cosines.mean()),
        lowest_cosine=float(cosines.min()),
        token_overlap=overlap,
        worst=[(rows[i][0], float(cosines[i])) for i in order],
    )


def check(found: Agreement, *, cosine: float, overlap: float | None = None) -> None:
    """Raises GateError where the agreement is below what is asked."""
    if found.mean_cosine < cosine:
        raise GateError(
            f"Mean cosine {found.mean_cosine:.4f} with the teacher over {found.passages} passages, at least "
            f"{cosine:.4f} is asked. Encode the corpus again (m3index reindex), or distil on texts like it."
        )
    if overlap is not None and found.token_overlap is not None and found.token_overlap < overlap:
        raise GateError(
            f"Token overlap {found.token_overlap:.4f} with the teacher, at least {overlap:.4f} is asked. "
            "Encode the corpus again (m3index reindex), or distil on texts like it."
        )


def sampled(store: Store, collection: str, sample: int, seed: int) -> list[str]:
    """A uniform sample of the primary keys; holds no more of them than are asked for."""
    draw = random.Random(seed)  # noqa: S311
    keys = (row["passage_id"] for row in store.scan(collection, None, []))
    return sorted(key for _, key in heapq.nlargest(sample, ((draw.random(), key) for key in keys)))


def _rows(stored: Sequence[StoredRow]) -> SparseRows:
    vectors = [row["lexical"] for row in stored]
    return SparseRows(
        np.cumsum([0, *(len(v) for v in vectors)], dtype=np.int64),
        np.concatenate([v.indices for v in vectors]).astype(np.int32),
        np.concatenate([v.values for v in vectors]).astype(np.float32),
    )
