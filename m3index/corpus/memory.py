"""Documents that a program already holds, as a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from m3index.types import Document, Rejected


class Documents:
    """An iterable of documents as a corpus: it is complete once it has been read to its end."""

    read_errors: Sequence[Rejected] = ()
    bytes_read = 0
    total_bytes: int | None = None

    def __init__(self, documents: Iterable[Document | Rejected]) -> None:
        self._documents = documents
        self.complete = False

    def __iter__(self) -> Iterator[Document | Rejected]:
        self.complete = False
        identified = True
        for item in self._documents:
            identified &= not isinstance(item, Rejected) or item.identified
            yield item
        self.complete = identified
