"""Changed documents -> batches for the encoder -> complete rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from m3index.corpus.cut import cut_stream
from m3index.corpus.hash import same_content
from m3index.corpus.windows import PassageSize
from m3index.encoder.base import Encoder
from m3index.index.collection import Collection
from m3index.index.kept import KeptVectors, StoredVectors
from m3index.index.plan import Change, DocumentChange, Window
from m3index.index.write import READ_ROWS, DocumentWrite
from m3index.store.base import Store, StoredRow
from m3index.types import (
    Document,
    EncodedBatch,
    FloatArray,
    IntArray,
    Passage,
    Rejected,
    Row,
    RowUpdate,
    SparseVector,
    passage_key,
)

MAX_ROWS = 1000


class Budget:
    """The number of tokens per batch: about two seconds of encoding, which keeps the device busy and limits
    what an interrupted run loses."""

    seconds = 2.0
    least, most = 4_096, 131_072

    def __init__(self) -> None:
        self.tokens = self.least

    def learn(self, tokens: int, seconds: float) -> None:
        if tokens >= self.tokens // 2:
            ideal = int(self.seconds * tokens / max(seconds, 1e-6))
            self.tokens = min(max(ideal, self.least), self.most, 2 * self.tokens)


@dataclass(frozen=True, slots=True)
class PendingDocument:
    """A document to write: its passages or, if only metadata changed, none, because its rows are updated.

    kept: stored rows with the vectors of passages, by ordinal, which are not encoded again.
    """

    planned: DocumentChange
    passages: Sequence[Passage] = ()
    kept: Mapping[int, StoredRow] = field(default_factory=dict)

    @property
    def inputs(self) -> list[IntArray]:
        """What is to be encoded."""
        return [passage.token_ids for passage in self.passages if passage.ordinal not in self.kept]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def rows(self) -> int:
        return self.planned.stored if self.is_update else len(self.passages)

    @property
    def is_update(self) -> bool:
        return self.planned.change is Change.METADATA


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch that is ready to write. documents: those that are written whole. updated: those of which only
    metadata changed. tokens, seconds: what was encoded for it, and how long that took. kept: the number of
    passages of each document, by key, whose vectors are those that were stored."""

    documents: Sequence[tuple[DocumentChange, DocumentWrite[Row]]]
    updated: Sequence[tuple[DocumentChange, DocumentWrite[RowUpdate]]]
    tokens: int
    seconds: float
    kept: Mapping[str, int]


Batch: TypeAlias = list[PendingDocument]
Content: TypeAlias = tuple[str, str, str, FloatArray, SparseVector | None]
"""Breadcrumb, anchor, text and vectors of a row."""


_NO_VECTOR: FloatArray = np.empty(0, np.float32)


