"""The encoder that index/ and search/ hold: info and tokenizer at once, the weights at the first text."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m3index.encoder import certificate, csr, packing, score
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.encoder.pool import TokenizerPool
from m3index.encoder.recall import Recall, RecallCheck
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MissingHeadError, UsageError
from m3index.types import EncodedBatch, EncoderInfo, FloatArray, IntArray, SparseRows

if TYPE_CHECKING:
    from m3index.encoder.engine import Engine, PackResult, Wanted

_NO_ROWS = SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Settings:
    """What `load.load` takes; `batch_tokens` is the size of one pack."""

    device: str = "auto"
    precision: str = "auto"
    batch_tokens: str | int = "auto"
    tokenizer_processes: int = 0
    trust_remote_code: bool = False


class ModelEncoder:
    """A model directory as an encoder. Implements `encoder.base.Encoder`; made by `encoder.load.load`.

    `info` and `tokenizer` come from the files alone; torch and the weights are loaded at the first
    text that is encoded. Safe to use from several threads.
    """

    def __init__(self, name: str, layout: Layout, settings: Settings) -> None:
        self._layout, self._settings = layout, settings
        processes = settings.tokenizer_processes
        self._tokenizer = TokenizerPool(layout, processes) if processes else ModelTokenizer(layout)
        self._engines: list[Engine] | None = None
        self._lock = threading.Lock()
        self._sampled = self._recall_check() if settings.precision == "int8" else None
        space = layouts.space_digest(layout)
        exact = f"{space} {layout.limit} {settings.precision} {layout.multi_vector is not None}"
        self._info = EncoderInfo(
            name=name,
            dim=layout.dim,
            limit=layout.limit,
            window_reserve=self._tokenizer.reserve,
            lexical=layout.lexical is not None,
            multi_vector=layout.multi_vector is not None,
            space_id=certificate.space_id(layout, own=space),
            encoder_id=hashlib.blake2b(exact.encode(), digest_size=16).hexdigest(),
            parameters=layouts.count_parameters(layout.weights),
        )

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @property
    def tokenizer(self) -> ModelTokenizer:
        return self._tokenizer

    def prepare(self) -> None:
        """Loads the weights, which the first encode would do otherwise."""
        self._loaded()

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs (prompt and special tokens in) in the order given.

        ids: arrays (n_i,) int32. Inputs of any number: peak memory is that of a pack and the results.
        Raises MissingHeadError for a head that the model has not, UsageError for an input over the limit.
        """
        skip = 0 if self._layout.pool_prompt else self._tokenizer.prompt_tokens
        return self._encode(ids, lexical, multi_vector, skip)

    def encode_documents(
        self, texts: Iterable[str], *, lexical: bool | None = None, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes texts with the document prompt. lexical None: if the model has the head.

        A text over the limit is a UsageError: `corpus.windows` splits documents; nothing is cut here.
        """
        lexical = self._info.lexical if lexical is None else lexical
        return self.encode_ids(
            self._tokenizer.document_ids(list(texts)), lexical=lexical, multi_vector=multi_vector
        )

    def encode_queries(
        self, texts: Iterable[str], *, lexical: bool | None = None, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes queries with the model's query prompt. One longer than the limit is a UsageError."""
        lexical = self._info.lexical if lexical is None else lexical
        skip = 0 if self._layout.pool_prompt else self._tokenizer.query_prompt_tokens
        return self._encode(self._tokenizer.query_ids(list(texts)), lexical, multi_vector, skip)

    def dense_documents(self, texts: Iterable[str], *, window: int = 4096) -> Iterator[FloatArray]:
        """Dense vectors (dim,) of any number of texts, in order, `window` texts in memory at a time."""
        for batch in _windows(texts, window):
            yield from self.encode_documents(batch, lexical=False).dense

    def compute_score(
        self, pairs: Sequence[tuple[str, str]], weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> dict[str, FloatArray]:
        """Scores of (query, text) pairs by dense, sparse and colbert and their weighted means.

        weights: of dense, sparse, colbert. Each array has shape (pairs,). See `encoder.score`.
        """
        queries = self.encode_queries([q for q, _ in pairs], lexical=True, multi_vector=True)
        texts = self.encode_documents([t for _, t in pairs], lexical=True, multi_vector=True)
        return score.compute_score(queries, texts, weights)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return self._tokenizer.token_texts(ids)

    def close(self) -> None:
        """Lets go of the weights; the next encode would load them again. May be called twice."""
        with self._lock:
            self._engines = None
        self._tokenizer.close()

    @property
    def recall(self) -> Recall | None:
        """How int8 compares with fp32 on the texts encoded so far; None in other precisions."""
        return None if self._sampled is None else self._sampled.recall

    # -- within

    def _recall_check(self) -> RecallCheck:
        @cache
        def exact() -> ModelEncoder:
            settings = replace(self._settings, precision="fp32", tokenizer_processes=0)
            return ModelEncoder(f"{self._info.name} in fp32", self._layout, settings)

        def reference(ids: Sequence[IntArray], lexical: bool, skip: int) -> EncodedBatch:
            return exact()._encode(ids, lexical, False, skip)

        return RecallCheck(reference, done=exact.cache_clear)

    def _encode(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool, skip: int) -> EncodedBatch:
        self._check(ids, lexical, multi_vector)
        lengths = np.fromiter((len(row) for row in ids), np.int32, len(ids))
        results = self._results(ids, lengths, lexical, multi_vector, skip) if len(ids) else []
        batch = _assemble(results, lengths, self._info.dim, lexical, multi_vector)
        if self._sampled is not None:
            self._sampled.see(ids, batch, skip)
        return batch

    def _check(self, ids: Sequence[IntArray], lexical: bool, multi_vector: bool) -> None:
        for asked, there, what in (
            (lexical, self._info.lexical, "lexical head (sparse_linear)"),
            (multi_vector, self._info.multi_vector, "multi-vector head (colbert_linear)"),
        ):
            if asked and not there:
                raise MissingHeadError(f"{self._info.name} has no {what}, and none is ever made up.")
        longest = max((len(row) for row in ids), default=0)
        if longest > self._info.limit:
            raise UsageError(f"An input of {longest} tokens: {self._info.name} takes {self._info.limit}.")
        if any(len(row) == 0 for row in ids):
            raise UsageError("An input without any token cannot be encoded.")

    def _results(
        self, ids: Sequence[IntArray], lengths: IntArray, lexical: bool, multi_vector: bool, skip: int
    ) -> list[PackResult]:
        from m3index.encoder.engine import Wanted

        engines = self._loaded()
        wanted = Wanted(lexical, multi_vector, skip)
        packs = packing.plan(lengths, min(engine.budget for engine in engines))
        if len(engines) == 1 or len(packs) == 1:
            return list(engines[0].run(ids, packs, wanted))
        return _on_all(engines, ids, packs, wanted)

    def _loaded(self) -> list[Engine]:
        with self._lock:
            if self._engines is None:
                from m3index.encoder import hardware
                from m3index.encoder.engine import Engine

                settings = self._settings
                self._engines = [
                    Engine(
                        self._layout,
                        device,
                        hardware.precision(settings.precision, device, int8=True),
                        batch_tokens=settings.batch_tokens,
                        silent_ids=self._tokenizer.silent_ids,
                        trust_remote_code=settings.trust_remote_code,
                    )
                    for device in hardware.devices(settings.device)
                ]
            return self._engines


def _on_all(
    engines: Sequence[Engine], ids: Sequence[IntArray], packs: list[NDArray[np.int64]], wanted: Wanted
) -> list[PackResult]:
    """Each device takes the next pack when it has room: a thread for each, which waits on its device."""
    queue, lock = iter(packs), threading.Lock()

    def taken() -> Iterator[NDArray[np.int64]]:
        while True:
            with lock:
                item = next(queue, None)
            if item is None:
                return
            yield item

    with ThreadPoolExecutor(len(engines), thread_name_prefix="m3index-device") as pool:
        runs = pool.map(lambda engine: list(engine.run(ids, taken(), wanted)), engines)
        return [result for run in runs for result in run]


def _assemble(
    results: Sequence[PackResult], lengths: IntArray, dim: int, lexical: bool, multi_vector: bool
) -> EncodedBatch:
    n = len(lengths)
    dense = np.empty((n, dim), np.float32)
    vectors: list[FloatArray] = [np.empty((0, 0), np.float32)] * n
    for result in results:
        dense[result.places] = result.dense
        for place, matrix in zip(result.places, result.multi_vector or (), strict=False):
            vectors[place] = matrix
    sparse: SparseRows | None = None
    if lexical:
        parts = [r.lexical for r in results if r.lexical is not None]
        sparse = csr.join_rows(parts, np.concatenate([r.places for r in results])) if parts else _NO_ROWS
    return EncodedBatch(dense, sparse, lengths, vectors if multi_vector else None)


def _windows(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
