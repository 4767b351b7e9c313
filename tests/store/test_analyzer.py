from __future__ import annotations

import re
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3index.store.analyzer import STEMS, analyzers, bm25_text, fold, folded_words, forms, stem, terms


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
    assert re.findall(r"\w+", fold(text).lower()) == tokens == folded_words(text)


def test_no_character_has_another_lower_case_once_it_is_folded() -> None:
    """Milvus lower-cases what is stored; the terms that the client counts must be the same."""
    folded = {c: fold(c) for c in map(chr, range(sys.maxunicode + 1)) if c.lower() != c or c.casefold() != c}
    assert len(folded) > 1_400
    assert {c: text for c, text in folded.items() if text.lower() != text} == {}
    assert fold("Ꭰ") == fold("ꭰ") == "ꭰ"


@given(st.text())
def test_what_is_stored_has_the_terms(text: str) -> None:
    assert Counter(re.findall(r"\w+", bm25_text(text, STEMS).lower())) == terms(text)


@pytest.mark.parametrize(
    "forms",
    [
        ("обучение", "обучения", "обучением"),
        ("Häuser", "häusern", "Hauserl"),
        ("kitapları", "kitaplar", "kitaplarımız"),
        ("άνθρωπος", "ανθρώπου", "ΑΝΘΡΩΠΟΙ"),
        ("الجامعة", "جامعة", "والجامعات", "بالجامعة", "للجامعه"),
        ("cafétéria", "Cafeterias"),
        ("honey", "honeys"),
        ("cat", "CAT"),
    ],
)
def test_the_forms_of_a_word_have_a_stem_in_common(forms: tuple[str, ...]) -> None:
    stems = {stem(word) for form in forms for word in folded_words(form)}
    assert len(stems) == 1


@pytest.mark.parametrize("others", [("обучение", "общение"), ("cat", "cats"), ("الجامعة", "الجنوب")])
def test_other_words_have_others(others: tuple[str, str]) -> None:
    one, other = ({stem(w) for w in folded_words(text)} for text in others)
    assert one.isdisjoint(other)


def test_the_ngrams_of_unspaced_scripts_are_their_own_stems() -> None:
    for word in folded_words("東京都 กรุงเทพ 대한민국 ガ"):
        assert forms(word) == [word]


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("the", ["the"]),
        ("honey", ["honey"]),
        ("honeys", ["honey"]),
        ("communication", ["commu", "communication"]),
        ("ab1234", ["ab123", "ab1234"]),
        ("r2d2", ["r2d2"]),
        ("việt", ["việt"]),
        ("άνθρωπος", ["ανθρω", "άνθρωπος"]),
        ("والجامعات", ["جامع", "والجامعات"]),
    ],
)
def test_the_tokens_of_a_word(word: str, tokens: list[str]) -> None:
    assert forms(word) == tokens


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
    assert bm25_text("東京都", STEMS) == "東京 京都"
    assert bm25_text("東京都 ABC", "icu") == "東京都 ABC"
    assert set(analyzers()) == {"icu", STEMS}


@pytest.mark.parametrize("hidden", ["\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff", "\u200e"])
def test_invisible_characters_inside_a_word_do_not_hide_it(hidden: str) -> None:
    """Soft hyphens of a word processor, zero-width spaces, joiners, marks of direction."""
    assert terms(f"Donau{hidden}dampf{hidden}schiff") == terms("Donaudampfschiff")
    assert terms(f"信{hidden}息检索") == terms("信息检索")


def test_the_non_joiner_divides_a_persian_word() -> None:
    assert terms("می\u200cخواهم") == terms("می خواهم")
