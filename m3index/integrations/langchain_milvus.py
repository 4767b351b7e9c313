"""langchain-milvus: the lexical weights of a model as a `BaseSparseEmbedding`."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.types import SparseRows


class M3SparseEmbedding(BaseSparseEmbedding):
    """Lexical weights by token id. model: as in M3Embeddings, with a lexical head. Raises
    ModelNotFoundError."""

    def __init__(self, model: str | ModelEncoder = "teacher") -> None:
        self.model = load(model) if isinstance(model, str) else model

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        return _rows(self.model.encode_documents(texts, lexical=True).lexical)

    def embed_query(self, query: str) -> dict[int, float]:
        return _rows(self.model.encode_queries([query], lexical=True).lexical)[0]


def _rows(rows: SparseRows | None) -> list[dict[int, float]]:
    assert rows is not None
    return [rows.row(i).to_dict() for i in range(len(rows))]
