"""One document -> windows cut at token boundaries, each filled as far as possible. No text is ever dropped.

A passage is encoded as title + newline + text, so the title takes up room in every window. A document
that fits is one passage, tokenised once. For a longer one, windows are planned from the tokens of its
text and cut at the end of a paragraph, sentence, line or word if one is near. Then every window is
tokenised as it will be encoded, and shortened if it has more tokens than planned. corpus/structure.py plans
them along the sections of the text instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.schema import VARCHAR_BYTES
from m3index.types import IntArray, join_title

if TYPE_CHECKING:
    from m3index.corpus.cut import Cuts
    from m3index.corpus.options import Division

T = TypeVar("T")

Text = tuple[str, str, str]
"""The title, the text and the format of a document."""

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

PLANNED = 16
"""How many windows of a document are tokenised in one call."""


@dataclass(frozen=True, slots=True)
class PassageSize:
    """tokens: the size of a window, including title, prompt and special tokens. overlap: how many
    tokens neighbours share. by: what decides where a passage ends."""

    tokens: int
    overlap: int
    by: Division


@dataclass(frozen=True, slots=True)
class PassageSettings:
    """The user's settings. tokens: None means the model's limit, but at most 512; `full` means its limit.
    overlap: None means 64, or a quarter of a window smaller than 256. by: None means the structure. In a
    collection, None means what the collection has, as far as it fits."""

    tokens: int | Literal["full"] | None = None
    overlap: int | None = None
    by: Division | None = None

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
        check_size(tokens, overlap, tokenizer)
        return PassageSize(tokens, overlap, self.by or (of_collection.by if of_collection else "structure"))


class UnfitError(ValueError):
    """A document that cannot be cut into windows of this size. The message is the reason."""


def speakable(text: str) -> str:
    """Replaces each lone surrogate, which UTF-8 lacks, with one U+FFFD, which preserves the offsets."""
    return _SURROGATE.sub("\ufffd", text)


def check_size(size: int, overlap: int, tokenizer: Tokenizer) -> None:
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


def starts_in_parts(text: str, tokenizer: Tokenizer) -> NDArray[np.int32]:
    """Where the tokens of a text of any length start. Works in parts, to bound the tokenizer's memory."""
    starts, begin = [], 0
    while begin < len(text):
        end = min(begin + VARCHAR_BYTES, len(text))
        if end < len(text):
            end = boundary(text, end - VARCHAR_BYTES // 5, end)
        [tokens] = tokenizer.documents([text[begin:end]])
        starts.append(_starts(tokens, 0) + np.int32(begin))
        begin = end
    return np.concatenate(starts)


@dataclass(frozen=True, slots=True)
class Head:
    """What a passage is encoded with, before its text. text: the title and the breadcrumb, each with a
    newline, if there is one. room, size: what it leaves for the text, in tokens and bytes."""

    breadcrumb: str
    text: str
    room: int
    size: int


Span: TypeAlias = tuple[int, int, Head]
"""A window that is planned: the characters [start, end) of the text, and its head."""


class TokenCutter:
    """One document while it is cut into passages.

    covered: how many characters of the text are in the passages so far. Every passage adds to it, so the
    work ends whatever offsets a tokenizer reports; they only guide the cuts. starts: the character at
    which each token of the text starts, ascending.
    """

    starts: NDArray[np.int32]

    def __init__(self, text: Text, tokenizer: Tokenizer, size: PassageSize) -> None:
        self.title, self.text, self.format = text
        self.tokenizer, self.size, self.overlap = tokenizer, size.tokens, size.overlap
        self.spans: list[tuple[int, int]] = []
        self.heads: list[Head] = []
        self.ids: list[IntArray] = []
        self.problem = ""
        self.covered = self._start = 0
        self._reach = VARCHAR_BYTES
        joined = len(self.title) + 1 + len(self.text)
        self.may_be_whole = 4 * joined <= VARCHAR_BYTES or (
            joined <= VARCHAR_BYTES and len(_utf8(self.whole)) <= VARCHAR_BYTES
        )

    @property
    def done(self) -> bool:
        return bool(self.problem) or self.covered == len(self.text)

    @property
    def whole(self) -> str:
        """The encoder's input for the document as one passage."""
        return join_title(self.title, "", self.text)

    def take_whole(self, tokens: Tokens) -> None:
        """Makes the document one passage if it fits."""
        skip = len(self.whole) - len(self.text)
        if len(tokens.ids) <= self.size:
            self._accept(0, len(self.text), Head("", self.whole[:skip], 0, 0), tokens)
        else:
            self.starts = _starts(tokens, skip)

    @property
    def breadcrumbs(self) -> list[str]:
        """What passages may be encoded with after the title, the empty one first."""
        return [""]

    def measure(self, heads: Sequence[Tokens]) -> None:
        """heads: the tokens of everything except the text, with each of the breadcrumbs."""
        self._head = self._measured("", heads[0])
        room = self.size - self.tokenizer.reserve
        if 2 * self._head.room < room or 2 * self._head.size < VARCHAR_BYTES:
            title_tokens, title_bytes = room - self._head.room, VARCHAR_BYTES - self._head.size
            self.problem = (
                f"the title takes {title_tokens} tokens ({title_bytes} bytes), more than half of a "
                f"passage of {self.size} tokens, and leaves too little room for the text"
            )

    def _measured(self, breadcrumb: str, tokens: Tokens) -> Head:
        text = join_title(self.title, breadcrumb, "")
        return Head(breadcrumb, text, self.size - len(tokens.ids), VARCHAR_BYTES - len(_utf8(text)))

    def plan(self) -> list[Span]:
        """The next windows, as suggested by the tokens of the whole text."""
        spans: list[Span] = []
        start, covered = self._start, self.covered
        while len(spans) < PLANNED and covered < len(self.text):
            end = self._end(start, covered)
            if end <= covered:
                start = covered
                end = self._end(start, covered)
            spans.append((start, end, self._head))
            start, covered = self._after(start, end), end
        return spans

    def take(self, plan: Sequence[Span], tokenised: Sequence[Tokens]) -> None:
        """Accepts windows up to the first that leaves a gap because the one before it was shortened."""
        for (start, end, head), tokens in zip(plan, tokenised, strict=True):
            if start > self.covered:
                break
            try:
                short, tokens = self._shorten(start, end, head, tokens)
            except UnfitError as error:
                self.problem = str(error)
                return
            self._learn(end - start, short - start)
            if short <= self.covered:  # only the overlap is left
                self._start = self.covered
                return
            self._accept(start, short, head, tokens)
        self._start = self._after(self.spans[-1][0], self.covered)

    def _accept(self, start: int, end: int, head: Head, tokens: Tokens) -> None:
        self.spans.append((start, end))
        self.heads.append(head)
        self.ids.append(tokens.ids)
        self.covered = end

    def _learn(self, planned: int, fitted: int) -> None:
        """Keeps plans close to what fits, in characters, if the offsets are of little use."""
        self._reach = 2 * fitted if 2 * fitted < planned else max(self._reach, 2 * fitted)

    def _end(self, start: int, covered: int) -> int:
        """Where a window from `start` ends: after `covered` if possible."""
        end = self._furthest(start, self._head)
        if end == len(self.text):
            return end
        return boundary(self.text, max(end - (end - start) // 5, covered), end)

    def _furthest(self, start: int, head: Head) -> int:
        """The last position where a window from `start` may end."""
        after = self.tokens_before(start) + head.room
        end = max(int(self.starts[after]), start + 1) if after < len(self.starts) else len(self.text)
        return _within_bytes(self.text, start, min(end, start + self._reach), head.size)

    def tokens_before(self, place: int) -> int:
        """How many tokens of the text start before this character."""
        return int(self.starts.searchsorted(np.int32(place)))  # another type would convert the whole array

    def _after(self, start: int, end: int) -> int:
        """Where the window after [start, end) starts: `overlap` tokens before its end, but at most half of
        its tokens, and at the start of a word if one is near."""
        first, last = self.tokens_before(start), self.tokens_before(end)
        shared = min(self.overlap, self._head.room // 2, (last - first) // 2)
        back = int(self.starts[last - shared]) if shared else end
        if not start < back < end:
            return end
        text = self.text
        if text[back - 1].isspace() or text[back].isspace():
            return back
        space = SPACES.search(text, back, back + (end - back) // 2)
        return space.end() if space else back

    def _shorten(self, start: int, end: int, head: Head, tokens: Tokens) -> tuple[int, Tokens]:
        """Moves the end back until the window fits: to where its own tokens suggest, else by halving."""
        attempts = 0
        while (excess := len(tokens.ids) - self.size) > 0:
            if end - start == 1:
                raise UnfitError(
                    f"character {start} alone takes more tokens than fit into a passage of {self.size}"
                )
            starts = _starts(tokens, len(head.text))
            fitting = start + int(starts[-excess]) if excess < len(starts) else start
            if start < fitting < end and attempts < 3:
                end = self._nearby(start, fitting)
            else:
                end = start + (end - start) // 2
            attempts += 1
            [tokens] = self.tokenizer.documents([head.text + self.text[start:end]])
        return end, tokens

    def _nearby(self, start: int, fitting: int) -> int:
        """Where to end a window that must end at `fitting` at the latest."""
        return boundary(self.text, fitting - (fitting - start) // 5, fitting)


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


_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
SENTENCES = re.compile(r"(?<![.!?…।॥۔؟])[.!?…।॥۔؟]+[\"'”’»)\]]*\s+|[。！？｡]+[”’」』）]*\s*")
LINES = re.compile(r"\n\s*")
SPACES = re.compile(r"\s+")


def boundary(text: str, low: int, high: int) -> int:
    """The best place to cut in (low, high]: after the last paragraph, else sentence, line or word."""
    for pattern in (_PARAGRAPHS, SENTENCES, LINES, SPACES):
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return high


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return speakable(text).encode()
