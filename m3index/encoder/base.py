"""The Encoder protocol: the interface of a model for index/ and search/. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from m3index.corpus.windows import Tokenizer
from m3index.types import EncodedBatch, EncoderInfo, IntArray, SparseRows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requested outputs. skip: how many leading tokens (a prompt) the pooling leaves out."""

    lexical: bool = False
    multi_vector: bool = False
    skip: int = 0

    def of_nothing(self, dim: int) -> EncodedBatch:
        """The outputs for no inputs."""
        no_rows = SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        return EncodedBatch(
            np.empty((0, dim), np.float32),
            no_rows if self.lexical else None,
            np.zeros(0, np.int32),
            [] if self.multi_vector else None,
        )


class Encoder(Protocol):
    @property
    def info(self) -> EncoderInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def workers(self) -> int:
        """How many processes beside this one may work for a stream, so that this one keeps up with it."""
        ...

    def prepare(self) -> None:
        """Loads the weights now instead of at the first encode."""
        ...

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs, which include the prompt and special tokens, and keeps their order. The
        inputs are packed into as many forward passes as the token budget requires."""
        ...

    def encode_stream(
        self, calls: Iterable[tuple[T, Sequence[IntArray]]], *, lexical: bool
    ) -> Iterator[tuple[T, EncodedBatch]]:
        """`encode_ids` for an endless stream of calls: each item with the vectors of its inputs, in order.

        Calls are read ahead, so that no device waits between them; a call without inputs is an item that
        passes through. An error of `calls` is raised after the results before it."""
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


class CallByCall:
    """`encode_stream` for an encoder that gains nothing from reading ahead, or from other processes."""

    workers = 0

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        raise NotImplementedError

    def encode_stream(
        self, calls: Iterable[tuple[T, Sequence[IntArray]]], *, lexical: bool
    ) -> Iterator[tuple[T, EncodedBatch]]:
        for item, ids in calls:
            yield item, self.encode_ids(ids, lexical=lexical)
