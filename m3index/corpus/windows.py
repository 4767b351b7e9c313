"""Documents -> passages: windows cut at token boundaries. No text is ever dropped.

A passage is encoded as title + newline + text, so the title takes up room in every window. A document
that fits is one passage, tokenised once. For a longer one, windows are planned from the tokens of its
text and cut at the end of a paragraph, sentence, line or word if one is near. Then every window is
tokenised as it will be encoded, and shortened if it has more tokens than planned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.schema import VARCHAR_BYTES
from m3index.types import Document, IntArray, Passage, Rejected, join_title

T = TypeVar("T")

Text = tuple[str, str]
"""The title and the text of a document."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text.

    ids: (n,) int32. offsets: (n, 2) int32, the characters [start, end) of the text that each token
    covers; special tokens and the prompt have (0, 0).
    """

    ids: IntArray
    offsets: NDArray[np.int32]


class Tokenizer(Protocol):
    """What the windows need from a model's tokenizer. The real one is in encoder/."""

    @property
    def limit(self) -> int:
        """The most tokens that the model accepts in one input, including special tokens and prompt."""
        ...

    @property
    def reserve(self) -> int:
        """How many of these the special tokens and the document prompt use."""
        ...

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenises texts as documents: with prompt and special tokens, without truncation."""
        ...

    def cuts(self, calls: Iterable[tuple[T, Sequence[Text]]], size: PassageSize) -> Iterator[tuple[T, Cuts]]:
        """`cut` for a stream of calls: each item with the cuts of its texts, in order. It may read ahead; a
        call without texts is an item that passes through."""
        ...


DEFAULT_TOKENS = 512
DEFAULT_OVERLAP = 64

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 500_000
_PLANNED = 16
"""How many windows of a document are tokenised in one call."""


@dataclass(frozen=True, slots=True)
class PassageSize:
    """tokens: the size of a window, including title, prompt and special tokens. overlap: how many
    tokens neighbours share."""

    tokens: int
    overlap: int


@dataclass(frozen=True, slots=True)
class PassageSettings:
    """The user's settings. tokens: None means the model's limit, but at most 512; `full` means its limit.
    overlap: None means 64, or a quarter of a window smaller than 256. In a collection, None means what the
    collection has, as far as it fits."""

    tokens: int | Literal["full"] | None = None
    overlap: int | None = None

    def resolve(self, tokenizer: Tokenizer, of_collection: PassageSize | None = None) -> PassageSize:
        """The size for this model. Raises UsageError if the model does not allow it."""
        tokens = tokenizer.limit if self.tokens == "full" else self.tokens
        if tokens is None:
            tokens = of_collection.tokens if of_collection else min(tokenizer.limit, DEFAULT_TOKENS)
        if self.overlap is not None:
            overlap = self.overlap
        elif of_collection:
            overlap = min(of_collection.overlap, max(tokens - tokenizer.reserve, 0) // 2)
        else:
            overlap = min(DEFAULT_OVERLAP, tokens // 4)
        _check(tokens, overlap, tokenizer)
        return PassageSize(tokens, overlap)


@dataclass(frozen=True, slots=True)
class Cuts:
    """The passages of some texts, in flat arrays, which cross the border of a process as they are.

    counts: (texts,) the number of passages of each text. spans: (passages, 2) int32, the characters
    [start, end) of the text. bounds: (passages + 1,) int32, where the tokens of each passage are in `ids`.
    problems: why a text cannot be cut, by its number.
    """

    counts: IntArray
    spans: NDArray[np.int32]
    bounds: IntArray
    ids: IntArray
    problems: Mapping[int, str] = field(default_factory=dict)

    def passages(self, texts: Iterable[str]) -> Iterator[list[Passage]]:
        """The passages of each text."""
        spans, bounds, ids = self.spans.tolist(), self.bounds.tolist(), self.ids
        at = 0
        for text, count in zip(texts, self.counts.tolist(), strict=True):
            yield [
                Passage(ordinal, text[start:end], start, end, ids[bounds[i] : bounds[i + 1]])
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


class UnfitError(ValueError):
    """A document that cannot be cut into windows of this size. The message is the reason."""


def windows(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    size: int,
    overlap: int,
    rejected: Callable[[Rejected], None] | None = None,
) -> Iterator[tuple[Document, list[Passage]]]:
    """Each document with its passages, in order. Every character of the text is in at least one passage;
    a passage has at most `size` tokens, and title + newline + text has at most 65,535 bytes.

    Documents are tokenised in batches, which does not affect the results. Neighbouring passages share
    about `overlap` tokens (fewer if the title leaves room for less than twice that).

    If a document needs several windows and its title takes more than half of each, too little room is left
    for the text. Such a document is left out and goes to `rejected` with the reason; without `rejected`
    it is an UnfitError. Raises UsageError for an impossible size or overlap.
    """
    stream = cut_stream(documents, lambda document: document, tokenizer, PassageSize(size, overlap))
    for document, found in stream:
        assert found is not None  # each item is a document
        if not found.problem:
            yield document, list(found.passages)
        elif rejected is not None:
            rejected(Rejected.of(document, found.problem))
        else:
            raise UnfitError(found.problem)


def speakable(text: str) -> str:
    """Replaces each lone surrogate, which UTF-8 lacks, with one U+FFFD, which preserves the offsets."""
    return _SURROGATE.sub("\ufffd", text)


def cut_stream(
    items: Iterable[T], document_of: Callable[[T], Document | None], tokenizer: Tokenizer, size: PassageSize
) -> Iterator[tuple[T, CutDocument | None]]:
    """Each item with its document cut into passages, in order; an item without a document (None) passes
    through. Raises UsageError for an impossible size.

    The documents are tokenised in batches, perhaps some of them ahead, which does not affect the results.
    """
    _check(size.tokens, size.overlap, tokenizer)
    batches = ((batch, batch.texts) for batch in _batches(items, document_of))
    for batch, found in tokenizer.cuts(batches, size):
        passages = found.passages(text for _, text in batch.texts)
        for number, item in enumerate(batch.items):
            yield item, CutDocument(next(passages), found.problems.get(number, ""))
        if batch.last is not None:
            yield batch.last[0], None


def cut(texts: Sequence[Text], tokenizer: Tokenizer, size: PassageSize) -> Cuts:
    """Cuts some texts, which should be a few hundred: they are tokenised together."""
    cutters = [_Cutter(title, text, tokenizer, size) for title, text in texts]
    _try_whole(cutters, tokenizer)
    while waiting := [cutter for cutter in cutters if not cutter.done]:
        _next_windows(waiting, tokenizer)
    problems = {number: cutter.problem for number, cutter in enumerate(cutters) if cutter.problem}
    good = [cutter for cutter in cutters if not cutter.problem]
    ids = [row for cutter in good for row in cutter.ids]
    spans = [span for cutter in good for span in cutter.spans]
    bounds = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, ids), np.int32, len(ids)), out=bounds[1:])
    return Cuts(
        np.array([0 if cutter.problem else len(cutter.spans) for cutter in cutters], np.int32),
        np.array(spans, np.int32).reshape(-1, 2),
        bounds,
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        problems,
    )


def _check(size: int, overlap: int, tokenizer: Tokenizer) -> None:
    room = size - tokenizer.reserve
    if size > tokenizer.limit:
        raise UsageError(f"Passages of {size} tokens exceed the model's limit of {tokenizer.limit}.")
    if room < 1:
        raise UsageError(
            f"Passages of {size} tokens leave no room for text: the prompt and special tokens take "
            f"{tokenizer.reserve}."
        )
    if not 0 <= overlap <= room // 2:
        raise UsageError(
            f"An overlap of {overlap} tokens does not fit passages of {size}; it must be 0 to {room // 2}."
        )


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
        texts.append((document.title, document.text))
        characters += len(document.title) + len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield _TextBatch(batch, texts, None)
            batch, texts, characters = [], [], 0
    if batch:
        yield _TextBatch(batch, texts, None)


def _try_whole(cutters: Sequence[_Cutter], tokenizer: Tokenizer) -> None:
    """Tokenises in one call what may fit one passage, and makes it one if it does; measures the others."""
    whole = [cutter for cutter in cutters if cutter.may_be_whole]
    for cutter, tokens in zip(whole, tokenizer.documents([c.input(0) for c in whole]), strict=True):
        cutter.take_whole(tokens)
    long = [cutter for cutter in cutters if not cutter.done]
    for cutter, head in zip(long, tokenizer.documents([c.head for c in long]), strict=True):
        if not cutter.may_be_whole:
            cutter.starts = _starts_in_parts(cutter.text, tokenizer)
        cutter.measure(head)


def _starts_in_parts(text: str, tokenizer: Tokenizer) -> NDArray[np.int32]:
    """Where the tokens of a text of any length start. Works in parts, to bound the tokenizer's memory."""
    starts, begin = [], 0
    while begin < len(text):
        end = min(begin + VARCHAR_BYTES, len(text))
        if end < len(text):
            end = _boundary(text, end - VARCHAR_BYTES // 5, end)
        [tokens] = tokenizer.documents([text[begin:end]])
        starts.append(_starts(tokens, 0) + np.int32(begin))
        begin = end
    return np.concatenate(starts)


def _next_windows(cutters: Sequence[_Cutter], tokenizer: Tokenizer) -> None:
    """Tokenises the next windows of several documents in one call."""
    plans = [cutter.plan() for cutter in cutters]
    inputs = [c.input(*span) for c, plan in zip(cutters, plans, strict=True) for span in plan]
    tokens = iter(tokenizer.documents(inputs))
    for cutter, plan in zip(cutters, plans, strict=True):
        cutter.take(plan, [next(tokens) for _ in plan])


class _Cutter:
    """One document while it is cut into passages.

    covered: how many characters of the text are in the passages so far. Every passage adds to it, so the
    work ends whatever offsets a tokenizer reports; they only guide the cuts. starts: the character at
    which each token of the text starts, ascending.
    """

    starts: NDArray[np.int32]

    def __init__(self, title: str, text: str, tokenizer: Tokenizer, size: PassageSize) -> None:
        self.text, self.tokenizer, self.size, self.overlap = text, tokenizer, size.tokens, size.overlap
        self.head = join_title(title, "")  # the title and its newline, or nothing
        self.spans: list[tuple[int, int]] = []
        self.ids: list[IntArray] = []
        self.problem = ""
        self.covered = self._start = 0
        self._room = 1
        self._reach = VARCHAR_BYTES
        joined = len(self.head) + len(text)
        self.may_be_whole = 4 * joined <= VARCHAR_BYTES or (
            joined <= VARCHAR_BYTES and len(_utf8(self.input(0))) <= VARCHAR_BYTES
        )

    @property
    def done(self) -> bool:
        return bool(self.problem) or self.covered == len(self.text)

    def input(self, start: int, end: int | None = None) -> str:
        """The encoder's input for the text from start to end."""
        return self.head + self.text[start:end]

    def take_whole(self, tokens: Tokens) -> None:
        """Makes the document one passage if it fits."""
        if len(tokens.ids) <= self.size:
            self._accept(0, len(self.text), tokens)
        else:
            self.starts = _starts(tokens, len(self.head))

    def measure(self, head: Tokens) -> None:
        """head: the tokens of everything except the text."""
        title_tokens = len(head.ids) - self.tokenizer.reserve
        title_bytes = len(_utf8(self.head))
        if 2 * title_tokens > self.size - self.tokenizer.reserve or 2 * title_bytes > VARCHAR_BYTES:
            self.problem = (
                f"the title takes {title_tokens} tokens ({title_bytes} bytes), more than half of a "
                f"passage of {self.size} tokens, and leaves too little room for the text"
            )
            return
        self._room = self.size - len(head.ids)
        self._bytes = VARCHAR_BYTES - title_bytes
        self.overlap = min(self.overlap, self._room // 2)

    def plan(self) -> list[tuple[int, int]]:
        """The next windows, as suggested by the tokens of the whole text."""
        spans: list[tuple[int, int]] = []
        start, covered = self._start, self.covered
        while len(spans) < _PLANNED and covered < len(self.text):
            end = self._end(start, covered)
            if end <= covered:
                start = covered
                end = self._end(start, covered)
            spans.append((start, end))
            start, covered = self._after(start, end), end
        return spans

    def take(self, plan: Sequence[tuple[int, int]], tokenised: Sequence[Tokens]) -> None:
        """Accepts windows up to the first that leaves a gap because the one before it was shortened."""
        for (start, end), tokens in zip(plan, tokenised, strict=True):
            if start > self.covered:
                break
            try:
                short, tokens = self._shorten(start, end, tokens)
            except UnfitError as error:
                self.problem = str(error)
                return
            self._learn(end - start, short - start)
            if short <= self.covered:  # only the overlap is left
                self._start = self.covered
                return
            self._accept(start, short, tokens)
        self._start = self._after(self.spans[-1][0], self.covered)

    def _accept(self, start: int, end: int, tokens: Tokens) -> None:
        self.spans.append((start, end))
        self.ids.append(tokens.ids)
        self.covered = end

    def _learn(self, planned: int, fitted: int) -> None:
        """Keeps plans close to what fits, in characters, if the offsets are of little use."""
        self._reach = 2 * fitted if 2 * fitted < planned else max(self._reach, 2 * fitted)

    def _end(self, start: int, covered: int) -> int:
        """Where a window from `start` ends: after `covered` if possible."""
        text = self.text
        after = int(np.searchsorted(self.starts, start)) + self._room
        end = max(int(self.starts[after]), start + 1) if after < len(self.starts) else len(text)
        end = _within_bytes(text, start, min(end, start + self._reach), self._bytes)
        if end == len(text):
            return end
        return _boundary(text, max(end - (end - start) // 5, covered), end)

    def _after(self, start: int, end: int) -> int:
        """Where the window after [start, end) starts: `overlap` tokens before its end, but at most half of
        its tokens, and at the start of a word if one is near."""
        first, last = (int(i) for i in np.searchsorted(self.starts, [start, end]))
        shared = min(self.overlap, (last - first) // 2)
        back = int(self.starts[last - shared]) if shared else end
        if not start < back < end:
            return end
        text = self.text
        if text[back - 1].isspace() or text[back].isspace():
            return back
        space = _SPACE.search(text, back, back + (end - back) // 2)
        return space.end() if space else back

    def _shorten(self, start: int, end: int, tokens: Tokens) -> tuple[int, Tokens]:
        """Moves the end back until the window fits: to where its own tokens suggest, else by halving."""
        attempts = 0
        while (excess := len(tokens.ids) - self.size) > 0:
            if end - start == 1:
                raise UnfitError(
                    f"character {start} alone takes more tokens than fit into a passage of {self.size}"
                )
            starts = _starts(tokens, len(self.head))
            fitting = start + int(starts[-excess]) if excess < len(starts) else start
            if start < fitting < end and attempts < 3:
                end = _boundary(self.text, fitting - (fitting - start) // 5, fitting)
            else:
                end = start + (end - start) // 2
            attempts += 1
            [tokens] = self.tokenizer.documents([self.input(start, end)])
        return end, tokens


def _starts(tokens: Tokens, skip: int) -> NDArray[np.int32]:
    """Where each token of the text starts, after the `skip` characters of the title. Ascending even if
    several tokens share one character or have no offsets."""
    inside = np.flatnonzero(tokens.offsets[:, 1] > skip)
    if not len(inside):
        return np.zeros(0, np.int32)
    starts = tokens.offsets[inside[0] : inside[-1] + 1, 0] - np.int32(skip)
    return np.maximum.accumulate(np.maximum(starts, 0))


def _within_bytes(text: str, start: int, end: int, limit: int) -> int:
    """The last position up to `end` that keeps the text from `start` within `limit` bytes."""
    end = min(end, start + limit)
    if 4 * (end - start) <= limit:
        return end
    data = _utf8(text[start:end])
    return end if len(data) <= limit else start + len(data[:limit].decode("utf-8", "ignore"))


_SPACE = re.compile(r"\s+")
_BOUNDARIES = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraph
    re.compile(r"(?<![.!?…।॥۔؟])[.!?…।॥۔؟]+[\"'”’»)\]]*\s+|[。！？｡]+[”’」』）]*\s*"),  # sentence
    re.compile(r"\n\s*"),
    _SPACE,
)


def _boundary(text: str, low: int, high: int) -> int:
    """The best place to cut in (low, high]: after the last paragraph, else sentence, line or word."""
    for pattern in _BOUNDARIES:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return high


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return speakable(text).encode()
