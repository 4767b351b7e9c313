"""The encoder for index/ and search/: info and tokenizer load at once, the weights at the first text."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m3index.encoder import certificate, csr, packing
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.encoder.options import Loading
from m3index.encoder.pool import TokenizerPool
from m3index.encoder.recall import Recall, RecallCheck
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MismatchError, MissingHeadError, UsageError
from m3index.types import EncodedBatch, EncoderInfo, FloatArray, IntArray, SparseRows

if TYPE_CHECKING:
    from m3index.encoder.engine import Engine, PackResult, Wanted

_NO_ROWS = SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


class ModelEncoder:
    """An encoder for a model directory. Implements `encoder.base.Encoder`; created by `encoder.load.load`.

    `info` and `tokenizer` need only the files; torch and the weights are loaded when the first text is
    encoded. Thread-safe.
    """

    def __init__(self, name: str, layout: Layout, options: Loading) -> None:
        self._layout, self._options = layout, options
        processes = options.tokenizer_processes
        self._tokenizer = TokenizerPool(layout, processes) if processes else ModelTokenizer(layout)
        self._engines: list[Engine] | None = None
        self._lock = threading.Lock()
        self._sampled = self._recall_check() if options.precision == "int8" else None
        space = layouts.space_digest(layout)
        exact = f"{space} {layout.limit} {options.precision} {layout.multi_vector is not None}"
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
        """Loads the weights now instead of at the first encode."""
        self._loaded()

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs, which include prompt and special tokens, and keeps their order.

        ids: any number of (n_i,) int32 arrays. Peak memory is that of one pack plus the results.
        Raises MissingHeadError if the model has no such head, UsageError for an input above the limit.
        """
        skip = 0 if self._layout.pool_prompt else self._tokenizer.prompt_tokens
        return self._encode(ids, lexical, multi_vector, skip)

    def encode_documents(
        self, texts: Iterable[str], *, lexical: bool | None = None, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes texts with the document prompt. lexical None: include it if the model has the head.

        Nothing is truncated: a text above the limit raises UsageError. `corpus.windows` splits documents.
        """
        lexical = self._info.lexical if lexical is None else lexical
        return self.encode_ids(
            self._tokenizer.document_ids(list(texts)), lexical=lexical, multi_vector=multi_vector
        )

    def encode_queries(
        self, texts: Iterable[str], *, lexical: bool | None = None, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes queries with the model's query prompt. Raises UsageError for a query above the limit."""
        lexical = self._info.lexical if lexical is None else lexical
        skip = 0 if self._layout.pool_prompt else self._tokenizer.query_prompt_tokens
        return self._encode(self._tokenizer.query_ids(list(texts)), lexical, multi_vector, skip)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return self._tokenizer.token_texts(ids)

    def close(self) -> None:
        """Releases the weights; a later encode loads them again. Safe to call more than once."""
        with self._lock:
            self._engines = None
        self._tokenizer.close()

    @property
    def recall(self) -> Recall | None:
        """How int8 compares with fp32 on the texts encoded so far. None for other precisions."""
        return None if self._sampled is None else self._sampled.recall

    def _recall_check(self) -> RecallCheck:
        @cache
        def exact() -> ModelEncoder:
            options = replace(self._options, precision="fp32", tokenizer_processes=0)
            return ModelEncoder(f"{self._info.name} in fp32", self._layout, options)

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
        for requested, available, head in (
            (lexical, self._info.lexical, "lexical head (sparse_linear)"),
            (multi_vector, self._info.multi_vector, "multi-vector head (colbert_linear)"),
        ):
            if requested and not available:
                raise MissingHeadError(f"{self._info.name} has no {head}. Use a model that has one.")
        longest = max((len(row) for row in ids), default=0)
        if longest > self._info.limit:
            raise UsageError(
                f"An input has {longest} tokens, but {self._info.name} takes {self._info.limit}."
            )
        if any(len(row) == 0 for row in ids):
            raise UsageError("An input without any tokens cannot be encoded.")
        words = self._layout.config.get("vocab_size")
        if isinstance(words, int) and (largest := max((int(row.max()) for row in ids), default=0)) >= words:
            raise MismatchError(
                f"The tokenizer of {self._info.name} gives the token {largest:,}, but the model knows "
                f"{words:,} tokens. They are not of the same model."
            )

    def _results(
        self, ids: Sequence[IntArray], lengths: IntArray, lexical: bool, multi_vector: bool, skip: int
    ) -> list[PackResult]:
        from m3index.encoder.engine import Wanted

        engines = self._loaded()
        wanted = Wanted(lexical, multi_vector, skip)
        packs = packing.plan(lengths, min(engine.budget for engine in engines))
        if len(engines) == 1 or len(packs) == 1:
            return list(engines[0].run(ids, packs, wanted))
        return _run_on_all(engines, ids, packs, wanted)

    def _loaded(self) -> list[Engine]:
        with self._lock:
            if self._engines is None:
                from m3index.encoder import hardware
                from m3index.encoder.engine import Engine

                options = self._options
                self._engines = [
                    Engine(
                        self._layout,
                        device,
                        hardware.precision(options.precision, device, int8=True),
                        batch_tokens=options.batch_tokens,
                        silent_ids=self._tokenizer.silent_ids,
                        trust_remote_code=options.trust_remote_code,
                        prepare=options.may_prepare,
                    )
                    for device in hardware.devices(options.device)
                ]
            return self._engines


def _run_on_all(
    engines: Sequence[Engine], ids: Sequence[IntArray], packs: list[NDArray[np.int64]], wanted: Wanted
) -> list[PackResult]:
    """Runs one thread per device, which takes the next pack whenever its device has room."""
    queue, lock = iter(packs), threading.Lock()

    def next_packs() -> Iterator[NDArray[np.int64]]:
        while True:
            with lock:
                item = next(queue, None)
            if item is None:
                return
            yield item

    with ThreadPoolExecutor(len(engines), thread_name_prefix="m3index-device") as pool:
        runs = pool.map(lambda engine: list(engine.run(ids, next_packs(), wanted)), engines)
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
