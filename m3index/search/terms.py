"""The words of a text with their places, in any script: what a highlight goes by."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from m3index.store.analyzer import fold

# Scripts written without spaces, where every n neighbouring characters are a term: two where a
# character says much (Han, Kana, Hangul), three where it says little (Thai, Lao, Burmese, Khmer).
_DENSE_SCRIPTS = (
    r"\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_LIGHT_SCRIPTS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"


@dataclass(frozen=True, slots=True)
class Term:
    """A folded word or n-gram, and the characters [start, end) of the text that it stands on."""

    text: str
    start: int
    end: int


def terms(text: str) -> list[Term]:
    """All terms in the order of the text, folded as BM25's input is."""
    found: list[Term] = []
    for match in _pattern().finditer(text):
        start, end = match.span()
        match match.lastgroup:
            case "dense":
                found += _ngrams(text, start, end, 2)
            case "light":
                found += _ngrams(text, start, end, 3)
            case _:
                found.append(Term(fold(match.group()), start, end))
    return found


def _ngrams(text: str, start: int, end: int, n: int) -> list[Term]:
    """Each n characters in turn, with the marks that stand on them; a shorter run stays whole."""
    starts = [i for i in range(start, end) if i == start or not _is_mark(text[i])]
    bounds = [*starts, end]
    if len(starts) <= n:
        return [Term(fold(text[start:end]).strip(), start, end)]
    return [Term(fold(text[a:b]).strip(), a, b) for a, b in zip(starts, bounds[n:], strict=False)]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def _pattern() -> re.Pattern[str]:
    r"""A run of an unspaced script, or a word: `\w` and the marks, which `re` does not count to it."""
    marks = "".join(re.escape(c) for c in map(chr, range(0x300, 0x10000)) if _is_mark(c))
    letter = rf"(?![{_DENSE_SCRIPTS}{_LIGHT_SCRIPTS}])[\w{marks}]"
    return re.compile(rf"(?P<dense>[{_DENSE_SCRIPTS}]+)|(?P<light>[{_LIGHT_SCRIPTS}]+)|(?:{letter})+")
