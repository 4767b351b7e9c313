"""Reorders hits so that each is relevant and unlike those before it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3index.search.fusion import min_max
from m3index.types import FloatArray


def diversified(scores: Sequence[float], vectors: FloatArray, diversity: float) -> list[int]:
    """The positions of the hits by maximal marginal relevance (MMR).

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries", SIGIR 1998: of the hits D that are left, next is the one with the greatest

        lambda x relevance(D) - (1 - lambda) x max over the hits S before it of similarity(D, S)

    with lambda = 1 - diversity. The relevance is the score, scaled to [0, 1] over these hits; the similarity
    is the inner product of the vectors, which for unit vectors is their cosine. In a tie, the hit that was
    before comes first.

    scores: higher is better. vectors: (n, dim), in the same order.
    """
    relevance = (1.0 - diversity) * np.array(min_max(scores), np.float64)
    order: list[int] = []
    left = np.ones(len(scores), bool)
    nearest = np.full(len(scores), -np.inf)
    for _ in scores:
        value = relevance - diversity * nearest if order else relevance
        chosen = int(np.where(left, value, -np.inf).argmax())
        nearest = np.maximum(nearest, vectors @ vectors[chosen])
        left[chosen] = False
        order.append(chosen)
    return order
