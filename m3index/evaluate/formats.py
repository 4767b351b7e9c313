"""Reads queries and judgements in their usual formats, which are recognised by their content."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import TypeAlias

from m3index.corpus.lines import text_lines
from m3index.errors import UsageError
from m3index.types import Query

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""query_id -> doc_id -> relevance; 0 means judged and not relevant."""


MOST_RELEVANT = 1_000
"""trec_eval holds a number for each level up to the greatest: a document's number in that column would fill
the memory."""


# ----------------------------------------------------------------- queries


def read_queries(path: str | os.PathLike[str]) -> list[Query]:
    """BEIR `queries.jsonl`, `id<TAB>text` lines, or TREC topics (SGML or XML); also with gzip.

    An empty text is kept: the search itself reports that it cannot be used. Raises UsageError, with the
    line, for anything else that is not a query, and for a duplicate id.
    """
    lines = list(text_lines(path))
    match lines[0][1].lstrip()[:1] if lines else "":
        case "":
            raise UsageError(f"{path} has no queries: it is empty.")
        case "{":
            queries = [_json_query(path, number, line) for number, line in lines]
        case "<":
            queries = list(_topics(path, "\n".join(line for _, line in lines)))
        case _:
            queries = [_tsv_query(path, number, line) for number, line in lines]
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            raise UsageError(f"{path} has two queries with the id {query.query_id!r}; make the ids unique.")
        seen.add(query.query_id)
    return queries


def _json_query(path: object, number: int, line: str) -> Query:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path}:{number} is not JSON: {error}.") from None
    id_ = _first(row, "_id", "id", "query_id", "qid")
    text = _first(row, "text", "query")
    if not isinstance(id_, str | int) or isinstance(id_, bool) or not isinstance(text, str):
        raise UsageError(f"{path}:{number} is not a query; it needs `_id` and `text`.")
    return Query(str(id_), text)


def _tsv_query(path: object, number: int, line: str) -> Query:
    id_, tab, text = line.partition("\t")
    if not tab or not id_.strip():
        raise UsageError(f"{path}:{number} is not a query; a line must be an id, a tab, and the text.")
    return Query(id_.strip(), text.strip())


_TOP = re.compile(r"<(top|topic)\b([^>]*)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:Number\s*:)?\s*([^\s<]+)", re.IGNORECASE)
_NUMBER_ATTRIBUTE = re.compile(r"""number\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
_TITLE = re.compile(r"<(?:title|query)>\s*(?:Topic\s*:)?\s*([^<]*)", re.IGNORECASE)


def _topics(path: object, content: str) -> Iterator[Query]:
    """The number and the title of each topic. Classic TREC does not close the inner tags."""
    count = 0
    for top in _TOP.finditer(content):
        count += 1
        number = _NUMBER_ATTRIBUTE.search(top[2]) or _NUMBER.search(top[3])
        title = _TITLE.search(top[3])
        if number is None or title is None:
            raise UsageError(f"{path}: topic {count} has no number or no title.")
        yield Query(number[1], " ".join(unescape(title[1]).split()))
    if not count:
        raise UsageError(f"{path} looks like TREC topics, but contains no <top> or <topic>.")


# ------------------------------------------------------------------- qrels


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """BEIR's `query-id<TAB>corpus-id<TAB>score` with its header, or TREC's four columns; also with gzip."""
    qrels: dict[str, dict[str, int]] = {}
    beir: bool | None = None
    for number, line in text_lines(path):
        if beir is None:
            beir = line.count("\t") == 2
            if line.split("\t")[0] in ("query-id", "query_id", "qid"):
                continue
        columns = line.split("\t") if beir else line.split()
        if len(columns) != (3 if beir else 4):
            raise UsageError(
                f"{path}:{number}: {len(columns)} columns; BEIR's judgements have three, separated by tabs "
                "(query, document, relevance), TREC's have four (query, 0, document, relevance)."
            )
        qrels.setdefault(columns[0], {})[columns[-2]] = _relevance(f"{path}:{number}", columns[-1])
    if not qrels:
        raise UsageError(f"{path} has no judgements.")
    return qrels


def _relevance(where: str, text: str) -> int:
    """A negative one counts as 0, as in trec_eval; TREC Web judges spam -2. Raises UsageError."""
    try:
        level = int(text)
    except ValueError:
        raise UsageError(f"{where}: the relevance {text!r} is not a whole number.") from None
    if level > MOST_RELEVANT:
        raise UsageError(f"{where}: the relevance {level} is too large; at most {MOST_RELEVANT} is used.")
    return max(level, 0)


# ------------------------------------------------------------------ shared


def _first(row: object, *names: str) -> object:
    """The value of the first of these keys that is there and not null."""
    if not isinstance(row, dict):
        return None
    return next((row[name] for name in names if row.get(name) is not None), None)
