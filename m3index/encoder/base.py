"""The Encoder protocol: the interface of a model for index/ and search/. Does not import torch."""

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
        """Loads the weights now instead of at the first encode."""
        ...

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs, which include the prompt and special tokens, and keeps their order. The
        inputs are packed into as many forward passes as the token budget requires."""
        ...

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes queries with the model's query prompt. Raises UsageError for a query above the limit."""
        ...

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The texts of token ids, to show which tokens matched in the lexical leg."""
        ...

    def close(self) -> None: ...
