from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index.store.analyzer import NGRAMS, analyzers, bm25_text, fold, terms


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World", ["hello", "world"]),
        ("東京都は", ["東京", "京都", "都は"]),
        ("猫", ["猫"]),
        ("ＡＢＣ１２３ ｶﾞｷﾞ", ["abc123", "ガギ"]),
        ("iPhone手机壳", ["iphone", "手机", "机壳"]),
        ("대한민국 수도", ["대한", "한민", "민국", "수도"]),
        ("กรุงเทพ", ["กรง", "รงเ", "งเท", "เทพ"]),
        ("ประ", ["ประ"]),
        ("किताबें", ["कतब"]),
        ("عَاصِمَة", ["عاصمة"]),
        ("Tiếng Việt", ["tiếng", "việt"]),
        ("e\u0301te\u0301", ["été"]),
        ("İSTANBUL Straße", ["istanbul", "strasse"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("人々", ["人々"]),
        ("ℌ ㎏ ﬁ Ⅷ", ["h", "kg", "fi", "viii"]),
        ("?! \u0301", []),
        ("", []),
    ],
)
def test_words_as_the_lite_tokenizer_takes_them(text: str, tokens: list[str]) -> None:
    assert re.findall(r"\w+", fold(text).lower()) == tokens
    assert sorted(terms(text).elements()) == sorted(tokens)


@given(st.text())
def test_folding_is_for_documents_and_queries_alike(text: str) -> None:
    folded = fold(text)
    assert re.findall(r"\w+", folded.lower()) == re.findall(r"\w+", folded)
    assert fold(text + " X").endswith(" x")


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=2, max_size=40))
def test_every_two_neighbours_are_a_word(text: str) -> None:
    assert terms(text).total() == len(text) - 1
    assert all(text[i : i + 2] in terms(text) for i in range(len(text) - 1))


def test_only_the_folded_analyzer_folds() -> None:
    assert bm25_text("東京都", NGRAMS) == " 東京 京都 "
    assert bm25_text("東京都 ABC", "icu") == "東京都 ABC"
    assert set(analyzers()) == {"icu", NGRAMS}


@pytest.mark.parametrize("hidden", ["\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff", "\u200e"])
def test_invisible_characters_inside_a_word_do_not_hide_it(hidden: str) -> None:
    """Soft hyphens of a word processor, zero-width spaces, joiners, marks of direction."""
    assert terms(f"Donau{hidden}dampf{hidden}schiff") == terms("Donaudampfschiff")
    assert terms(f"信{hidden}息检索") == terms("信息检索")


def test_the_non_joiner_divides_a_persian_word() -> None:
    assert terms("می\u200cخواهم") == terms("می خواهم")
