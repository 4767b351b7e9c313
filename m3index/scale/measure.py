"""Measures the speed of a model on this machine with a corpus: `m3index models bench`."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, takewhile
from typing import Any

import numpy as np

from m3index.corpus.cut import windows
from m3index.corpus.windows import PassageSize
from m3index.encoder.base import Encoder
from m3index.errors import UsageError
from m3index.progress import Progress, Reporter, Silent
from m3index.types import Document, IntArray, Rejected

MOST_PASSAGES = 20_000
CALL_TOKENS = 8_192
_PADDED_BATCH = 32

_WORDS = [
    "the",
    "sea",
    "rises",
    "and",
    "falls",
    "twice",
    "a",
    "day",
    "der",
    "Mond",
    "zieht",
    "das",
    "Wasser",
    "an",
    "la",
    "marée",
    "monte",
    "et",
    "descend",
    "el",
    "mar",
    "sube",
    "y",
    "baja",
    "приливы",
    "и",
    "отливы",
    "зависят",
    "от",
    "луны",
    "潮汐は月の引力で起こる",
    "바다는",
    "하루에",
    "두",
    "번",
    "البحر",
    "يرتفع",
    "وينخفض",
    "कि",
    "समुद्र",
    "दिन",
    "में",
    "दो",
    "बार",
]


@dataclass(frozen=True, slots=True)
class Measurement:
    """texts, tokens: what was encoded in `seconds`; a text is a passage.

    tokens_p50, tokens_p95, tokens_max: lengths in the sample. tokenise_tokens_s: of the tokenizer alone,
    with windows. load_s: time to the first vector. padded_tokens: tokens that an encoder with batches of 32
    would compute per real token; here it is 1. peak_gib: of this process, without GPU memory.
    """

    encoder: str
    device: str
    precision: str
    lexical: bool
    texts: int
    tokens: int
    seconds: float
    texts_s: float
    tokens_s: float
    tokens_p50: int
    tokens_p95: int
    tokens_max: int
    tokenise_tokens_s: float
    load_s: float
    padded_tokens: float
    peak_gib: float

    def to_json(self) -> dict[str, Any]:
        return {"type": "bench", **asdict(self)}


def synthetic(seed: int = 0) -> Iterator[Document]:
    """Texts in several scripts with log-normal lengths: a median of about 80 words, at most 1,500."""
    random = np.random.default_rng(seed)
    number = 0
    while True:
        words = int(np.clip(random.lognormal(np.log(80), 0.9), 3, 1500))
        yield Document(f"s{number}", " ".join(random.choice(_WORDS, words)))
        number += 1


def measure(
    encoder: Encoder,
    documents: Iterable[Document | Rejected],
    size: PassageSize,
    *,
    seconds: float = 20.0,
    device: str = "auto",
    precision: str = "auto",
    reporter: Reporter | None = None,
) -> Measurement:
    """Encodes passages of the documents for about `seconds`, after a warm-up that is not counted. Raises
    UsageError if they contain no text."""
    reporter = reporter or Silent()
    reporter.stage("loading the model")
    lexical = encoder.info.lexical
    started = time.perf_counter()
    [first] = encoder.tokenizer.documents(["warm up"])
    encoder.encode_ids([first.ids], lexical=lexical)
    load = time.perf_counter() - started
    reporter.stage("tokenising")
    started = time.perf_counter()
    passages = _sample(encoder, documents, size, seconds / 4)
    tokenising = time.perf_counter() - started
    if not passages:
        raise UsageError("The corpus contains no text to measure with.")
    lengths = np.array([len(ids) for ids in passages])
    calls = list(_calls(passages))
    encoder.encode_ids(calls[0][: max(1, len(calls[0]) // 8)], lexical=lexical)
    if precision == "int8":  # the first texts are compared with fp32
        for call in calls[:2]:
            encoder.encode_ids(call, lexical=lexical)
    reporter.stage("encoding")
    texts = tokens = 0
    elapsed = 0.0
    started = time.perf_counter()
    endless = ((None, call) for call in takewhile(lambda _: elapsed < seconds, cycle(calls)))
    for _, encoded in encoder.encode_stream(endless, lexical=lexical):
        elapsed = time.perf_counter() - started
        texts += len(encoded)
        tokens += int(encoded.tokens.sum())
        reporter.progress(Progress(int(elapsed), texts, tokens, total=int(seconds), unit="seconds"))
    return Measurement(
        encoder=encoder.info.name,
        device=device,
        precision=precision,
        lexical=lexical,
        texts=texts,
        tokens=tokens,
        seconds=round(elapsed, 3),
        texts_s=round(texts / elapsed, 2),
        tokens_s=round(tokens / elapsed, 1),
        tokens_p50=int(np.percentile(lengths, 50)),
        tokens_p95=int(np.percentile(lengths, 95)),
        tokens_max=int(lengths.max()),
        tokenise_tokens_s=round(float(lengths.sum()) / tokenising, 1),
        load_s=round(load, 3),
        padded_tokens=round(_padded(lengths), 3),
        peak_gib=round(_peak_bytes() / 2**30, 2),
    )


def _sample(
    encoder: Encoder, documents: Iterable[Document | Rejected], size: PassageSize, seconds: float
) -> Sequence[IntArray]:
    """The first passages of the corpus: as many as can be tokenised in `seconds`."""
    deadline = time.perf_counter() + seconds
    sample: list[IntArray] = []
    good = (item for item in documents if isinstance(item, Document))
    for _, passages in windows(good, encoder.tokenizer, size, lambda _: None):
        sample += [passage.token_ids for passage in passages]
        if len(sample) >= MOST_PASSAGES or time.perf_counter() > deadline:
            break
    return sample


def _calls(passages: Sequence[IntArray]) -> Iterator[list[IntArray]]:
    call: list[IntArray] = []
    tokens = 0
    for ids in passages:
        call.append(ids)
        tokens += len(ids)
        if tokens >= CALL_TOKENS:
            yield call
            call, tokens = [], 0
    if call:
        yield call


def _padded(lengths: Any) -> float:
    batches = [lengths[i : i + _PADDED_BATCH] for i in range(0, len(lengths), _PADDED_BATCH)]
    return float(sum(len(batch) * int(batch.max()) for batch in batches) / lengths.sum())


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
