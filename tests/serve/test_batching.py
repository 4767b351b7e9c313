from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import FakeEncoder

from m3index.errors import UsageError
from m3index.serve.batching import BatchingEncoder
from m3index.types import EncodedBatch


class Held(FakeEncoder):
    """Its first call waits until it is let go, so that others queue up behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()
        self.inside = 0

    def encode_queries(self, texts, *, lexical, multi_vector=False) -> EncodedBatch:
        self.inside += 1
        assert self.inside == 1, "two threads in one encoder"
        self.entered.set()
        assert self.go.wait(10)
        try:
            return super().encode_queries(texts, lexical=lexical, multi_vector=multi_vector)
        finally:
            self.inside -= 1


def ask_together(encoder: Held, texts: list[str], **heads: bool) -> tuple[list, list[int]]:
    sizes: list[int] = []
    batching = BatchingEncoder(encoder, sizes.append)
    with ThreadPoolExecutor(len(texts)) as pool:
        first = pool.submit(batching.encode_queries, [texts[0]], lexical=True)
        assert encoder.entered.wait(10)
        rest = [pool.submit(batching.encode_queries, [text], lexical=True) for text in texts[1:]]
        while len(batching._waiting) < len(rest):
            threading.Event().wait(0.005)
        encoder.go.set()
    return [first, *rest], sizes


def test_queries_that_came_meanwhile_are_encoded_in_one_call() -> None:
    texts = [f"query {i} {'x ' * (i % 5)}" for i in range(16)]
    answers, sizes = ask_together(Held(), texts)
    assert sizes == [1, 15]
    alone = FakeEncoder()
    for text, answer in zip(texts, answers, strict=True):
        expected, got = alone.encode_queries([text], lexical=True), answer.result()
        np.testing.assert_allclose(got.dense, expected.dense, atol=1e-6)
        assert got.lexical is not None
        assert expected.lexical is not None
        assert len(got.lexical) == 1
        assert got.lexical.row(0).to_dict() == expected.lexical.row(0).to_dict()
        assert got.tokens.tolist() == expected.tokens.tolist()


def test_a_query_that_cannot_be_encoded_harms_no_other() -> None:
    answers, _ = ask_together(Held(), ["first", "fine", "much too long " * 100, "fine too"])
    with pytest.raises(UsageError):
        answers[2].result()
    for i in (0, 1, 3):
        assert answers[i].result().dense.shape == (1, 16)


def test_different_heads_are_different_calls_and_come_back_right() -> None:
    batching = BatchingEncoder(FakeEncoder())
    with ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(batching.encode_queries, ["a b"], lexical=False) for _ in range(20)]
        rich = [
            pool.submit(batching.encode_queries, ["a b", "c"], lexical=True, multi_vector=True)
            for _ in range(20)
        ]
    for answer in plain:
        assert answer.result().lexical is None
        assert answer.result().multi_vector is None
    for answer in rich:
        assert len(answer.result().multi_vector) == 2
        assert len(answer.result().multi_vector[1]) == 2  # one token and the end


def test_the_rest_is_the_encoder_itself() -> None:
    encoder = FakeEncoder()
    batching = BatchingEncoder(encoder)
    assert batching.info is encoder.info
    assert batching.tokenizer is encoder.tokenizer
    assert batching.token_texts([7]) == ["t7"]
    ids = [encoder.tokenizer.documents(["a b"])[0].ids]
    assert batching.encode_ids(ids, lexical=False).dense.shape == (1, 16)
    batching.close()
    assert encoder.closed
