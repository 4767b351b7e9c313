"""Replaces words of a corpus with words built from the tokenizer's vocabulary, grouped by subject.

A student learns to combine pieces from the texts it sees. In a small corpus, or one on a single subject, it
sees few of its pieces, and it disagrees with its teacher on texts that use the others. The meaning of a text
with replaced words does not matter, because the teacher defines its vectors. But the texts that people search
have a subject, so these have one too: the words of a text come from the neighbourhood of a piece in the
model's token embeddings. Many of them are rare words of several pieces, like technical terms. Words are
replaced within their own script, because a vocabulary of a hundred languages has many scripts that a corpus
lacks.
"""

from __future__ import annotations

import random
import string
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.types import FloatArray, IntArray

_SUBJECTS = 12_288
_WORDS, _ENDINGS = 24, 12  # per subject
_ASIDE = 0.25  # the share of a text's words that belong to its second subject
_RARE = (0.3, 0.5, 0.7)  # each text draws its share of rare words, which span several pieces
_PLAIN = 0.75  # the share of replacements that are words
_SHORTEST, _LONGEST = 4, 30  # in bytes and in letters; shorter words are mostly function words
_BLOCK = 128  # subjects compared with the whole vocabulary at once


_Subject: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The nearby words and endings, as indices into the vocabulary."""


class Replacer:
    """Replaces `share` of the words on average, with a different share in each text. The choices depend only
    on the text. Words stay if the vocabulary has none in their script."""

    def __init__(self, pieces: Sequence[str], embeddings: FloatArray, share: float) -> None:
        """pieces: the vocabulary as the tokenizer writes it. embeddings: (pieces or more, width) float32.
        Raises UsageError if the vocabulary has no words."""
        first, following, mark = _words(pieces)
        if not len(first):
            raise UsageError("--replace-words: the tokenizer's vocabulary has no words. Leave it out.")
        self._pieces = [piece.removeprefix(mark) for piece in pieces]
        self._shares = max(0.0, 2 * share - 1), min(1.0, 2 * share)
        self._near = _unit(embeddings)
        self._first, self._following = self._by_script(first), self._by_script(following)
        self._subjects: dict[str, Sequence[_Subject]] = {}

    def __call__(self, text: str, digest: int) -> str:
        """digest: the digest of the text, which seeds the random choices."""
        draw = random.Random(digest)  # noqa: S311  (no secret)
        share, rare = draw.uniform(*self._shares), draw.choice(_RARE)
        main, second = draw.random(), draw.random()
        words = text.split()
        for i, word in enumerate(words):
            plain = word.strip(string.punctuation)
            if len(plain.encode()) < _SHORTEST or len(plain) > _LONGEST or draw.random() >= share:
                continue
            if (script := _script(plain)) in self._first:
                subject = self._subject(script, second if draw.random() < _ASIDE else main)
                words[i] = word.replace(plain, self._token(draw, subject, rare), 1)
        return " ".join(words)

    def _by_script(self, numbers: IntArray) -> dict[str, IntArray]:
        scripts = defaultdict(list)
        for i in numbers.tolist():
            scripts[_script(self._pieces[i])].append(i)
        return {script: np.array(places, np.int32) for script, places in scripts.items()}

    def _subject(self, script: str, at: float) -> _Subject:
        """at: in [0, 1), selects one of the script's subjects."""
        subjects = self._subjects.get(script)
        if subjects is None:
            first = self._first[script]
            following = self._following.get(script, np.array([], np.int32))
            centres = np.random.default_rng(0).permutation(np.concatenate([first, following]))[:_SUBJECTS]
            words = _nearest(self._near, centres, first, _WORDS).tolist()
            endings = _nearest(self._near, centres, following, _ENDINGS).tolist()
            subjects = self._subjects[script] = list(zip(words, endings, strict=True))
        return subjects[int(at * len(subjects))]

    def _token(self, draw: random.Random, subject: _Subject, rare: float) -> str:
        """A word, or another kind of token in texts: a number, initials, a compound, an aside."""
        kind, word = draw.random(), self._word(draw, subject, rare)
        if kind < _PLAIN:
            return word
        return draw.choice(
            (
                str(draw.randrange(400)),
                f"{10 * draw.random():.2f}",
                "".join(draw.choices(string.ascii_uppercase, k=draw.randint(2, 4)))
                + draw.choice(("", "-1", "2")),
                f"{word}-{self._word(draw, subject, rare)}",
                f"({word})",
            )
        )

    def _word(self, draw: random.Random, subject: _Subject, rare: float) -> str:
        """A piece that begins words, or a rare word: the beginning of one piece, the end of another and
        perhaps further endings. The tokenizer splits it into pieces like the rare words of real texts."""
        words, endings = subject
        word = self._pieces[draw.choice(words)]
        if draw.random() < rare:
            end = self._pieces[draw.choice([*words, *endings])]
            word = word[: draw.randint(1, len(word))] + end[draw.randint(0, max(0, len(end) - 2)) :]
            while endings and draw.random() < rare / 2:
                word += self._pieces[draw.choice(endings)]
        return word


def _words(pieces: Sequence[str]) -> tuple[IntArray, IntArray, str]:
    """The pieces that begin words, those that continue them (both letters only), and the mark of one kind.
    WordPiece marks continuations with ##; SentencePiece and byte-level BPE mark beginnings with ▁ and Ġ."""
    mark = max(("##", "▁", "Ġ"), key=lambda m: sum(piece.startswith(m) for piece in pieces))
    marked: list[int] = []
    others: list[int] = []
    for i, piece in enumerate(pieces):
        plain = piece.removeprefix(mark)
        # Non-ASCII letters in byte-level BPE stand for bytes.
        if plain.isalpha() and (mark != "Ġ" or plain.isascii()):
            (marked if piece.startswith(mark) else others).append(i)
    first, following = (others, marked) if mark == "##" else (marked, others)
    long = [i for i in first if len(pieces[i].removeprefix(mark).encode()) >= _SHORTEST - 1]
    return np.array(long, np.int32), np.array(following, np.int32), mark


def _script(word: str) -> str:
    """The script of its first letter by its Unicode name (LATIN, CYRILLIC, HANGUL), empty without letters."""
    letter = next(filter(str.isalpha, word), None)
    return "" if letter is None else unicodedata.name(letter, "").split(" ")[0].split("-")[0]


def _unit(embeddings: FloatArray) -> FloatArray:
    """The embeddings minus their mean, at unit norm."""
    unit: FloatArray = embeddings - embeddings.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    return unit


def _nearest(unit: FloatArray, subjects: IntArray, candidates: IntArray, count: int) -> NDArray[np.int32]:
    """(subjects, count): the candidates nearest to each subject by cosine, or all if there are fewer."""
    if len(candidates) <= count:
        return np.tile(candidates, (len(subjects), 1))
    targets = unit[candidates].T
    blocks = [
        candidates[np.argpartition(-(unit[subjects[i : i + _BLOCK]] @ targets), count)[:, :count]]
        for i in range(0, len(subjects), _BLOCK)
    ]
    return np.concatenate(blocks)
