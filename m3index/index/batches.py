"""Changed documents -> batches for the encoder -> whole rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeAlias

from m3index.corpus.windows import PassageSize, windows
from m3index.encoder.base import Encoder
from m3index.index.collection import Target
from m3index.index.plan import Change, Planned, Window
from m3index.index.write import READ_ROWS, Rewrite, vector_fields
from m3index.store.base import Store, StoredRow
from m3index.types import EncodedBatch, FloatArray, Passage, Rejected, Row, SparseVector, passage_key

MAX_ROWS = 1000


class Budget:
    """How many tokens a batch has: about two seconds of the encoder's time, so that the device is
    kept busy, and an interrupted run, or a killed one, loses little."""

    seconds = 2.0
    least, most = 4_096, 131_072

    def __init__(self) -> None:
        self.tokens = self.least

    def learn(self, tokens: int, seconds: float) -> None:
        if tokens >= self.tokens // 2:
            wanted = int(self.seconds * tokens / max(seconds, 1e-6))
            self.tokens = min(max(wanted, self.least), self.most, 2 * self.tokens)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that can be written: its passages to encode, or for a change of metadata the
    stored rows (text and vectors) to keep."""

    planned: Planned
    passages: Sequence[Passage] = ()
    kept: Sequence[StoredRow] = ()

    @property
    def tokens(self) -> int:
        return sum(passage.tokens for passage in self.passages)

    @property
    def rows(self) -> int:
        return len(self.passages) or len(self.kept)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch ready to be written; how many tokens were encoded for it, and in how many seconds."""

    documents: Sequence[Rewritten]
    tokens: int
    seconds: float


Batch: TypeAlias = list[Prepared]
Rewritten: TypeAlias = tuple[Planned, Rewrite]
Content: TypeAlias = tuple[str, FloatArray, SparseVector | None]


class Batcher:
    """Turns windows into batches, and batches into rows."""

    def __init__(
        self, store: Store, target: Target, encoder: Encoder, source: str, passages: PassageSize
    ) -> None:
        self.store = store
        self.name = target.name
        self.spec = target.spec
        self.encoder = encoder
        self.source = source
        self.passages = passages
        self.budget = Budget()

    def pack(self, windows: Iterable[Window]) -> Iterator[Window | Batch]:
        """Fills batches up to the token budget, across documents and windows; documents stay whole.

        Each window is passed on first: what it says does not wait for its documents.
        """
        batch: Batch = []
        tokens = rows = 0
        for window in windows:
            yield window
            for item in self._prepare(window.planned):
                if isinstance(item, Window):
                    yield item
                    continue
                batch.append(item)
                tokens += item.tokens
                rows += item.rows
                if tokens >= self.budget.tokens or rows >= MAX_ROWS:
                    yield batch
                    batch, tokens, rows = [], 0, 0
        if batch:
            yield batch

    def encode(
        self, batches: Generator[Window | Batch, None, None], stop: Callable[[], bool]
    ) -> Iterator[Window | Encoded]:
        """Encodes what needs it. Begins no batch after `stop`."""
        with closing(batches):
            for batch in batches:
                if stop():
                    return
                yield batch if isinstance(batch, Window) else self.encode_batch(batch)

    def _prepare(self, planned: Sequence[Planned]) -> Iterator[Prepared | Window]:
        metadata = [p for p in planned if p.change is Change.METADATA]
        content = [p for p in planned if p.change is not Change.METADATA]
        for group in _groups(metadata):
            for item in self._recall(group):
                if item.kept:
                    yield item
                else:
                    content.append(replace(item.planned, change=Change.UPDATED))
        yield from self._cut(content)

    def _recall(self, planned: Sequence[Planned]) -> Iterator[Prepared]:
        """Reads texts and vectors back. A document whose rows are not all there keeps none."""
        ids = {p.key: [passage_key(p.key, o) for o in range(p.stored)] for p in planned}
        fields = ["text", *vector_fields(self.spec)]
        found = self.store.get(self.name, [i for of_one in ids.values() for i in of_one], fields)
        for p in planned:
            complete = all(i in found for i in ids[p.key])
            yield Prepared(p, kept=[found[i] for i in ids[p.key]] if complete else ())

    def _cut(self, planned: Sequence[Planned]) -> Iterator[Prepared | Window]:
        """Splits documents into passages; one that cannot be split stays as it is in the store."""
        by_id = {p.document.doc_id: p for p in planned}
        unfit: list[Rejected] = []
        cut = windows(
            (p.document for p in planned),
            self.encoder.tokenizer,
            self.passages.tokens,
            self.passages.overlap,
            unfit.append,
        )
        for document, passages in cut:
            yield Prepared(by_id[document.doc_id], passages)
        if unfit:
            rows = sum(by_id[r.doc_id].rows for r in unfit if r.doc_id is not None)
            yield Window(rows=rows, rejected=unfit)

    def encode_batch(self, batch: Batch) -> Encoded:
        """Vectors for the passages that need them, and the whole rows of every document."""
        ids = [passage.token_ids for item in batch for passage in item.passages]
        tokens = sum(len(i) for i in ids)
        vectors: Iterator[tuple[FloatArray, SparseVector | None]] = iter(())
        started = time.perf_counter()
        if ids:
            vectors = _vectors(self.encoder.encode_ids(ids, lexical=self.spec.sparse == "lexical"))
        seconds = time.perf_counter() - started
        self.budget.learn(tokens, seconds)
        documents: list[Rewritten] = []
        for item in batch:
            contents = [(row["text"], row["dense"], row.get("lexical")) for row in item.kept]
            contents += [(passage.text, *next(vectors)) for passage in item.passages]
            rewrite = Rewrite(item.planned.key, self._rows(item.planned, contents), item.planned.stored)
            documents.append((item.planned, rewrite))
        return Encoded(documents, tokens, seconds)

    def _rows(self, planned: Planned, contents: Sequence[Content]) -> list[Row]:
        document = planned.document
        return [
            Row(
                passage_id=passage_key(planned.key, ordinal),
                doc_id=document.doc_id,
                ordinal=ordinal,
                source=self.source,
                doc_hash=planned.doc_hash,
                passages=len(contents),
                title=document.title,
                text=text,
                metadata=document.metadata,
                fields=planned.fields,
                dense=dense,
                sparse=sparse,
            )
            for ordinal, (text, dense, sparse) in enumerate(contents)
        ]


def _vectors(encoded: EncodedBatch) -> Iterator[tuple[FloatArray, SparseVector | None]]:
    for i, dense in enumerate(encoded.dense):
        yield dense, encoded.lexical.row(i) if encoded.lexical is not None else None


def _groups(planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Documents whose stored rows add up to at most READ_ROWS, or single ones that have more."""
    group: list[Planned] = []
    rows = 0
    for item in planned:
        if group and rows + item.stored > READ_ROWS:
            yield group
            group, rows = [], 0
        group.append(item)
        rows += item.stored
    if group:
        yield group
