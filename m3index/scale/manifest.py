"""The manifest of a folder of shards: one line for each finished shard, and one record of the whole corpus.

Each shard has its own manifest file, so any number of writers do not conflict. A shard counts once its line
exists. `corpus.json` is written at the end of a pass over the corpus, with the digest of all its documents:
the shards are complete if their lines have the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from m3index.errors import DriftError, MismatchError, NotFoundError
from m3index.files import Folder
from m3index.scale.shards import Fingerprint
from m3index.types import FieldType, Storage
from m3index.wording import many

CORPUS = "corpus.json"
_READERS = 16
_PARTIAL_SECONDS = 86_400.0  # partial files older than this are remains of killed writers


@dataclass(frozen=True, slots=True)
class Entry:
    """The manifest line of a shard.

    content: digest of its documents. fingerprint: digest of how they were encoded. tokens: None if
    unknown. size (in bytes), hash: of the file.
    """

    shard: int
    content: str
    fingerprint: str
    documents: int
    rows: int
    tokens: int | None
    size: int
    hash: str

    @property
    def file(self) -> str:
        return shard_file(self.shard)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class CorpusRecord:
    """The record of all shards together. content: digest of their digests, in order. fields, tenant,
    storage: of the collection that was exported; empty for a corpus."""

    shards: int
    documents: int
    content: str
    fingerprint: Fingerprint
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    tenant: str | None = None
    storage: Storage | None = None

    def to_json(self) -> dict[str, Any]:
        return {"version": self.fingerprint.version, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        fingerprint = Fingerprint.from_json(record["fingerprint"])
        return cls(
            record["shards"],
            record["documents"],
            record["content"],
            fingerprint,
            record["fields"],
            record.get("tenant"),
            record.get("storage"),
        )


def shard_file(number: int) -> str:
    return f"{number:09d}.parquet"


def _line_file(number: int) -> str:
    return f"{number:09d}.json"


def digest_of_digests(contents: Iterable[str]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for content in contents:
        total.update(bytes.fromhex(content))
    return total.hexdigest()


class ShardSink:
    """A folder to write shards to, without reading its contents."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.shards, self._lines = folder.sub("shards"), folder.sub("manifest")

    def finish(self, entry: Entry) -> None:
        """Writes the line of a shard after its file."""
        self._lines.write(_line_file(entry.shard), entry.to_line())

    def unfinish(self, number: int) -> None:
        """Deletes the line of a shard before its file is replaced."""
        self._lines.delete(_line_file(number))


class ShardFolder(ShardSink):
    """A folder of shards, with its contents when it was opened."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._sizes = self.shards.sizes()
        names = [name for name in self._lines.sizes() if name.endswith(".json") and name[0] != "."]
        with ThreadPoolExecutor(_READERS) as pool:
            lines = pool.map(self._lines.read, names)
            self.entries = {e.shard: e for e in (Entry.from_line(line) for line in lines if line)}

    def finished(self, number: int, content: str, fingerprint: str) -> bool:
        """Whether this shard is complete and has this content."""
        entry = self.entries.get(number)
        return (
            entry is not None
            and (entry.content, entry.fingerprint) == (content, fingerprint)
            and self._sizes.get(entry.file) == entry.size
        )

    def finish(self, entry: Entry) -> None:
        super().finish(entry)
        self.entries[entry.shard] = entry
        self._sizes[entry.file] = entry.size

    def unfinish(self, number: int) -> None:
        super().unfinish(number)
        self.entries.pop(number, None)

    def conclude(self, record: CorpusRecord) -> None:
        """Writes the record of the corpus, and removes shards beyond its end, from a longer corpus."""
        for number in [n for n in self.entries if n >= record.shards]:
            self.unfinish(number)
            self.shards.delete(shard_file(number))
        self.shards.clear_partials(_PARTIAL_SECONDS)
        self.folder.write(CORPUS, json.dumps(record.to_json()).encode() + b"\n")

    def record(self) -> CorpusRecord | None:
        data = self.folder.read(CORPUS)
        return None if data is None else CorpusRecord.from_json(json.loads(data))

    def complete(self) -> tuple[CorpusRecord, Sequence[Entry]]:
        """The corpus and its shards in order. Raises NotFoundError without a record, DriftError if a shard is
        missing."""
        record = self.record()
        if record is None:
            raise NotFoundError(
                f"{self.folder} has no complete set of shards. Run `m3index shards encode` to its end first."
            )
        digest = record.fingerprint.digest
        missing = [
            number
            for number in range(record.shards)
            if (entry := self.entries.get(number)) is None
            or entry.fingerprint != digest
            or self._sizes.get(entry.file) != entry.size
        ]
        entries = [self.entries[n] for n in range(record.shards) if n in self.entries]
        if missing or digest_of_digests(e.content for e in entries) != record.content:
            which = (
                f"{len(missing):,} of {many(record.shards, 'shard is', 'shards are')} missing"
                if missing
                else "its shards are outdated"
            )
            raise DriftError(
                f"{self.folder} is not complete: {which}. Run `m3index shards encode` again with the same "
                "corpus; it encodes only missing shards."
            )
        return record, entries


def check_same_space(records: Sequence[CorpusRecord]) -> Fingerprint:
    """The fingerprint of folders that are loaded together. Raises MismatchError if they differ."""
    first = records[0].fingerprint
    for record in records[1:]:
        if record.fingerprint.digest != first.digest:
            raise MismatchError(
                f"These shards were made by different encoders or settings ({first.encoder.name} and "
                f"{record.fingerprint.encoder.name}). Load them into different collections."
            )
    return first
