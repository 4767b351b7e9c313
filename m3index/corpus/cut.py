"""Documents -> passages, many at a time: what belongs to a batch is tokenised together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from m3index.corpus.outline import anchors, outline
from m3index.corpus.structure import StructureCutter
from m3index.corpus.windows import (
    PassageSize,
    Text,
    TokenCutter,
    Tokenizer,
    UnfitError,
    check_size,
    starts_in_parts,
)
from m3index.types import Document, IntArray, Passage, Rejected, join_title

T = TypeVar("T")

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 500_000


@dataclass(frozen=True, slots=True)
class Cuts:
    """The passages of some texts, in flat arrays, which cross the border of a process as they are.

    counts: (texts,) the number of passages of each text. spans: (passages, 2) int32, the characters
    [start, end) of the text. bounds: (passages + 1,) int32, where the tokens of each passage are in `ids`.
    places: the breadcrumb and the anchor of each passage. problems: why a text cannot be cut, by its number.
    """

    counts: IntArray
    spans: NDArray[np.int32]
    bounds: IntArray
    ids: IntArray
    places: Sequence[tuple[str, str]]
    problems: Mapping[int, str] = field(default_factory=dict)

    def passages(self, texts: Iterable[str]) -> Iterator[list[Passage]]:
        """The passages of each text."""
        spans, bounds, ids = self.spans.tolist(), self.bounds.tolist(), self.ids
        at = 0
        for text, count in zip(texts, self.counts.tolist(), strict=True):
            yield [
                Passage(ordinal, text[start:end], start, end, ids[bounds[i] : bounds[i + 1]], *self.places[i])
                for ordinal, (i, (start, end)) in enumerate(enumerate(spans[at : at + count], at))
            ]
            at += count


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document that was cut. problem: why it cannot be, and has no passages; empty if it can."""

    passages: Sequence[Passage]
    problem: str = ""


class CutsHere:
    """`Tokenizer.cuts` in this thread, without reading ahead."""

    def cuts(
        self: Tokenizer, calls: Iterable[tuple[T, Sequence[Text]]], size: PassageSize
    ) -> Iterator[tuple[T, Cuts]]:
        for item, texts in calls:
            yield item, cut(texts, self, size)


def windows(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    size: PassageSize,
    rejected: Callable[[Rejected], None] | None = None,
) -> Iterator[tuple[Document, list[Passage]]]:
    """Each document with its passages, in order. Every character of the text is in at least one passage;
    a passage has at most `size.tokens` tokens, and title, breadcrumb and text have at most 65,535 bytes.

    Documents are tokenised in batches, which does not affect the results. Neighbouring passages share
    about `size.overlap` tokens (fewer if the title leaves room for less than twice that); those of different
    sections share none.

    If a document needs several windows and its title takes more than half of each, too little room is left
    for the text. Such a document is left out and goes to `rejected` with the reason; without `rejected`
    it is an UnfitError. Raises UsageError for an impossible size or overlap.
    """
    stream = cut_stream(documents, lambda document: document, tokenizer, size)
    for document, found in stream:
        assert found is not None  # each item is a document
        if not found.problem:
            yield document, list(found.passages)
        elif rejected is not None:
            rejected(Rejected.of(document, found.problem))
        else:
            raise UnfitError(found.problem)


def cut_stream(
    items: Iterable[T], document_of: Callable[[T], Document | None], tokenizer: Tokenizer, size: PassageSize
) -> Iterator[tuple[T, CutDocument | None]]:
    """Each item with its document cut into passages, in order; an item without a document (None) passes
    through. Raises UsageError for an impossible size.

    The documents are tokenised in batches, perhaps some of them ahead, which does not affect the results.
    """
    check_size(size.tokens, size.overlap, tokenizer)
    batches = ((batch, batch.texts) for batch in _batches(items, document_of))
    for batch, found in tokenizer.cuts(batches, size):
        passages = found.passages(text for _, text, _ in batch.texts)
        for number, item in enumerate(batch.items):
            yield item, CutDocument(next(passages), found.problems.get(number, ""))
        if batch.last is not None:
            yield batch.last[0], None


