"""The doc hash, which tells a run whether a document has changed."""

from __future__ import annotations

import hashlib
import json

from m3index.corpus.windows import PassageSize
from m3index.types import Document

_DIGEST_BYTES = 16


def doc_hash(document: Document, size: PassageSize) -> str:
    """`<content>.<metadata>`, two 128-bit BLAKE2b digests in hex.

    Content covers what the passages are made from: the settings, the format, and title and text, each
    preceded by its length. Metadata covers the object as JSON with sorted keys, with the declared fields.
    """
    title, text = (part.encode("utf-8", "surrogatepass") for part in (document.title, document.text))
    how = f"{size.by} {document.format}".encode()
    sized = b"%d %d %b %d %b%d %b" % (size.tokens, size.overlap, how, len(title), title, len(text), text)
    content = hashlib.blake2b(sized, digest_size=_DIGEST_BYTES)
    metadata = _to_json(document.metadata).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(metadata, digest_size=_DIGEST_BYTES)
    return f"{content.hexdigest()}.{digest.hexdigest()}"


_to_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def same_content(a: str, b: str) -> bool:
    """Whether two doc hashes differ at most in metadata. The empty hash (a document that was still being
    written) never matches."""
    return bool(a) and bool(b) and a.partition(".")[0] == b.partition(".")[0]
