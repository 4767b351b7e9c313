"""The compiled map of characters, read by two libraries."""

from __future__ import annotations

import base64
import json

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.encoder import charsmap
from m3index.encoder.charsmap import compiled, with_compositions


def normalizer(rules: dict[str, str]) -> tokenizers.normalizers.Precompiled:
    return tokenizers.normalizers.Precompiled(compiled(rules))


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
words = st.text(characters, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    rules=st.dictionaries(characters, st.text(characters, max_size=4), max_size=300), text=st.text(characters)
)
def test_characters_are_replaced(rules: dict[str, str], text: str) -> None:
    """Of a mark that follows a letter, `tokenizers` drops what the rule of the letter does not name."""
    normal = normalizer(rules)
    for character in {*text, *rules}:
        assert normal.normalize_str(character) == rules.get(character, character)


@settings(max_examples=60, deadline=None)
@given(rules=st.dictionaries(words, words, min_size=1, max_size=200))
def test_sentencepiece_reads_back_every_rule(rules: dict[str, str]) -> None:
    """Its own format holds no rule that replaces something by itself."""
    spec = sentencepiece.SentencePieceNormalizer(normalizer_spec=spec_of(compiled(rules)))
    assert dict(spec.Decompile()) == rules


def spec_of(charsmap: bytes) -> bytes:
    """A NormalizerSpec of SentencePiece with this map: field 2 of the message."""
    size, length = len(charsmap), b""
    while size >= 128:
        length += bytes([size & 127 | 128])
        size >>= 7
    return b"\x12" + length + bytes([size]) + charsmap


def test_equal_rules_give_equal_bytes() -> None:
    rules = {"b": "1", "a": "2", "ab": "3"}
    assert compiled(rules) == compiled(dict(reversed(rules.items())))


def test_compositions_are_those_of_sentencepiece() -> None:
    """All that `tokenizers` can look up: sequences of at most five bytes without a shorter rule in front.
    SentencePiece's Unicode is newer, and knows three more letters."""
    theirs = dict(sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc").Decompile())
    table = {written: text for written, text in theirs.items() if len(written) == 1}

    def looked_up(rules: dict[str, str]) -> dict[str, str]:
        return {
            written: text
            for written, text in rules.items()
            if len(written.encode()) <= charsmap.LONGEST
            and written[0] not in "\ua7f1\ua7f2\ua7f3"
            and not any(written[:i] in rules for i in range(1, len(written)))
        }

    assert looked_up(with_compositions(table)) == looked_up(theirs)


@pytest.mark.parametrize(
    ("text", "normal"), [("e\u0301", "é"), ("Ａ\t", "A "), ("\u0001x", "x"), ("ﬁ", "fi")]
)
def test_in_a_tokenizer(text: str, normal: str) -> None:
    rules = with_compositions({"Ａ": "A", "\t": " ", "\u0001": "", "ﬁ": "fi"})
    said = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(compiled(rules)).decode()}
    empty = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]], "byte_fallback": False}
    tokenizer = tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "normalizer": said, "model": empty})
    )
    assert tokenizer.normalizer.normalize_str(text) == normal
