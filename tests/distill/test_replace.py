from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index.distill.replace import Replacer
from m3index.errors import UsageError

PIECES = {
    "WordPiece": ["[CLS]", "!", "kin", "ase", "the", "##ase", "##ly", "##1", "of"],
    "SentencePiece": ["<s>", "▁", "▁kin", "▁the", "ase", "ly", "1", "▁of"],
    "BPE": ["<s>", "Ġkin", "Ġthe", "ase", "ly", "Ġof", "ĠÃ©t", "Ã©"],
}
TEXT = "a text of some words that say little " * 5


def made(replacer: Replacer, texts: int = 200) -> list[str]:
    return [replacer(TEXT, digest) for digest in range(texts)]


@pytest.mark.parametrize("kind", PIECES)
def test_words_are_made_of_the_vocabulary_letters_only(kind: str) -> None:
    new = {word for text in made(Replacer(PIECES[kind], 0.5)) for word in text.split()} - set(TEXT.split())
    starts = ("kin", "the") if kind != "WordPiece" else ("kin", "the", "ase")
    assert {w for w in new if w in starts} == set(starts)
    for word in new:
        assert word.startswith(starts)
        rest = word.removeprefix(next(s for s in starts if word.startswith(s)))
        assert not rest.replace("ase", "").replace("ly", "")


def test_the_share_and_every_second_text() -> None:
    texts = made(Replacer(PIECES["WordPiece"], 0.4), 400)
    touched = [text for text in texts if text != TEXT]
    assert 150 < len(touched) < 250
    words = TEXT.split()
    changed = [sum(a != b for a, b in zip(text.split(), words, strict=True)) / len(words) for text in touched]
    assert 0.35 < sum(changed) / len(changed) < 0.45


@given(st.text(), st.integers(0, 2**64 - 1))
def test_the_same_text_becomes_the_same(text: str, digest: int) -> None:
    one, other = (Replacer(pieces, 0.5) for pieces in (PIECES["BPE"], PIECES["BPE"][::-1]))
    assert one(text, digest) == other(text, digest)
    assert len(one(text, digest).split()) == len(text.split())


def test_what_is_written_without_spaces_stays() -> None:
    text = "敏捷的棕色狐狸跳过懒狗" * 4
    assert {Replacer(PIECES["SentencePiece"], 1.0)(text, digest) for digest in range(50)} == {text}


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(UsageError, match="no words"):
        Replacer(["<s>", "▁", "1", "##"], 0.5)
