"""Words of a corpus replaced with words made of the tokenizer's vocabulary.

A student learns to put pieces together from the texts that it sees. Of a small corpus, or one of a single
subject, it sees few of its pieces, and it disagrees with its teacher where other texts use the others. What a
text with such words means is of no account: the teacher says what its vectors are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from m3index.errors import UsageError

_SHORTEST, _LONGEST = 3, 30
_ONE_MORE = 0.35  # words of 1.5 pieces on average, about what the tokenizers make of English


class Replacer:
    """Replaces `share` of the words in every second text; which and with what depends on the text alone."""

    def __init__(self, pieces: Sequence[str], share: float) -> None:
        """pieces: the vocabulary as the tokenizer writes it. Raises UsageError where it has no words."""
        self._first, self._next = _words(pieces)
        self._share = share
        if not self._first:
            raise UsageError("--replace-words: the tokenizer's vocabulary has no words to replace with.")

    def __call__(self, text: str, digest: int) -> str:
        """digest: of the text; it draws."""
        draw = random.Random(digest)  # noqa: S311  (no secret)
        if draw.random() < 0.5:
            return text
        words = text.split()
        return " ".join(
            self._word(draw) if len(word) <= _LONGEST and draw.random() < self._share else word
            for word in words
        )

    def _word(self, draw: random.Random) -> str:
        word = draw.choice(self._first)
        while self._next and draw.random() < _ONE_MORE:
            word += draw.choice(self._next)
        return word


def _words(pieces: Sequence[str]) -> tuple[list[str], list[str]]:
    """The pieces that begin words and those that go on with them, letters only. WordPiece marks the latter
    with ##, SentencePiece and byte-level BPE the former with ▁ and Ġ."""
    marked = {mark: [p.removeprefix(mark) for p in pieces if p.startswith(mark)] for mark in ("##", "▁", "Ġ")}
    mark = max(marked, key=lambda m: len(marked[m]))
    others = [p for p in pieces if not p.startswith(mark)]
    first, following = (others, marked[mark]) if mark == "##" else (marked[mark], others)
    plain = (
        str.isalpha if mark != "Ġ" else lambda p: p.isascii() and p.isalpha()
    )  # its other letters are bytes
    return (
        sorted(p for p in first if len(p) >= _SHORTEST and plain(p)),
        sorted(p for p in following if plain(p)),
    )