def cut(texts: Sequence[Text], tokenizer: Tokenizer, size: PassageSize) -> Cuts:
    """Cuts some texts, which should be a few hundred: they are tokenised together."""
    cutters = [_CUTTERS[size.by](text, tokenizer, size) for text in texts]
    _try_whole(cutters, tokenizer)
    while waiting := [cutter for cutter in cutters if not cutter.done]:
        _next_windows(waiting, tokenizer)
    problems = {number: cutter.problem for number, cutter in enumerate(cutters) if cutter.problem}
    good = [cutter for cutter in cutters if not cutter.problem]
    ids = [row for cutter in good for row in cutter.ids]
    places = [place for cutter in good for place in _places(cutter)]
    spans = [span for cutter in good for span in cutter.spans]
    bounds = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, ids), np.int32, len(ids)), out=bounds[1:])
    return Cuts(
        np.array([0 if cutter.problem else len(cutter.spans) for cutter in cutters], np.int32),
        np.array(spans, np.int32).reshape(-1, 2),
        bounds,
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        places,
        problems,
    )


_CUTTERS = {"structure": StructureCutter, "tokens": TokenCutter}


def _places(cutter: TokenCutter) -> list[tuple[str, str]]:
    """The breadcrumb and the anchor of each passage."""
    if len(cutter.spans) == 1:
        return [("", "")]
    starts = [start for start, _ in cutter.spans]
    found = cutter.outline if isinstance(cutter, StructureCutter) else outline(cutter.text, cutter.format)
    names = anchors(cutter.text, cutter.format, found, starts)
    return [(head.breadcrumb, name) for head, name in zip(cutter.heads, names, strict=True)]


@dataclass(frozen=True, slots=True)
class _TextBatch(Generic[T]):
    """Documents that are tokenised together. last: the item after them, if it passes through."""

    items: Sequence[T]
    texts: Sequence[Text]
    last: tuple[T] | None


def _batches(items: Iterable[T], document_of: Callable[[T], Document | None]) -> Iterator[_TextBatch[T]]:
    batch: list[T] = []
    texts: list[Text] = []
    characters = 0
    for item in items:
        document = document_of(item)
        if document is None:  # do not let it wait for the documents after it
            yield _TextBatch(batch, texts, (item,))
            batch, texts, characters = [], [], 0
            continue
        batch.append(item)
        texts.append((document.title, document.text, document.format))
        characters += len(document.title) + len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield _TextBatch(batch, texts, None)
            batch, texts, characters = [], [], 0
    if batch:
        yield _TextBatch(batch, texts, None)


def _try_whole(cutters: Sequence[TokenCutter], tokenizer: Tokenizer) -> None:
    """Tokenises in one call what may fit one passage, and makes it one if it does; measures the others."""
    whole = [cutter for cutter in cutters if cutter.may_be_whole]
    for cutter, tokens in zip(whole, tokenizer.documents([c.whole for c in whole]), strict=True):
        cutter.take_whole(tokens)
    long = [cutter for cutter in cutters if not cutter.done]
    breadcrumbs = [cutter.breadcrumbs for cutter in long]
    inputs = [
        join_title(c.title, each, "") for c, all_of in zip(long, breadcrumbs, strict=True) for each in all_of
    ]
    heads = iter(tokenizer.documents(inputs))
    for cutter, all_of in zip(long, breadcrumbs, strict=True):
        if not cutter.may_be_whole:
            cutter.starts = starts_in_parts(cutter.text, tokenizer)
        cutter.measure([next(heads) for _ in all_of])


def _next_windows(cutters: Sequence[TokenCutter], tokenizer: Tokenizer) -> None:
    """Tokenises the next windows of several documents in one call."""
    plans = [cutter.plan() for cutter in cutters]
    inputs = [
        head.text + cutter.text[start:end]
        for cutter, plan in zip(cutters, plans, strict=True)
        for start, end, head in plan
    ]
    tokens = iter(tokenizer.documents(inputs))
    for cutter, plan in zip(cutters, plans, strict=True):
        cutter.take(plan, [next(tokens) for _ in plan])
