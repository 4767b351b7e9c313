"""Documents that a program already holds, used as a corpus."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

from m3index.corpus.digest import CorpusDigest
from m3index.corpus.listing import Listing
from m3index.corpus.mapping import STANDARD, FieldMapping, RowError
from m3index.corpus.notes import embedding_notes
from m3index.corpus.places import Skipped
from m3index.errors import UsageError
from m3index.schema import JsonMetadata, metadata_json
from m3index.types import Document, Place, Rejected

Item: TypeAlias = Document | Mapping[str, Any] | Rejected
"""A document, or a row with its keys as in a corpus file: `{"id": "d1", "text": "...", "lang": "en"}`."""


class Documents:
    """An iterable of documents as a corpus. It is complete once it has been read to its end.

    Iterating raises UsageError for an item that is neither a document nor a row.
    """

    read_errors: Sequence[Rejected] = ()
    listing = Listing()
    bytes_read = 0
    total_bytes: int | None = None
    skip_counts: Mapping[str, int] = MappingProxyType({})

    def __init__(self, items: Iterable[Item], mapping: FieldMapping | None = None) -> None:
        self._items, self._mapping = items, mapping or STANDARD
        self._embeddings = Counter[str]()
        self.complete = False

    @property
    def notes(self) -> list[str]:
        """What the pass left out."""
        return list(embedding_notes(self._embeddings))

    def skips(self) -> Iterator[Skipped]:
        return iter(())

    @property
    def repeatable(self) -> bool:
        """Whether a second pass reads the same; not from an iterator."""
        return not isinstance(self._items, Iterator)

    def digest(self) -> CorpusDigest | None:
        """None: to read the documents is all that could be done for it."""
        return None

    def is_as_before(self, digest: CorpusDigest) -> bool:  # noqa: ARG002
        return False

    def __iter__(self) -> Iterator[Document | Rejected]:
        self.complete = False
        self._embeddings.clear()
        identified = True
        for number, item in enumerate(self._items, 1):
            document = self._read(item, number)
            identified &= not isinstance(document, Rejected) or document.identified
            yield document
        self.complete = identified

    def _read(self, item: object, number: int) -> Document | Rejected:
        match item:
            case Document() | Rejected():
                return item
            case Mapping():
                place = Place("<memory>", number)
                try:
                    document = self._mapping.document(item, place, self._embeddings)
                    # The row is the caller's, who may change it before the document is written.
                    return replace(document, metadata=JsonMetadata(metadata_json(document.metadata)))
                except RowError as error:
                    raw = json.dumps(item, ensure_ascii=False, default=repr)
                    return Rejected(place, error.reason, raw, error.doc_id)
        raise UsageError(f"A document must be a Document or a mapping with id and text, not {item!r}.")
