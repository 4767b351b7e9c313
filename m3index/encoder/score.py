"""BGE-M3's scores of query-text pairs: dense, sparse (lexical), colbert (multi-vector), and their means.

As FlagEmbedding's `BGEM3FlagModel.compute_score`, for each pair on its own; there a padded batch adds
zeros to the colbert maximum, which can only matter where every similarity is negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3index.errors import UsageError
from m3index.types import EncodedBatch, FloatArray, SparseVector


def lexical_score(query: SparseVector, text: SparseVector) -> float:
    """Inner product over the token ids that both have."""
    _, a, b = np.intersect1d(query.indices, text.indices, assume_unique=True, return_indices=True)
    return float(query.values[a] @ text.values[b])


def colbert_score(query: FloatArray, text: FloatArray) -> float:
    """Mean over the query's vectors of the greatest similarity to one of the text's.

    query: (m, width), text: (n, width), unit rows. 0 where either has none.
    """
    if not len(query) or not len(text):
        return 0.0
    return float((query @ text.T).max(1).mean())


def compute_score(
    queries: EncodedBatch, texts: EncodedBatch, weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> dict[str, FloatArray]:
    """Scores of queries[i] with texts[i], each (n,) float32, under the names that FlagEmbedding gives them.

    weights: of dense, sparse, colbert in the means. Raises UsageError where an output is missing.
    """
    if len(queries) != len(texts):
        raise UsageError(f"{len(queries)} queries and {len(texts)} texts: scores are of pairs.")
    a, b = (batch.lexical for batch in (queries, texts))
    m, n = (batch.multi_vector for batch in (queries, texts))
    if a is None or b is None or m is None or n is None:
        raise UsageError("compute_score needs lexical weights and multi-vectors of both sides.")
    w_dense, w_sparse, w_colbert = weights
    if min(weights) < 0 or w_dense + w_sparse <= 0:
        raise UsageError("Weights (dense, sparse, colbert) are not negative, and the first two not both 0.")
    pairs = range(len(queries))
    dense = np.einsum("ij,ij->i", queries.dense, texts.dense)
    sparse = np.array([lexical_score(a.row(i), b.row(i)) for i in pairs], np.float32)
    colbert = np.array([colbert_score(m[i], n[i]) for i in pairs], np.float32)
    two = w_dense * dense + w_sparse * sparse
    return {
        "dense": dense,
        "sparse": sparse,
        "colbert": colbert,
        "sparse+dense": two / np.float32(w_dense + w_sparse),
        "colbert+sparse+dense": (two + w_colbert * colbert) / np.float32(sum(weights)),
    }
