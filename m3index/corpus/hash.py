"""The doc hash, which tells a run whether a document has changed."""

from __future__ import annotations

import hashlib

from m3index.corpus.windows import PassageSize
from m3index.schema import json_encoder
from m3index.types import Document

_DIGEST_BYTES = 16


def doc_hash(document: Document, size: PassageSize) -> str:
    """`<content>.<metadata>`, two 128-bit BLAKE2b digests in hex.

    Content covers what the passages are made from: their settings, and the first of `digests`. Metadata is
    the second.
    """
    content, metadata = document.digests or digests(document)
    how = f"{size.tokens} {size.overlap} {size.by} {content}".encode()
    return f"{hashlib.blake2b(how, digest_size=_DIGEST_BYTES).hexdigest()}.{metadata}"


def digests(document: Document) -> tuple[str, str]:
    """Digests of the content and of the metadata. Content covers the format, and title and text, each
    preceded by its length. Metadata covers the object as JSON with sorted keys, with the declared fields."""
    title, text = document.title.encode(*_ANY), document.text.encode(*_ANY)
    content = hashlib.blake2b(
        b"%b %d %b%d %b" % (document.format.encode(), len(title), title, len(text), text),
        digest_size=_DIGEST_BYTES,
    )
    metadata = _to_json(dict(document.metadata)).encode(*_ANY)
    return content.hexdigest(), hashlib.blake2b(metadata, digest_size=_DIGEST_BYTES).hexdigest()


def with_digests(document: Document, found: tuple[str, str]) -> Document:
    """The document, which now has the digests that were made of it."""
    object.__setattr__(document, "digests", found)
    return document


_ANY = ("utf-8", "surrogatepass")
_to_json = json_encoder(sort_keys=True, allow_nan=True)


def same_content(a: str, b: str) -> bool:
    """Whether two doc hashes differ at most in metadata. The empty hash (a document that was still being
    written) never matches."""
    return bool(a) and bool(b) and a.partition(".")[0] == b.partition(".")[0]
