"""Splits a corpus into consecutive blocks of documents. Each block becomes one shard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from m3index import schema
from m3index.corpus.hash import doc_hash
from m3index.corpus.windows import PassageSize
from m3index.schema import metadata_json, utf8_size
from m3index.types import Document, Rejected, document_key

_BLOCK: Any = schema.load("shard.json")["block"]
DOCUMENTS: int = _BLOCK["documents"]
CHARACTERS: int = _BLOCK["characters"]


@dataclass(frozen=True, slots=True)
class Hashed:
    """A document with its key and its doc hash. metadata: as JSON."""

    document: Document
    key: str
    doc_hash: str
    metadata: str


@dataclass(frozen=True, slots=True)
class ShardKey:
    """The number of a shard and its contents. content: digest of the keys and hashes of its documents."""

    number: int
    content: str
    documents: int


@dataclass(frozen=True, slots=True)
class Block:
    """The documents of one shard."""

    shard: ShardKey
    documents: list[Hashed]


def blocks(
    corpus: Iterable[Document | Rejected],
    source: str,
    size: PassageSize,
    *,
    documents: int = DOCUMENTS,
    on_rejected: Callable[[int, Rejected], None] = lambda _block, _item: None,
) -> Iterator[Block]:
    """Splits a corpus into the same blocks on every machine. on_rejected: called with the number of the
    current block and a bad row.

    Repeated ids are kept: which of the documents counts is known only when all shards are loaded.
    """
    number = characters = 0
    kept: list[Hashed] = []
    digest = hashlib.blake2b(digest_size=16)
    for item in corpus:
        if isinstance(item, Rejected):
            on_rejected(number, item)
            continue
        try:
            hashed = _hashed(item, source, size)
        except ValueError as error:
            on_rejected(number, Rejected.of(item, str(error)))
            continue
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
    """The part of a document in the digest of its shard."""
    return f"{key}{doc_hash}".encode()


def _hashed(document: Document, source: str, size: PassageSize) -> Hashed:
    """Raises ValueError if the document cannot be stored in Parquet."""
    try:
        for part in (document.doc_id, document.title, document.text):
            utf8_size(part)
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate cannot be stored") from None
    metadata = metadata_json(document.metadata)
    return Hashed(document, document_key(source, document.doc_id), doc_hash(document, size), metadata)
