"""Checks whether the vectors in a collection still agree with the teacher."""

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
from m3index.types import JOINED, SparseRows, joined
from m3index.wording import many


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a sample of stored passages with the teacher.

    mean_cosine, lowest_cosine: of the dense vectors. token_overlap: mean share of the teacher's five
    heaviest tokens that are among the stored ones, None if either side has no lexical weights. worst: the
    passages that agree least, with their cosines.
    """

    passages: int
    mean_cosine: float
    lowest_cosine: float
    token_overlap: float | None
    worst: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected agreement: that in the certificate of the student that encoded the passages, minus
    `SLACK`. teacher: the one named in the certificate."""

    teacher: str | None
    cosine: float
    overlap: float | None


SLACK = 0.02


def expected(directory: Path) -> Expected:
    """For the model that encoded a collection. Falls back to the bars of `encoder.certificate`."""
    certificate = certificates.read(directory)
    if certificate is None:
        return Expected(None, certificates.BARS.cosine, None)
    figures = certificate["agreement"]["student"]
    return Expected(
        teacher=certificate["teacher"]["name"],
        cosine=(figures["mean_cosine"] or certificates.BARS.cosine) - SLACK,
        overlap=None if figures["token_overlap"] is None else figures["token_overlap"] - SLACK,
    )


def measure(
    store: Store, collection: str, teacher: ModelEncoder, *, sample: int = 200, seed: int = 0
) -> Agreement:
    """Encodes a random sample of the stored passages with the teacher and compares the vectors.

    collection: the actual name, not an alias. Raises UsageError for an empty collection, MismatchError if the
    vectors differ in width from the teacher's.
    """
    spec = store.spec(collection)
    if spec.dim != teacher.info.dim:
        raise MismatchError(
            f"{collection} has vectors of {spec.dim} dimensions, but the teacher has {teacher.info.dim} "
            "dimensions."
        )
    lexical = spec.sparse == "lexical" and teacher.info.lexical
    ids = sampled(store, collection, sample, seed)
    fields = [*JOINED, "dense", *["lexical"] * lexical]
    rows = list(store.get(collection, ids, fields).items())
    inputs = teacher.tokenizer.document_ids([joined(row) for _, row in rows])
    fits = [i for i, tokens in enumerate(inputs) if len(tokens) <= teacher.info.limit]
    if not fits:
        raise UsageError(f"{collection} has no passages that fit into this teacher's limit.")
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
    """Raises GateError if the agreement is below the given minimums."""
    if found.mean_cosine < cosine:
        raise GateError(
            f"The mean cosine with the teacher over {many(found.passages, 'passage')} is "
            f"{found.mean_cosine:.4f}, "
            f"but must be at least {cosine:.4f}. Encode the corpus again (m3index reindex), or distil on "
            "similar texts."
        )
    if overlap is not None and found.token_overlap is not None and found.token_overlap < overlap:
        raise GateError(
            f"The token overlap with the teacher is {found.token_overlap:.4f}, but must be at least "
            f"{overlap:.4f}. Encode the corpus again (m3index reindex), or distil on similar texts."
        )


def sampled(store: Store, collection: str, sample: int, seed: int) -> list[str]:
    """A uniform sample of the primary keys. Holds at most `sample` keys in memory."""
    rng = random.Random(seed)  # noqa: S311
    keys = (row["passage_id"] for row in store.scan(collection, None, []))
    return sorted(key for _, key in heapq.nlargest(sample, ((rng.random(), key) for key in keys)))


def _rows(stored: Sequence[StoredRow]) -> SparseRows:
    vectors = [row["lexical"] for row in stored]
    return SparseRows(
        np.cumsum([0, *(len(v) for v in vectors)], dtype=np.int64),
        np.concatenate([v.indices for v in vectors]).astype(np.int32),
        np.concatenate([v.values for v in vectors]).astype(np.float32),
    )
