"""What holds for any bytes: of the readers, and of the filter builder.

Each function takes the bytes of a fuzzer; where it does not hold, it raises AssertionError, or what escaped.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from m3index.corpus.quarantine import Quarantine
from m3index.corpus.readers import FileCorpus, read
from m3index.errors import FilterError
from m3index.store.filter import All, Expression, In, parse_where, render
from m3index.types import Document, FieldType, Rejected

FIELDS: dict[str, FieldType] = {
    "lang": "str",
    "year": "int",
    "score": "float",
    "open": "bool",
    "tags": "str[]",
}
FORMATS = ("jsonl", "csv", "tsv", "text")
MAX_LINE = 4096


def rows(data: bytes) -> None:
    """The first byte says the format; the rest is the file, which may begin as gzip or zstd data do."""
    if not data:
        return
    kind = FORMATS[data[0] % len(FORMATS)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data[1:])
        file.flush()
        types: dict[str, FieldType] = {"year": "int", "tags": "str[]"}
        found = items(read([file.name], format=kind, fields=types, max_line=MAX_LINE))
    again = replayed(found)
    if kind == "jsonl":  # elsewhere a bad row can be a good line of JSON
        assert all(isinstance(item, Rejected) for item in again)


def parquet(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(data)
        file.flush()
        replayed(items(read([file.name], max_line=MAX_LINE)))


def items(corpus: FileCorpus) -> list[Document | Rejected]:
    """The corpus, read to its end without an exception, its documents fit to be indexed."""
    found = list(corpus)
    documents = [item for item in found if isinstance(item, Document)]
    assert (corpus.documents, corpus.rejected) == (len(documents), len(found) - len(documents))
    assert len(corpus.read_errors) <= 1
    for document in documents:
        assert document.doc_id
        for text in (document.doc_id, document.text, document.title):
            text.encode("utf-8")
        json.dumps(dict(document.metadata), allow_nan=False)
    for item in found:
        if isinstance(item, Rejected):
            assert item.reason
            assert len(item.raw) <= 1 << 20
    return found


def replayed(found: list[Document | Rejected]) -> list[Document | Rejected]:
    """What is read of the quarantine file of what was rejected: an item for each."""
    rejected = [item for item in found if isinstance(item, Rejected)]
    if not rejected:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quarantine.jsonl"
        with Quarantine(path) as quarantine:
            for item in rejected:
                quarantine.add(item)
        assert path.read_bytes().count(b"\n") == len(rejected)
        again = items(read([path]))
    assert len(again) == len(rejected)
    return again


def filters(data: bytes) -> None:
    """A condition and an expression, as a user or a program gives them, beside a condition that must hold."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        condition = parse_where(text, FIELDS)
    except FilterError:
        pass
    else:
        said = rendered(condition)
        if said is not None:
            assert re.fullmatch(CONDITION, skeleton(said)), said
            inside(said)
        values = condition.values if isinstance(condition, In) else [condition.value]  # type: ignore[union-attr]
        for value in values:
            if isinstance(value, str) and said is not None:
                assert value in [json.loads(literal, strict=False) for literal in STRING.findall(said)]
    said = rendered(Expression(text))
    if said is not None:
        assert said == text
        inside(said)


NAME = r"[A-Za-z_]\w*"
VALUE = r"(?:S|true|false|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
CONDITION = (
    rf"{NAME} (?:==|!=|<=?|>=?) {VALUE}|{NAME} in \[{VALUE}(?:, {VALUE})*\]"
    rf"|array_contains_any\({NAME}, \[{VALUE}(?:, {VALUE})*\]\)|array_contains\({NAME}, {VALUE}\)"
    rf"|\({NAME} is not null and not array_contains\({NAME}, {VALUE}\)\)"
)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def rendered(where: object) -> str | None:
    try:
        return render(where)  # type: ignore[arg-type]
    except FilterError:
        return None


def skeleton(expression: str) -> str:
    return STRING.sub("S", expression)


def inside(said: str) -> None:
    """Put in parentheses beside another condition, the expression ends where its parenthesis does: read
    character by character, as a lexer does."""
    whole = render(All([Expression("secret == 1"), Expression(said)]))
    start = whole.index(f"({said})", len("(secret == 1) and "))
    depth, quote, escaped, ended = 0, "", False, None
    for place, character in enumerate(whole[start:]):
        if quote:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                ended = place
                break
    assert not quote, said
    assert ended == len(said) + 1, said


TARGETS: dict[str, Callable[[bytes], None]] = {"rows": rows, "parquet": parquet, "filter": filters}
