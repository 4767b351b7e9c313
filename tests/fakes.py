"""A whole encoder in a page: words are tokens, vectors come from their hashes. Fast and exact."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from m3index.corpus.cut import CutsHere
from m3index.corpus.windows import Tokens
from m3index.encoder.base import CallByCall
from m3index.errors import UsageError
from m3index.types import EncodedBatch, EncoderInfo, IntArray, SparseRows

BOS, EOS, VOCABULARY = 0, 2, 50_000
_WORD = re.compile(r"\S+")


def token_id(word: str) -> int:
    digest = hashlib.blake2b(word.lower().encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return 4 + int.from_bytes(digest, "big") % (VOCABULARY - 4)


class FakeTokenizer(CutsHere):
    """Splits at white space; one special token at each end."""

    def __init__(self, limit: int = 64) -> None:
        self.limit, self.reserve = limit, 2

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Tokens:
        words = list(_WORD.finditer(text))
        ids = [BOS, *(token_id(w.group()) for w in words), EOS]
        offsets = [(0, 0), *(w.span() for w in words), (0, 0)]
        return Tokens(np.array(ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2))


class FakeEncoder(CallByCall):
    """dense: normalised sum of the tokens' random vectors. lexical: weight 1 + id % 7 / 10 a token.

    multi-vector: each token's random unit vector. `encoded` counts the inputs encoded as documents.
    """

    def __init__(
        self, dim: int = 16, *, limit: int = 64, lexical: bool = True, name: str = "fake", space: str = ""
    ) -> None:
        self.tokenizer = FakeTokenizer(limit)
        self.seed = int.from_bytes(hashlib.blake2b((space or name).encode(), digest_size=4).digest(), "big")
        self.info = EncoderInfo(
            name=name,
            dim=dim,
            limit=limit,
            window_reserve=2,
            lexical=lexical,
            multi_vector=lexical,
            space_id=f"space-{space or name}-{dim}",
            encoder_id=f"encoder-{name}-{dim}",
        )
        self.encoded = 0
        self.closed = False

    def prepare(self) -> None: ...

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        self.encoded += len(ids)
        return self._encode(ids, lexical, multi_vector)

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        tokens = self.tokenizer.documents(texts)
        if any(len(t.ids) > self.info.limit for t in tokens):
            raise UsageError("the query is too long")
        return self._encode([t.ids for t in tokens], lexical, multi_vector)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return [f"t{i}" for i in ids]

    def close(self) -> None:
        self.closed = True

    def _vector(self, token: int) -> np.ndarray:
        v = np.random.default_rng((self.seed, token)).standard_normal(self.info.dim)
        return v / np.linalg.norm(v)

    def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> EncodedBatch:
        assert self.info.lexical or not lexical
        dense = np.zeros((len(ids), self.info.dim), np.float32)
        indptr, indices, multi = [0], [], []
        for i, row in enumerate(ids):
            vectors = np.array([self._vector(int(t)) for t in row])
            total = vectors.sum(0)
            dense[i] = total / np.linalg.norm(total)
            indices.extend(sorted({int(t) for t in row} - {BOS, EOS}))
            indptr.append(len(indices))
            multi.append(vectors[1:].astype(np.float32))
        rows = np.array(indices, np.int32)
        return EncodedBatch(
            dense=dense,
            lexical=SparseRows(np.array(indptr, np.int64), rows, (1 + rows % 7 / 10).astype(np.float32))
            if lexical
            else None,
            tokens=np.array([len(r) for r in ids], np.int32),
            multi_vector=multi if multi_vector else None,
        )
