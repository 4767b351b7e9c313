"""The Encoder protocol: what index/ and search/ ask of a model. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from m3index.corpus.windows import Tokenizer
from m3index.types import EncodedBatch, EncoderInfo, IntArray


class Encoder(Protocol):
    @property
    def info(self) -> EncoderInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def prepare(self) -> None:
        """Loads the weights, which the first encode would do otherwise."""
        ...

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs (prompt and special tokens already in) in the order given,
        packed into as many forwards as the token budget asks for."""
        ...

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes queries with the model's query prompt. One longer than the limit is a UsageError."""
        ...

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Token ids as text, for people: what matched in the lexical leg."""
        ...

    def close(self) -> None: ...
