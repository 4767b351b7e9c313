"""The words of a text with their positions, in any script; used for highlighting."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from m3index.store.analyzer import fold

# Scripts written without spaces, in which every n adjacent characters are a term: two where a character
# carries much meaning (Han, Kana, Hangul), three where it carries little (Thai, Lao, Burmese, Khmer).
_DENSE_SCRIPTS = (
    r"\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_LIGHT_SCRIPTS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"


@dataclass(frozen=True, slots=True)
class Term:
    """A folded word or n-gram, and its range [start, end) in the text."""

    text: str
    start: int
    end: int


def terms(text: str) -> list[Term]:
    """All terms in text order, folded like the input of BM25."""
    result: list[Term] = []
    for match in _pattern().finditer(text):
        start, end = match.span()
        match match.lastgroup:
            case "dense":
                result += _ngrams(text, start, end, 2)
            case "light":
                result += _ngrams(text, start, end, 3)
            case _:
                result.append(Term(fold(match.group()), start, end))
    return result


def _ngrams(text: str, start: int, end: int, n: int) -> list[Term]:
    """All runs of n characters with their combining marks; a shorter text is one term."""
    starts = [i for i in range(start, end) if i == start or not _is_mark(text[i])]
    bounds = [*starts, end]
    if len(starts) <= n:
        return [Term(fold(text[start:end]).strip(), start, end)]
    return [Term(fold(text[a:b]).strip(), a, b) for a, b in zip(starts, bounds[n:], strict=False)]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def _pattern() -> re.Pattern[str]:
    r"""A run of an unspaced script, or a word: `\w` and combining marks, which `\w` does not match."""
    marks = "".join(re.escape(c) for c in map(chr, range(0x300, 0x10000)) if _is_mark(c))
    letter = rf"(?![{_DENSE_SCRIPTS}{_LIGHT_SCRIPTS}])[\w{marks}]"
    return re.compile(rf"(?P<dense>[{_DENSE_SCRIPTS}]+)|(?P<light>[{_LIGHT_SCRIPTS}]+)|(?:{letter})+")
