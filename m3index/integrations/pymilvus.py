"""Vectors for your own pymilvus code, in the shapes of pymilvus-model's BGEM3EmbeddingFunction.

- from pymilvus.model.hybrid import BGEM3EmbeddingFunction
+ from m3index.integrations.pymilvus import M3EmbeddingFunction as BGEM3EmbeddingFunction
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from scipy.sparse import csr_array

from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.errors import UsageError
from m3index.types import EncodedBatch, SparseRows


class M3EmbeddingFunction:
    """model_name: a preset, hub id or directory. batch_size: ignored, because batches are packed by tokens.

    Raises UsageError for a text over the model's limit (it is never cut), MissingHeadError for vectors that
    the model has no head for, and ModelNotFoundError.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-m3",
        batch_size: int = 16,
        device: str | None = None,
        normalize_embeddings: bool = True,
        use_fp16: bool = False,
        return_dense: bool = True,
        return_sparse: bool = True,
        return_colbert_vecs: bool = False,
    ) -> None:
        if not normalize_embeddings:
            raise UsageError(
                "normalize_embeddings=False is not supported: the vectors always have unit norm."
            )
        self.model_name = model_name
        self.batch_size = batch_size
        self._return_dense = return_dense
        self._return_sparse = return_sparse
        self._return_colbert_vecs = return_colbert_vecs
        self._model: ModelEncoder = load(
            model_name, device=device or "auto", precision="fp16" if use_fp16 else "fp32"
        )

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        return self.encode_documents(texts)

    def encode_documents(self, documents: Sequence[str]) -> dict[str, Any]:
        """`dense`: a list of arrays (dim,); `sparse`: a CSR array (n, vocabulary); `colbert_vecs`: a list
        of arrays (tokens - 1, width). Contains only the requested kinds."""
        return self._shaped(
            self._model.encode_documents(
                documents, lexical=self._return_sparse, multi_vector=self._return_colbert_vecs
            )
        )

    def encode_queries(self, queries: Sequence[str]) -> dict[str, Any]:
        """The same for queries, with the query prompt of the model if it has one."""
        return self._shaped(
            self._model.encode_queries(
                queries, lexical=self._return_sparse, multi_vector=self._return_colbert_vecs
            )
        )

    @cached_property
    def dim(self) -> dict[str, int]:
        """The widths of the kinds of vectors that the model has."""
        info = self._model.info
        widths = {"dense": info.dim}
        if info.multi_vector:
            probe = self._model.encode_queries(["a"], lexical=False, multi_vector=True).multi_vector
            assert probe is not None
            widths["colbert_vecs"] = int(probe[0].shape[1])
        if info.lexical:
            widths["sparse"] = self._model.tokenizer.vocabulary
        return widths

    def _shaped(self, batch: EncodedBatch) -> dict[str, Any]:
        shaped: dict[str, Any] = {}
        if self._return_dense:
            shaped["dense"] = list(batch.dense)
        if self._return_sparse:
            assert batch.lexical is not None
            shaped["sparse"] = self._csr(batch.lexical)
        if self._return_colbert_vecs:
            shaped["colbert_vecs"] = list(batch.multi_vector or ())
        return shaped

    def _csr(self, rows: SparseRows) -> csr_array:
        shape = (len(rows), self._model.tokenizer.vocabulary)
        return csr_array((rows.values, rows.indices, rows.indptr), shape=shape)
