"""Words of a corpus replaced with words made of the tokenizer's vocabulary, on subjects drawn from it.

A student learns to put pieces together from the texts that it sees. Of a small corpus, or one of a single
subject, it sees few of its pieces, and it disagrees with its teacher where other texts use the others. What a
text with such words means is of no account: the teacher says what its vectors are. But the texts that people
search are about something, and so are these: the words of one come from the neighbourhood of a piece in the
model's token embeddings. And many of them are rare ones, of several pieces, as the terms of a field are. A
word gives way to words of its own script: a vocabulary of a hundred languages has many that a corpus has not.
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
_WORDS, _ENDINGS = 24, 12  # of a subject
_ASIDE = 0.25  # the share of a text's words that are on its second subject
_RARE = (0.3, 0.5, 0.7)  # a text draws which of these is the share of its words that no vocabulary has whole
_PLAIN = 0.75  # the share of words among what replaces them
_SHORTEST, _LONGEST = 4, 30  # shorter words are mostly those that hold sentences together; in bytes, letters
_BLOCK = 128  # subjects beside the whole vocabulary at once


_Subject: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The words and the endings near to it, as places in the vocabulary."""


class Replacer:
    """Replaces `share` of the words of a text on average, another share in each; which and with what depends
    on the text alone. Words of a script that the vocabulary has no words of stay."""

    def __init__(self, pieces: Sequence[str], embeddings: FloatArray, share: float) -> None:
        """pieces: the vocabulary as the tokenizer writes it. embeddings: (pieces or more, width) float32.
        Raises UsageError where the vocabulary has no words."""
        first, following, mark = _words(pieces)
        if not len(first):
            raise UsageError("--replace-words: the tokenizer's vocabulary has no words to replace with.")
        self._pieces = [piece.removeprefix(mark) for piece in pieces]
        self._shares = max(0.0, 2 * share - 1), min(1.0, 2 * share)
        self._near = _unit(embeddings)
        self._first, self._following = self._by_script(first), self._by_script(following)
        self._subjects: dict[str, Sequence[_Subject]] = {}

    def __call__(self, text: str, digest: int) -> str:
        """digest: of the text; it draws."""
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
        found = defaultdict(list)
        for i in numbers.tolist():
            found[_script(self._pieces[i])].append(i)
        return {script: np.array(of_it, np.int32) for script, of_it in found.items()}

    def _subject(self, script: str, at: float) -> _Subject:
        """at: in [0, 1), which one of the script's."""
        subjects = self._subjects.get(script)
        if subjects is None:
            first = self._first[script]
            following = self._following.get(script, np.array([], np.int32))
            drawn = np.random.default_rng(0).permutation(np.concatenate([first, following]))[:_SUBJECTS]
            words = _nearest(self._near, drawn, first, _WORDS).tolist()
            endings = _nearest(self._near, drawn, following, _ENDINGS).tolist()
            subjects = self._subjects[script] = list(zip(words, endings, strict=True))
        return subjects[int(at * len(subjects))]

    def _token(self, draw: random.Random, subject: _Subject, rare: float) -> str:
        """A word, or what else there is in texts: numbers, initials, compounds, asides."""
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
        """A piece that begins words; or a rare word, the beginning of one and the end of another and perhaps
        more endings, which the tokenizer takes to pieces as it does the rare words of real texts."""
        words, endings = subject
        word = self._pieces[draw.choice(words)]
        if draw.random() < rare:
            end = self._pieces[draw.choice([*words, *endings])]
            word = word[: draw.randint(1, len(word))] + end[draw.randint(0, max(0, len(end) - 2)) :]
            while endings and draw.random() < rare / 2:
                word += self._pieces[draw.choice(endings)]
        return word


def _words(pieces: Sequence[str]) -> tuple[IntArray, IntArray, str]:
    """The pieces that begin words and those that go on with them, letters only, and the mark of one of the
    kinds. WordPiece marks the latter with ##, SentencePiece and byte-level BPE the former with ▁ and Ġ."""
    mark = max(("##", "▁", "Ġ"), key=lambda m: sum(piece.startswith(m) for piece in pieces))
    marked: list[int] = []
    others: list[int] = []
    for i, piece in enumerate(pieces):
        plain = piece.removeprefix(mark)
        # Letters of byte-level BPE that are not ASCII are bytes.
        if plain.isalpha() and (mark != "Ġ" or plain.isascii()):
            (marked if piece.startswith(mark) else others).append(i)
    first, following = (others, marked) if mark == "##" else (marked, others)
    long = [i for i in first if len(pieces[i].removeprefix(mark).encode()) >= _SHORTEST - 1]
    return np.array(long, np.int32), np.array(following, np.int32), mark


def _script(word: str) -> str:
    """Of its first letter, as Unicode names letters (LATIN, CYRILLIC, HANGUL); empty where it has none."""
    letter = next(filter(str.isalpha, word), None)
    return "" if letter is None else unicodedata.name(letter, "").split(" ")[0].split("-")[0]


def _unit(embeddings: FloatArray) -> FloatArray:
    """Without what all tokens share, of unit norm."""
    unit: FloatArray = embeddings - embeddings.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    return unit


def _nearest(unit: FloatArray, subjects: IntArray, candidates: IntArray, count: int) -> NDArray[np.int32]:
    """(subjects, count): the candidates nearest to each subject by cosine, or all where they are fewer."""
    if len(candidates) <= count:
        return np.tile(candidates, (len(subjects), 1))
    targets = unit[candidates].T
    found = [
        candidates[np.argpartition(-(unit[subjects[i : i + _BLOCK]] @ targets), count)[:, :count]]
        for i in range(0, len(subjects), _BLOCK)
    ]
    return np.concatenate(found)
