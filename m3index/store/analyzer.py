"""The text for BM25: unchanged, or folded by the client if the engine only splits words at spaces.

Milvus Lite has one tokenizer, the regular expression `\\w+`. It splits words at the combining marks of
Hindi, Thai or Arabic, and treats a whole sentence of Chinese or Thai as one word. So the client drops the
marks and writes such runs as overlapping n-grams with spaces, in documents and in queries alike. Each
store chooses (`Store.default_analyzer`).

Words of scripts with spaces become stems, so that a question finds the other forms of its words. A stem is
the first five letters of a word, in every language alike: no language has to be known or guessed, neither of
a document, nor of a question of four words, nor of a single word in a text of another language. This is as
good as the stemmers that know each language (docs/results.md; McNamee, Nicholas and Mayfield, "Addressing
morphological variation in alphabetic languages", SIGIR 2009, who call it truncation). Long words, of which a
stem says little, and words with digits stand beside their stems as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

from m3index import schema

STEMS = "stems"
"""The analyzer whose input the client folds."""

_STEM_LETTERS = 5
_ARABIC_LETTERS = 4
_LONG = 8  # letters of a word that stands beside its stem
_ARABIC = re.compile(r"[\u0621-\u064a]+")
_ARABIC_PREFIX = re.compile(r"(?:[وبكف]?ال|لل|و)(?=...)")  # article, preposition, conjunction
_ARABIC_SPELLINGS = str.maketrans("أإآىة", "ااايه")

_IDEOGRAPHS = (
    r"\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_SOUTHEAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
UNSPACED = _IDEOGRAPHS + _SOUTHEAST
"""The characters of scripts that are written without spaces, for a class of a regular expression."""

_RUN = re.compile(f"([{_IDEOGRAPHS}]+)|([{_SOUTHEAST}]+)")
_WORD = re.compile(r"\w+")
_ONE = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_PIECE = re.compile(rf"[{_IDEOGRAPHS}]{{1,4}}|[{_SOUTHEAST}]{{1,8}}|[^\s{UNSPACED}]+")


def analyzers() -> dict[str, dict[str, object]]:
    """The analyzers by name, with their parameters for Milvus."""
    return dict(schema.collection()["analyzers"])


def fold(text: str) -> str:
    """Applies NFKC and case folding, drops combining marks and invisible characters, and writes unspaced
    scripts as spaced n-grams.

    Han, Kana and Hangul become bigrams; Thai, Lao, Khmer and Burmese, whose letters carry less meaning,
    become trigrams. A shorter run stays whole. Letters with a precomposed accent keep it: in Vietnamese
    it distinguishes words. Soft hyphens, zero-width spaces and joiners, and marks of direction stand inside
    words and are no part of them; only the zero-width non-joiner divides, as between the parts of a Persian
    word.
    """
    if text.isascii():
        return text.lower()
    return _RUN.sub(lambda run: f" {_ngrams(run[0], 2 if run[1] else 3)} ", folded(text))


def folded(text: str) -> str:
    """`fold` without its last step: unspaced scripts stay as they are."""
    if text.isascii():
        return text.lower()
    # Case folding makes capitals of Cherokee letters; Milvus lower-cases.
    lower = unicodedata.normalize("NFKC", text).casefold().lower()
    return unicodedata.normalize("NFKC", lower).translate(_KEPT)


class _ByCharacter(dict[int, str]):
    """A table for `str.translate` that is computed as characters occur."""

    def __init__(self, replaced: Callable[[str], str]) -> None:
        self._replaced = replaced

    def __missing__(self, code: int) -> str:
        self[code] = value = self._replaced(chr(code))
        return value


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    is_dropped = category.startswith("M") or (category == "Cf" and character != "\u200c")
    return "" if is_dropped else character


def _bare(character: str) -> str:
    """The letter without its accents. The Cyrillic letters with a breve are letters of their own."""
    base, *marks = list(unicodedata.normalize("NFD", character))
    is_accented = bool(marks) and all("\u0300" <= mark <= "\u036f" for mark in marks)
    return base if is_accented and character not in "йў" else character


_KEPT, _BARE = _ByCharacter(_kept), _ByCharacter(_bare)


def sequence(text: str) -> list[str]:
    """The words of a text, folded as by `fold`, in order; of unspaced scripts, each character by itself."""
    return _ONE.findall(folded(text))


def without_accents(folded: str) -> str:
    return folded if folded.isascii() else folded.translate(_BARE)


def stem(word: str) -> str:
    """The stem of a folded word: the first five letters of a longer one, without accents. An n-gram is its
    own.

    Of an Arabic word, the article and what is written before it are left out, and four letters stay: most
    Arabic roots have three.
    """
    if _RUN.match(word):
        return word
    if _ARABIC.fullmatch(word):
        return _ARABIC_PREFIX.sub("", word.translate(_ARABIC_SPELLINGS), count=1)[:_ARABIC_LETTERS]
    if len(word) <= _STEM_LETTERS:
        return word
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    return word[:_STEM_LETTERS]


def forms(word: str) -> list[str]:
    """The tokens of a folded word: its stem, and the word itself if it is long or has digits."""
    stemmed = stem(word)
    whole = len(word) >= _LONG or (word != stemmed and any(map(str.isdigit, word)))
    return [stemmed, word] if whole and word != stemmed else [stemmed]


def folded_words(text: str) -> list[str]:
    """The words and n-grams of a text, folded, in order."""
    return _WORD.findall(fold(text))


def bm25_text(text: str, analyzer: str) -> str:
    """The text that is stored for BM25 or used as its query."""
    return " ".join(_tokens(text)) if analyzer == STEMS else text


def terms(text: str) -> Counter[str]:
    """The tokens that the `stems` analyzer makes from a text, with their counts."""
    return Counter(_tokens(text))


def _tokens(text: str) -> Iterator[str]:
    return (form for word in folded_words(text) for form in forms(word))


def words(text: str) -> list[str]:
    """The words of a text in order, as they are written; of unspaced scripts, pieces of about two words."""
    return _PIECE.findall(text)


def _ngrams(run: str, n: int) -> str:
    if len(run) <= n:
        return run
    return " ".join(run[i : i + n] for i in range(len(run) - n + 1))
