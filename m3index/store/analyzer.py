"""The text for BM25: unchanged, or folded by the client if the engine only splits words at spaces.

Milvus Lite has one tokenizer, the regular expression `\\w+`. It splits words at the combining marks of
Hindi, Thai or Arabic, and treats a whole sentence of Chinese or Thai as one word. So the client drops the
marks and writes such runs as overlapping n-grams with spaces, in documents and in queries alike. Each
store chooses (`Store.default_analyzer`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from m3index import schema

NGRAMS = "ngrams"
"""The analyzer whose input the client folds."""

_IDEOGRAPHS = (
    r"\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_SOUTHEAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_RUN = re.compile(f"([{_IDEOGRAPHS}]+)|([{_SOUTHEAST}]+)")
_WORD = re.compile(r"\w+")
_PIECE = re.compile(rf"[{_IDEOGRAPHS}]{{1,4}}|[{_SOUTHEAST}]{{1,8}}|[^\s{_IDEOGRAPHS}{_SOUTHEAST}]+")


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
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if c < "\x80" or not _is_dropped(c))
    return _RUN.sub(lambda run: f" {_ngrams(run[0], 2 if run[1] else 3)} ", text)


def _is_dropped(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("M") or (category == "Cf" and character != "\u200c")


def bm25_text(text: str, analyzer: str) -> str:
    """The text that is stored for BM25 or used as its query."""
    return fold(text) if analyzer == NGRAMS else text


def terms(text: str) -> Counter[str]:
    """The tokens that the `ngrams` analyzer makes from a text, with their counts."""
    return Counter(_WORD.findall(fold(text)))


def words(text: str) -> list[str]:
    """The words of a text in order, as they are written; of unspaced scripts, pieces of about two words."""
    return _PIECE.findall(text)


def _ngrams(run: str, n: int) -> str:
    if len(run) <= n:
        return run
    return " ".join(run[i : i + n] for i in range(len(run) - n + 1))
