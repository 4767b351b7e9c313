"""The encoder for index/ and search/: info and tokenizer load at once, the weights at the first text."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from m3index import one_shot
from m3index.encoder import certificate, drivers
from m3index.encoder import layout as layouts
from m3index.encoder.base import Wanted
from m3index.encoder.bert import runs_own_code
from m3index.encoder.layout import Layout
from m3index.encoder.options import Loading
from m3index.encoder.pool import TokenizerPool
from m3index.encoder.recall import Recall, RecallCheck
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MismatchError, MissingHeadError, UsageError
from m3index.types import EncodedBatch, EncoderInfo, IntArray

if TYPE_CHECKING:
    from m3index.encoder.engine import Engine
    from m3index.encoder.light import LightModel

T = TypeVar("T")


class ModelEncoder:
    """An encoder for a model directory. Implements `encoder.base.Encoder`; created by `encoder.load.load`.

    `info` and `tokenizer` need only the files; torch and the weights are loaded when the first text is
    encoded. Thread-safe.
    """

    def __init__(self, name: str, layout: Layout, options: Loading) -> None:
        self._layout, self._options = layout, options
        self._tokenizer = TokenizerPool(layout, lambda: self.workers, prepare=not options.no_prepare)
        self._engines: list[Engine] | None = None
        self._light: LightModel | None = None
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

    @property
    def workers(self) -> int:
        asked, device = self._options.workers, self._options.device
        if asked == "auto" and (device == "cpu" or not drivers.may_have_cuda()):
            return 0
        from m3index.encoder import hardware

        return hardware.worker_processes(asked, device)

    def prepare(self) -> None:
        """Loads the weights now instead of at the first encode."""
        if self._light_model() is None:
            self._loaded()

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        """Encodes tokenised inputs, which include prompt and special tokens, and keeps their order.

        ids: any number of (n_i,) int32 arrays. Peak memory is that of one pack plus the results.
        Raises MissingHeadError if the model has no such head, UsageError for an input above the limit.
        """
        return self._encode(ids, self._of_documents(lexical=lexical, multi_vector=multi_vector))

    def encode_stream(
        self, calls: Iterable[tuple[T, Sequence[IntArray]]], *, lexical: bool
    ) -> Iterator[tuple[T, EncodedBatch]]:
        """`encode_ids` for an endless stream of calls: each item with the vectors of its inputs, in order.

        Peak memory is that of a few packs plus their results. Raises the errors of `encode_ids`.
        """
        return self._stream(calls, self._of_documents(lexical=lexical))

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
        wanted = Wanted(lexical=lexical, multi_vector=multi_vector, skip=skip)
        ids = self._tokenizer.query_ids(list(texts))
        batch = self._encoded_lightly(ids, wanted)
        return self._encode(ids, wanted) if batch is None else batch

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
            options = replace(self._options, precision="fp32", workers=0)
            return ModelEncoder(f"{self._info.name} in fp32", self._layout, options)

        def reference(ids: Sequence[IntArray], lexical: bool, skip: int) -> EncodedBatch:
            return exact()._encode(ids, Wanted(lexical=lexical, skip=skip))

        return RecallCheck(reference, done=exact.cache_clear)

    def _light_model(self) -> LightModel | None:
        """The model without torch, for a process that answers one question, if it asks for nothing else."""
        options = self._options
        anyhow = options.device in ("auto", "cpu") and options.precision in ("auto", "bf16")
        own_code = runs_own_code(self._layout, trust_remote_code=options.trust_remote_code)
        if not one_shot.is_brief() or not anyhow or own_code or options.no_prepare:
            return None
        with self._lock:
            if self._light is None and self._engines is None:
                from m3index.encoder.light import light_model

                self._light = light_model(self._layout, self._tokenizer.silent_ids)
            return self._light

    def _encoded_lightly(self, ids: Sequence[IntArray], wanted: Wanted) -> EncodedBatch | None:
        """The vectors of a few texts, without torch. None if torch has to be imported for them."""
        light = None if wanted.multi_vector or not ids else self._light_model()
        if light is None or self._engines is not None:
            return None
        self._check_heads(wanted)
        self._check(ids)
        return light.encode(ids, wanted)

    def _encode(self, ids: Sequence[IntArray], wanted: Wanted) -> EncodedBatch:
        [(_, batch)] = self._stream([(None, ids)], wanted)
        return batch

    def _stream(
        self, calls: Iterable[tuple[T, Sequence[IntArray]]], wanted: Wanted
    ) -> Iterator[tuple[T, EncodedBatch]]:
        """The one way to the devices."""
        self._check_heads(wanted)

        def checked() -> Iterator[tuple[tuple[T, Sequence[IntArray]], Sequence[IntArray]]]:
            for item, ids in calls:
                self._check(ids)
                yield (item, ids), ids

        for (item, ids), batch in self._encoded(checked(), wanted):
            if self._sampled is not None and len(ids):
                self._sampled.see(ids, batch, wanted.skip)
            yield item, batch

    def _encoded(
        self, calls: Iterator[tuple[T, Sequence[IntArray]]], wanted: Wanted
    ) -> Iterator[tuple[T, EncodedBatch]]:
        """Loads the weights for the first call that has inputs."""
        for item, ids in calls:
            if len(ids):
                from m3index.encoder import stream

                yield from stream.encode(self._loaded(), chain([(item, ids)], calls), wanted, self._info.dim)
                return
            yield item, wanted.of_nothing(self._info.dim)

    def _of_documents(self, *, lexical: bool, multi_vector: bool = False) -> Wanted:
        skip = 0 if self._layout.pool_prompt else self._tokenizer.prompt_tokens
        return Wanted(lexical=lexical, multi_vector=multi_vector, skip=skip)

    def _check_heads(self, wanted: Wanted) -> None:
        for requested, available, head in (
            (wanted.lexical, self._info.lexical, "lexical head (sparse_linear)"),
            (wanted.multi_vector, self._info.multi_vector, "multi-vector head (colbert_linear)"),
        ):
            if requested and not available:
                raise MissingHeadError(f"{self._info.name} has no {head}. Use a model that has one.")

    def _check(self, ids: Sequence[IntArray]) -> None:
        longest = max(map(len, ids), default=0)
        if longest > self._info.limit:
            raise UsageError(
                f"An input has {longest} tokens, but {self._info.name} takes {self._info.limit}."
            )
        if not all(map(len, ids)):
            raise UsageError("An input without any tokens cannot be encoded.")
        words = self._layout.config.get("vocab_size")
        if ids and isinstance(words, int) and (largest := int(np.concatenate(ids).max())) >= words:
            raise MismatchError(
                f"The tokenizer of {self._info.name} gives the token {largest:,}, but the model knows "
                f"{words:,} tokens. They are not of the same model."
            )

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
                one_shot.keep()
            return self._engines