class Batcher:
    """Turns windows into batches, and batches into rows."""

    def __init__(
        self,
        store: Store,
        target: Collection,
        encoder: Encoder,
        source: str,
        passages: PassageSize,
        *,
        keeps: bool,
    ) -> None:
        """keeps: whether passages that are stored already keep their vectors; else all are encoded."""
        rate = float(target.properties.get("rate", "0"))
        self.stored = StoredVectors(store, target.name, target.spec, source, rate) if keeps else None
        self.store = store
        self.name = target.name
        self.spec = target.spec
        self.encoder = encoder
        self.source = source
        self.passages = passages
        self.budget = Budget()

    def pack(self, windows: Iterable[Window]) -> Iterator[Window | Batch]:
        """Fills batches up to the token budget, across windows but without splitting documents.

        Yields each window before its documents, so that its counts do not wait for them.
        """
        batch: Batch = []
        tokens = rows = 0
        for item in self._cut(windows):
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
        """Encodes the batches and passes windows through. Starts no batch once `stop` returns True."""
        waited = spent = 0.0

        def calls() -> Iterator[tuple[Window | Batch, list[IntArray]]]:
            nonlocal waited
            while True:
                began = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - began
                if batch is None or stop():
                    return
                yield (
                    batch,
                    [] if isinstance(batch, Window) else [ids for item in batch for ids in item.inputs],
                )

        with closing(batches):
            stream = self.encoder.encode_stream(calls(), lexical=self.spec.sparse == "lexical")
            while True:
                began, waited = time.perf_counter(), 0.0
                found = next(stream, None)
                spent += time.perf_counter() - began - waited
                if found is None:
                    return
                batch, vectors = found
                if isinstance(batch, Window):
                    yield batch
                    continue
                yield self._written(batch, vectors, spent)
                spent = 0.0

    def _cut(self, windows: Iterable[Window]) -> Iterator[Window | PendingDocument]:
        """Each window, then its documents, which may be cut some windows ahead. A rejected document keeps its
        rows in the store."""
        tokenizer = self.encoder.tokenizer
        for item, found in cut_stream(self._to_cut(windows), _document_of, tokenizer, self.passages):
            if isinstance(item, Window):
                yield item
            elif isinstance(item, PendingDocument):
                yield self._checked(item)
            elif found is not None and not found.problem:
                kept = item.vectors.of(item.planned.document.title, found.passages)
                yield self._checked(PendingDocument(item.planned, found.passages, kept=kept))
            elif found is not None:
                planned = item.planned
                yield Window(rows=planned.rows, rejected=[Rejected.of(planned.document, found.problem)])

    def _to_cut(self, windows: Iterable[Window]) -> Iterator[Window | PendingDocument | _ToCut]:
        for window in windows:
            yield window
            content = [p for p in window.planned if p.change is not Change.METADATA]
            for group in _groups([p for p in window.planned if p.change is Change.METADATA]):
                complete = self._complete(group)
                for planned in group:
                    if planned.key in complete:
                        yield PendingDocument(planned)
                    else:
                        content.append(replace(planned, change=Change.UPDATED))
            vectors = KeptVectors() if self.stored is None else self.stored.of(content)
            yield from (_ToCut(planned, vectors) for planned in content)

    def _checked(self, item: PendingDocument) -> PendingDocument | Window:
        """The document, or its rejection if the store would refuse one of its rows once it is encoded."""
        planned = item.planned
        rows: Sequence[Row | RowUpdate]
        if item.is_update:
            rows = _updates(planned)[:1]  # the others have the same content
        else:
            contents = [(p.breadcrumb, p.anchor, p.text, _NO_VECTOR, None) for p in item.passages]
            rows = self._rows(planned, contents)
        for row in rows:
            if reason := self.store.refusal(self.name, row):
                return Window(rows=planned.rows, rejected=[Rejected.of(planned.document, reason)])
        return item

    def _complete(self, planned: Sequence[DocumentChange]) -> set[str]:
        """The keys of the documents that have all their rows, and none of another version."""
        ids = {p.key: [passage_key(p.key, o) for o in range(p.stored)] for p in planned}
        asked = [i for document_ids in ids.values() for i in document_ids]
        rows = self.store.get(self.name, asked, ["doc_hash"])
        complete = set()
        for p in planned:
            versions = [rows[i]["doc_hash"] for i in ids[p.key] if i in rows]
            if len(versions) == p.stored > 0 and all(same_content(v, p.doc_hash) for v in versions):
                complete.add(p.key)
        return complete

    def _written(self, batch: Batch, encoded: EncodedBatch, seconds: float) -> Encoded:
        """The complete rows of the documents of a batch."""
        tokens = int(encoded.tokens.sum())
        self.budget.learn(tokens, seconds)
        vectors = _vectors(encoded)
        documents: list[tuple[DocumentChange, DocumentWrite[Row]]] = []
        updated: list[tuple[DocumentChange, DocumentWrite[RowUpdate]]] = []
        kept: dict[str, int] = {}
        for item in batch:
            planned = item.planned
            if item.is_update:
                kept[planned.key] = planned.stored
                updated.append((planned, DocumentWrite(planned.key, _updates(planned), planned.stored)))
                continue
            kept[planned.key] = len(item.kept)
            contents: list[Content] = []
            for p in item.passages:
                row = item.kept.get(p.ordinal)
                found = next(vectors) if row is None else (row["dense"], row.get("lexical"))
                contents.append((p.breadcrumb, p.anchor, p.text, *found))
            rows = self._rows(planned, contents)
            documents.append((planned, DocumentWrite(planned.key, rows, planned.stored)))
        return Encoded(documents, updated, tokens, seconds, kept)

    def _rows(self, planned: DocumentChange, contents: Sequence[Content]) -> list[Row]:
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
                breadcrumb=breadcrumb,
                anchor=anchor,
                text=text,
                metadata=document.metadata,
                fields=planned.fields,
                dense=dense,
                sparse=sparse,
            )
            for ordinal, (breadcrumb, anchor, text, dense, sparse) in enumerate(contents)
        ]


@dataclass(frozen=True, slots=True)
class _ToCut:
    """A document to cut, with the stored vectors that its passages may keep."""

    planned: DocumentChange
    vectors: KeptVectors


def _updates(planned: DocumentChange) -> list[RowUpdate]:
    """The updates of all rows of a document of which only metadata changed."""
    return [
        RowUpdate(
            passage_id=passage_key(planned.key, ordinal),
            doc_hash=planned.doc_hash,
            passages=planned.stored,
            metadata=planned.document.metadata,
            fields=planned.fields,
        )
        for ordinal in range(planned.stored)
    ]


def _document_of(item: Window | PendingDocument | _ToCut) -> Document | None:
    """The document to cut, if the item is one."""
    return item.planned.document if isinstance(item, _ToCut) else None


def _vectors(encoded: EncodedBatch) -> Iterator[tuple[FloatArray, SparseVector | None]]:
    for i, dense in enumerate(encoded.dense):
        yield dense, encoded.lexical.row(i) if encoded.lexical is not None else None


def _groups(planned: Sequence[DocumentChange]) -> Iterator[list[DocumentChange]]:
    """Groups documents with at most READ_ROWS stored rows per group; a larger document is a group alone."""
    group: list[DocumentChange] = []
    rows = 0
    for item in planned:
        if group and rows + item.stored > READ_ROWS:
            yield group
            group, rows = [], 0
        group.append(item)
        rows += item.stored
    if group:
        yield group
