"""Combines the queries of several clients into one call of the encoder, which serves one caller at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby

from m3index.corpus.windows import Tokenizer
from m3index.encoder.base import CallByCall, Encoder
from m3index.types import EncodedBatch, EncoderInfo, IntArray

MAX_QUERIES = 64


@dataclass(frozen=True, slots=True)
class _Request:
    texts: Sequence[str]
    lexical: bool
    multi_vector: bool
    answer: Future[EncodedBatch] = field(default_factory=Future)

    @property
    def heads(self) -> tuple[bool, bool]:
        return self.lexical, self.multi_vector


class BatchingEncoder(CallByCall):
    """An encoder that can be called from many threads.

    A thread that finds the encoder free encodes all waiting queries, so a batch holds what arrived during
    the previous call, and no query waits for others. on_batch: called with the number of queries of each
    call.
    """

    def __init__(self, encoder: Encoder, on_batch: Callable[[int], None] | None = None) -> None:
        self._encoder = encoder
        self._on_batch = on_batch
        self._busy = threading.Lock()
        self._queue = threading.Lock()
        self._waiting: list[_Request] = []

    @property
    def info(self) -> EncoderInfo:
        return self._encoder.info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._encoder.tokenizer

    def prepare(self) -> None:
        self._encoder.prepare()

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        with self._busy:
            return self._encoder.encode_ids(ids, lexical=lexical, multi_vector=multi_vector)

    def encode_queries(
        self, texts: Sequence[str], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        request = _Request(texts, lexical, multi_vector)
        with self._queue:
            self._waiting.append(request)
        with self._busy:
            while not request.answer.done():
                self._encode_waiting()
        return request.answer.result()

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        with self._busy:
            return self._encoder.token_texts(ids)

    def close(self) -> None:
        with self._busy:
            self._encoder.close()

    def _encode_waiting(self) -> None:
        with self._queue:
            batch, self._waiting = self._waiting[:MAX_QUERIES], self._waiting[MAX_QUERIES:]
        for _, group in groupby(sorted(batch, key=lambda r: r.heads), key=lambda r: r.heads):
            self._encode(list(group))

    def _encode(self, group: Sequence[_Request]) -> None:
        texts = [text for request in group for text in request.texts]
        try:
            batch = self._encoder.encode_queries(
                texts, lexical=group[0].lexical, multi_vector=group[0].multi_vector
            )
        except Exception as error:
            if len(group) == 1:
                group[0].answer.set_exception(error)
            else:  # one of them is invalid: encode each by itself
                for request in group:
                    self._encode([request])
            return
        if self._on_batch is not None:
            self._on_batch(len(texts))
        start = 0
        for request in group:
            end = start + len(request.texts)
            request.answer.set_result(batch.part(start, end))
            start = end
