"""The pieces of a large unigram vocabulary in a database, so that a query needs only those that occur in it.

Of BGE-M3's tokenizer.json nearly all is the vocabulary: 250,002 pieces, which take longer to read than all
else of a search. A unigram model cuts a text into those of its pieces that have the greatest total score; a
piece that does not occur in the text cannot be among them. So the model that has just the pieces of a text
cuts it like the whole one. What is unknown counts a fixed amount less than the lowest score of all; the piece
with that score is therefore always among them.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tokenizers import Tokenizer, models

from m3index.encoder import prepared
from m3index.encoder.layout import Layout
from m3index.encoder.plausible import check_tokenizer, check_tokenizer_file
from m3index.encoder.prepared import PreparedModel

_CONVERTER = 1  # raise it with every change of what is written
_LARGE = 4_000_000  # bytes of a tokenizer.json that takes long to read
_CHARACTERS = 2_000  # of all texts of a call, above which the whole tokenizer is as fast
_KEYS = 500
_PIECES, _REST = "pieces.sqlite", "tokenizer.json"
_UNIGRAM = re.compile(rb'"type"\s*:\s*"Unigram"')
_BYTES = re.compile(rb'"byte_fallback"\s*:\s*true')


@dataclass(frozen=True, slots=True)
class PieceEncoding:
    """Like an encoding of the library `tokenizers`. offsets: (start, end) in characters."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Pieces:
    """The tokenizer of a prepared directory, for a few short texts. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        rest = json.loads((directory / _REST).read_text("utf-8"))
        self._added: dict[str, int] = rest.pop("added_tokens")
        self._unknown, self._lowest = rest.pop("unknown"), rest.pop("lowest")
        self._longest: int = rest.pop("longest")
        self._tokenizer = Tokenizer.from_str(json.dumps(rest))
        check_tokenizer(self._tokenizer, directory)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lock = threading.Lock()
        uri = f"file:{quote(str(directory / _PIECES))}?mode=ro&immutable=1"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)

    def token_to_id(self, token: str) -> int | None:
        if token in self._added:
            return self._added[token]
        return next((i for i, _, _ in self._rows("piece", [token])), None)

    def id_to_token(self, token_id: int) -> str | None:
        added = next((token for token, i in self._added.items() if i == token_id), None)
        return added or next((piece for _, piece, _ in self._rows("id", [token_id])), None)

    def encode(self, texts: Sequence[str]) -> list[PieceEncoding] | None:
        """Encodes texts with their special tokens. None for what the whole tokenizer has to encode: long
        texts, and those that contain a special token."""
        if sum(map(len, texts)) > _CHARACTERS:
            return None
        words: set[str] = set()
        for text in texts:
            normal = self._tokenizer.normalizer.normalize_str(text) if self._tokenizer.normalizer else text
            if any(token in text or token in normal for token in self._added):
                return None
            splitter = self._tokenizer.pre_tokenizer
            words |= {word for word, _ in splitter.pre_tokenize_str(normal)} if splitter else {normal}
        always = self._rows("id", [self._unknown, self._lowest])
        rows = sorted({*self._rows("piece", self._substrings(words)), *always})
        ids = [i for i, _, _ in rows]
        model = models.Unigram(
            [(piece, score) for _, piece, score in rows], ids.index(self._unknown), byte_fallback=False
        )
        with self._lock:
            self._tokenizer.model = model
            encodings = self._tokenizer.encode_batch(list(texts))
        return [
            PieceEncoding(
                [
                    i if special else ids[i]  # the ids of special tokens do not come from the model
                    for i, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
                ],
                encoding.offsets,
            )
            for encoding in encodings
        ]

    def _substrings(self, words: Iterable[str]) -> list[str]:
        return list(
            {
                word[start:end]
                for word in words
                for start in range(len(word))
                for end in range(start + 1, min(len(word), start + self._longest) + 1)
            }
        )

    def _rows(self, column: str, keys: Sequence[str | int]) -> list[tuple[int, str, float]]:
        """(id, piece, score) of the pieces with these keys."""
        found: list[tuple[int, str, float]] = []
        with self._lock:
            for start in range(0, len(keys), _KEYS):
                some = keys[start : start + _KEYS]
                query = f"SELECT id, piece, score FROM pieces WHERE {column} IN ({','.join('?' * len(some))})"  # noqa: S608
                found += self._database.execute(query, some).fetchall()
        return found


def pieces(layout: Layout) -> Pieces | None:
    """The pieces of a model's tokenizer in the cache of prepared models; put there at the first call.

    None if that would not be faster, or if the cache cannot be written, which is a warning.
    """
    source = layout.backbone / "tokenizer.json"
    if layout.lower_case or not source.is_file() or source.stat().st_size < _LARGE:
        return None
    name = prepared.model_name(layout.root)
    form = PreparedModel(f"{name}-tokenizer", prepared.key(f"{_CONVERTER}", [source]))
    if not form.directory.is_dir():
        check_tokenizer_file(source)
        text = source.read_bytes()
        if not _UNIGRAM.search(text) or _BYTES.search(text):
            return None
        announcement = f"Preparing the tokenizer of {name}, once, in {prepared.cache_folder()}."
        try:
            if not prepared.prepare_if_possible(form, partial(_convert, source), announcement):
                return None
        except (ArithmeticError, LookupError, TypeError, ValueError, sqlite3.Error):
            return None  # whoever reads the whole file says what is wrong with it
    return Pieces(form.directory)


def _convert(source: Path, target: Path) -> None:
    rest: dict[str, Any] = json.loads(source.read_text("utf-8"))
    vocabulary: list[tuple[str, float]] = rest["model"]["vocab"]
    unknown: int = rest["model"]["unk_id"]
    lowest = min(range(len(vocabulary)), key=lambda i: vocabulary[i][1])
    rest |= {
        "model": rest["model"] | {"vocab": [vocabulary[unknown]], "unk_id": 0},
        "added_tokens": {token["content"]: token["id"] for token in rest["added_tokens"]},
        "unknown": unknown,
        "lowest": lowest,
        "longest": max(len(piece) for piece, _ in vocabulary),
    }
    (target / _REST).write_text(json.dumps(rest), "utf-8")
    with closing(sqlite3.connect(target / _PIECES)) as database:
        database.execute("CREATE TABLE pieces (id INTEGER PRIMARY KEY, piece TEXT, score REAL)")
        rows = ((i, piece, score) for i, (piece, score) in enumerate(vocabulary))
        database.executemany("INSERT INTO pieces VALUES (?, ?, ?)", rows)
        database.execute("CREATE UNIQUE INDEX by_piece ON pieces (piece)")
        database.commit()
