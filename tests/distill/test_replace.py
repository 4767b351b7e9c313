from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index.distill import replace as module
from m3index.distill.replace import Replacer
from m3index.errors import UsageError
from m3index.types import FloatArray

PIECES = {
    "WordPiece": ["[CLS]", "!", "kin", "ase", "the", "##ase", "##ly", "##1", "of"],
    "SentencePiece": ["<s>", "▁", "▁kin", "▁the", "ase", "ly", "1", "▁of"],
    "BPE": ["<s>", "Ġkin", "Ġthe", "ase", "ly", "Ġof", "ĠÃ©t", "Ã©"],
}
TEXT = "long texts have some words that tell little " * 5


def scattered(pieces: Sequence[str]) -> FloatArray:
    return np.random.default_rng(0).normal(size=(len(pieces), 8)).astype(np.float32)


def replacer(pieces: Sequence[str], share: float) -> Replacer:
    return Replacer(pieces, scattered(pieces), share)


def made(replace: Replacer, texts: int = 200) -> list[str]:
    return [replace(TEXT, digest) for digest in range(texts)]


@pytest.mark.parametrize("kind", PIECES)
def test_words_are_made_of_the_vocabulary_letters_only(kind: str) -> None:
    """Whole pieces, and rare ones: a beginning, an end, endings."""
    texts = made(replacer(PIECES[kind], 0.5))
    tokens = {token for text in texts for token in text.split()} - set(TEXT.split())
    new = {word for token in tokens for word in re.findall("[a-z]+", token)}
    starts = ("kin", "the") if kind != "WordPiece" else ("kin", "the", "ase")
    parts = {*starts, "ase", "ly"}
    beginnings = {start[:i] for start in starts for i in range(1, len(start) + 1)}
    ends = {part[i:] for part in parts for i in range(len(part) - 1)}
    rare = re.compile(f"({'|'.join(beginnings)})({'|'.join(ends)})(ase|ly)*")
    assert new >= set(starts)
    assert all(word in starts or rare.fullmatch(word) for word in new)
    assert sum(word not in starts for word in new) > 20
    assert max(map(len, new)) > 8


def test_many_words_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a text has drawn; a splice is now and then a whole piece again."""
    pieces = [a + b + c for a in "bcdfgh" for b in "aeiou" for c in "klmn"]
    for share in (0.3, 0.7):
        monkeypatch.setattr(module, "_RARE", (share,))
        words = re.findall(r"(?<![\w(-])[a-z]+(?![\w)-])", " ".join(made(replacer([*pieces, "##st"], 1.0))))
        rare = np.mean([word not in pieces for word in words])
        assert share * 0.7 < rare <= share * 1.1


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_share_is_of_all_words_and_another_in_each_text(share: float) -> None:
    words = TEXT.split()
    changed = [
        np.mean([a != b for a, b in zip(text.split(), words, strict=True)])
        for text in made(replacer(PIECES["WordPiece"], share), 400)
    ]
    assert abs(np.mean(changed) - share) < 0.04
    assert np.std(changed) > 0.1


def test_a_quarter_is_numbers_initials_compounds_and_asides() -> None:
    tokens = " ".join(made(replacer(PIECES["WordPiece"], 1.0), 400)).split()
    kinds = {
        "word": "[a-z]+",
        "number": r"\d+",
        "decimal": r"\d\.\d\d",
        "initials": "[A-Z]{2,4}(-1|2)?",
        "compound": "[a-z]+-[a-z]+",
        "aside": r"\([a-z]+\)",
    }
    shares = {
        kind: sum(bool(re.fullmatch(form, token)) for token in tokens) / len(tokens)
        for kind, form in kinds.items()
    }
    assert shares.pop("word") == pytest.approx(0.75, abs=0.02)
    assert shares == pytest.approx(dict.fromkeys(shares, 0.05), abs=0.015)


def test_none_and_all() -> None:
    assert set(made(replacer(PIECES["WordPiece"], 0.0))) == {" ".join(TEXT.split())}
    assert not set(" ".join(made(replacer(PIECES["WordPiece"], 1.0))).split()) & set(TEXT.split())


def test_short_words_and_marks_stay() -> None:
    text = 'It is "surely" so, (perhaps): we do it.'
    for digest in range(50):
        first, second, quoted, fourth, aside, *rest = replacer(PIECES["BPE"], 1.0)(text, digest).split()
        assert (first, second, fourth, rest) == ("It", "is", "so,", ["we", "do", "it."])
        assert quoted.startswith('"')
        assert quoted.endswith('"')
        assert "surely" not in quoted
        assert aside.startswith("(")
        assert aside.endswith("):")
        assert "perhaps" not in aside


def test_the_words_of_a_text_are_of_two_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces in ten groups; a group has one direction."""
    monkeypatch.setattr(module, "_WORDS", 20)
    monkeypatch.setattr(module, "_ENDINGS", 5)
    letters = "bcdfghjklm"
    pieces = [f"{a}{'aeiou'[i % 5]}{'nrst'[i // 5]}" for a in letters for i in range(20)]
    pieces += [f"##{a}{v}" for a in letters for v in "aeiou"]
    group = [letters.index(piece.removeprefix("##")[0]) for piece in pieces]
    noise = np.random.default_rng(0).normal(size=(len(pieces), 10)) * 0.1
    embeddings = (np.eye(10)[group] + noise).astype(np.float32)
    replace = Replacer(pieces, embeddings, 1.0)
    mains = []
    for digest in range(100):
        starts = [word[0] for word in re.findall("[a-z]+", replace("words " * 60, digest))]
        counts = sorted((starts.count(letter) for letter in set(starts)), reverse=True)
        assert len(counts) <= 2
        assert counts[0] > 30
        mains.append(max(set(starts), key=starts.count))
    assert set(mains) == set(letters)


def test_a_word_gives_way_to_words_of_its_script() -> None:
    pieces = ["▁kin", "▁the", "ase", "▁для", "▁нет", "ость", "▁검색", "▁문서", "에서"]
    replace = replacer(pieces, 1.0)
    found: list[set[str]] = [set(), set(), set()]
    for digest in range(200):
        words = replace("models «модель» 검색엔진은", digest).split()
        for letters, word in zip(found, words, strict=True):
            letters |= set(re.findall(r"[^\W\dA-Z_]", word))
    assert found == [set("kintheas"), set("длянетость"), set("검색문서에")]


def test_words_of_a_script_without_words_in_the_vocabulary_and_numbers_stay() -> None:
    text = "модель 2021 ภาษาไทย 3.1415"
    assert {replacer(PIECES["WordPiece"], 1.0)(text, digest) for digest in range(50)} == {text}


@given(st.text(), st.integers(0, 2**64 - 1))
def test_the_same_text_becomes_the_same(text: str, digest: int) -> None:
    one, other = (replacer(PIECES["BPE"], 0.5) for _ in range(2))
    assert one(text, digest) == other(text, digest)
    assert len(one(text, digest).split()) == len(text.split())


def test_what_is_written_without_spaces_stays() -> None:
    text = "敏捷的棕色狐狸跳过懒狗" * 4
    assert {replacer(PIECES["SentencePiece"], 1.0)(text, digest) for digest in range(50)} == {text}


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(UsageError, match="no words"):
        replacer(["<s>", "▁", "1", "##"], 0.5)
