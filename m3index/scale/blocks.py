"""A corpus as consecutive blocks of documents: a block is what becomes one shard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from m3index import schema
from m3index.corpus.hash import doc_hash
from m3index.corpus.windows import PassageSize
from m3index.store.rows import metadata_json
from m3index.types import Document, Rejected, document_key

_BLOCK: Any = schema.load("shard.json")["block"]
DOCUMENTS: int = _BLOCK["documents"]
CHARACTERS: int = _BLOCK["characters"]


@dataclass(frozen=True, slots=True)
class Hashed:
    """A document with its key and its doc hash."""

    document: Document
    key: str
    doc_hash: str


@dataclass(frozen=True, slots=True)
class ShardKey:
    """Which shard, and of what. content: digest of its documents' keys and hashes, in order."""

    number: int
    content: str
    documents: int


@dataclass(frozen=True, slots=True)
class Block:
    """What becomes a shard."""

    shard: ShardKey
    documents: list[Hashed]


@dataclass(frozen=True, slots=True)
class Worker:
    """Which blocks are mine: every `of`-th, from `index`."""

    index: int = 0
    of: int = 1

    def takes(self, number: int) -> bool:
        return number % self.of == self.index


def blocks(
    corpus: Iterable[Document | Rejected],
    source: str,
    size: PassageSize,
    *,
    documents: int = DOCUMENTS,
    rejected: Callable[[int, Rejected], None] = lambda _block, _item: None,
) -> Iterator[Block]:
    """The same corpus comes to the same blocks on any machine. rejected: is told the number of the block
    in which a bad row lies.

    A repeated id stays in: which of the documents counts is known when all shards are loaded.
    """
    number = characters = 0
    kept: list[Hashed] = []
    digest = hashlib.blake2b(digest_size=16)
    for item in corpus:
        if isinstance(item, Document) and (problem := _problem(item)):
            item = Rejected.of(item, problem)
        if isinstance(item, Rejected):
            rejected(number, item)
            continue
        hashed = Hashed(item, document_key(source, item.doc_id), doc_hash(item, size))
        digest.update(content_bytes(hashed.key, hashed.doc_hash))
        kept.append(hashed)
        characters += len(item.text)
        if len(kept) == documents or characters >= CHARACTERS:
            yield Block(ShardKey(number, digest.hexdigest(), len(kept)), kept)
            number, characters, kept = number + 1, 0, []
            digest = hashlib.blake2b(digest_size=16)
    if kept:
        yield Block(ShardKey(number, digest.hexdigest(), len(kept)), kept)


def content_bytes(key: str, doc_hash: str) -> bytes:
    """What a document adds to the digest of its shard."""
    return f"{key}{doc_hash}".encode()


def _problem(document: Document) -> str | None:
    """Why a document cannot be kept in Parquet; None where it can."""
    try:
        for part in (document.doc_id, document.title, document.text):
            part.encode()
        metadata_json(document.metadata)
    except UnicodeEncodeError:
        return "a lone surrogate cannot be stored"
    except ValueError as error:
        return str(error)
    return None
