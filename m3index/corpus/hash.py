"""The doc hash: by what a run knows that a document has not changed."""

from __future__ import annotations

import hashlib
import json

from m3index.corpus.windows import PassageSize
from m3index.types import Document

_DIGEST_BYTES = 16


def doc_hash(document: Document, size: PassageSize) -> str:
    """`<content>.<metadata>`, two 128-bit BLAKE2b digests in hex.

    Content: what the vectors are made of: title, text and the passage settings, each with its length
    before it. Metadata: the object as JSON with sorted keys; declared fields are part of it.
    """
    content = hashlib.blake2b(f"{size.tokens} {size.overlap} ".encode(), digest_size=_DIGEST_BYTES)
    for part in (document.title, document.text):
        data = part.encode("utf-8", "surrogatepass")
        content.update(b"%d " % len(data))
        content.update(data)
    metadata = json.dumps(document.metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(metadata.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
    return f"{content.hexdigest()}.{digest.hexdigest()}"


def same_content(a: str, b: str) -> bool:
    """Whether two doc hashes differ in metadata at most. The empty hash (a document that was being
    written) is the same as nothing."""
    return bool(a) and bool(b) and a.partition(".")[0] == b.partition(".")[0]
