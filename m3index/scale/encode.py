"""Encodes a corpus into shards, without a store: documents -> passages -> (thread) encode -> Parquet.

A run encodes only missing shards, so an interrupted run is simply started again. Any number of workers can
share a folder: worker i of n takes every n-th block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, takewhile
from typing import Any, TypeAlias

import pyarrow as pa

from m3index.corpus.cut import cut_stream
from m3index.corpus.notes import tell
from m3index.corpus.options import Rejects
from m3index.corpus.windows import PassageSettings, PassageSize, Tokenizer
from m3index.encoder.base import Encoder
from m3index.errors import Exit, M3IndexError, MismatchError, MissingHeadError, StoppedError, decide
from m3index.files import Folder
from m3index.index.options import Never, Stop
from m3index.index.plan import Corpus
from m3index.index.prefetch import prefetch
from m3index.progress import Progress, Reporter, Silent
from m3index.scale import blocks as in_blocks
from m3index.scale.blocks import Block, Hashed, ShardKey
from m3index.scale.manifest import CorpusRecord, Entry, ShardFolder, ShardSink, digest_of_digests, shard_file
from m3index.scale.options import EncodeOptions
from m3index.scale.shards import Fingerprint, Writer, encoded_to_arrow
from m3index.scale.writers import OpenWriter, writers
from m3index.types import Document, Passage, Rejected, passage_key

PIECE_TOKENS, PIECE_ROWS = 65_536, 1_024
"""The limits of one encoder call. Constant, so that shards do not depend on the speed of the machine."""


@dataclass(slots=True)
class EncodeSummary:
    """The result of a run. shards: of the whole corpus. written, kept: of this worker's share. documents,
    passages, tokens: of the written shards. skipped: files and folders that were not read, by reason."""

    out: str
    encoder: str
    worker: str
    shards: int = 0
    written: int = 0
    kept: int = 0
    documents: int = 0
    passages: int = 0
    tokens: int = 0
    quarantined: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    exit: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"type": "summary", "command": "encode", **asdict(self)}


CutPassage: TypeAlias = tuple[Hashed, Passage, int]
"""A document, one of its passages, and its number of passages."""

OfShard: TypeAlias = tuple[ShardKey, CutPassage | None]
"""A passage of a shard; None after the last one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Passages for one encoder call. last: whether it is the last piece of the shard."""

    shard: ShardKey
    passages: Sequence[CutPassage]
    last: bool


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A part of a shard, as a record batch of `Fingerprint.arrow`. tokens: of its inputs; 0 if unknown."""

    shard: ShardKey
    rows: pa.RecordBatch
    tokens: int
    last: bool


def fingerprint_of(encoder: Encoder, settings: EncodeOptions) -> Fingerprint:
    """The fingerprint of new shards. Raises MissingHeadError, and UsageError for an unsupported size."""
    info = encoder.info
    sparse = settings.sparse or ("lexical" if info.lexical else "bm25")
    if sparse == "lexical" and not info.lexical:
        raise MissingHeadError(
            f"{info.name} has no lexical head. Use --sparse bm25, or a model that has one."
        )
    passages = (settings.splitting or PassageSettings()).resolve(encoder.tokenizer)
    return Fingerprint(info, sparse, passages, settings.dense)


def encode(
    corpus: Corpus,
    out: Folder,
    encoder: Encoder,
    settings: EncodeOptions,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> EncodeSummary:
    """Writes the missing shards of this worker and, at the end, the record of the corpus.

    Raises MismatchError if the folder contains shards with another encoder or other settings,
    MissingHeadError, StoppedError for too many bad rows, and UsageError.
    """
    return _Run(out, encoder, settings, reporter or Silent(), stop or Never()).run(corpus)


class _Run:
    def __init__(
        self, out: Folder, encoder: Encoder, settings: EncodeOptions, reporter: Reporter, stop: Stop
    ) -> None:
        self.encoder, self.settings, self.reporter, self.stop = encoder, settings, reporter, stop
        self.fingerprint = fingerprint_of(encoder, settings)
        self.folder = open_for(out, self.fingerprint)
        worker = f"{settings.worker.index}/{settings.worker.of}"
        self.plan = ShardPlan(self.folder, self.fingerprint, settings, self._on_bad_row)
        self.summary = EncodeSummary(str(out), encoder.info.name, worker)

    def run(self, corpus: Corpus) -> EncodeSummary:
        started, summary = time.monotonic(), self.summary
        try:
            self._write_missing(corpus)
        except M3IndexError as error:
            error.summary = self._finish(started, error.exit_code).to_json()
            raise
        if self.stop():
            return self._finish(started, self.stop.exit)
        check_complete(summary.quarantined, self.plan.rows, corpus, self.settings)
        self.folder.conclude(self.plan.record())
        return self._finish(started, decide(quarantined=bool(summary.quarantined)))

    def _finish(self, started: float, code: Exit) -> EncodeSummary:
        seconds = round(time.monotonic() - started, 3)
        shards, kept = self.plan.shards, self.plan.kept
        return replace(self.summary, shards=shards, kept=kept, seconds=seconds, exit=int(code))

    def _write_missing(self, corpus: Corpus) -> None:
        total = corpus.total_bytes
        pieces = prefetch(self._pieces(self.plan.missing(corpus)), depth=4)
        encoding = prefetch(self._encoded(pieces), depth=2)
        with closing(encoding) as encoded, writers(apart=self.encoder.workers > 0) as open_writer:
            for _, of_shard in groupby(encoded, key=lambda piece: piece.shard.number):
                counted = self._counted(of_shard, corpus, total)
                entry = write_shard(self.folder, self.fingerprint, counted, open_writer)
                if entry is not None:
                    self.summary.written += 1
                    self.summary.documents += entry.documents
        self.summary.skipped = dict(corpus.skip_counts)
        tell(corpus, self.reporter)
        for error in corpus.read_errors:
            self._on_bad_row(error)

    def _pieces(self, missing: Iterable[Block]) -> Iterator[Piece]:
        tokenizer, size = self.encoder.tokenizer, self.fingerprint.passages
        return in_pieces(passages_of(missing, tokenizer, size, self._on_bad_row))

    def _encoded(self, pieces: Generator[Piece, None, None]) -> Iterator[EncodedRows]:
        with closing(pieces):
            until_stopped = takewhile(lambda _: not self.stop(), pieces)
            yield from encode_pieces(self.encoder, until_stopped, self.settings.source, self.fingerprint)

    def _counted(
        self, pieces: Iterable[EncodedRows], corpus: Corpus, total: int | None
    ) -> Iterator[EncodedRows]:
        summary = self.summary
        for piece in pieces:
            summary.passages += piece.rows.num_rows
            summary.tokens += piece.tokens
            yield piece
            done = Progress(self.plan.documents, summary.passages, summary.tokens, corpus.bytes_read, total)
            self.reporter.progress(done)

    def _on_bad_row(self, rejected: Rejected) -> None:
        self.summary.quarantined += 1
        self.reporter.rejected(rejected)
        check_errors(self.summary.quarantined, None, self.settings)


def check_errors(quarantined: int, rows: int | None, settings: Rejects) -> None:
    """Raises StoppedError if there are too many bad rows. rows: how many were read; None before the end."""
    most = settings.most_errors
    if reason := most.refusal_so_far(quarantined) if rows is None else most.refusal(quarantined, rows):
        raise StoppedError(reason)


def check_complete(quarantined: int, rows: int, corpus: Corpus, settings: Rejects) -> None:
    """Raises StoppedError if the shards must not pass for the corpus: a file could not be read, or too many
    of the rows that were read are bad."""
    check_errors(quarantined, rows + len(corpus.read_errors), settings)
    if corpus.read_errors:
        raise StoppedError(
            f"{corpus.read_errors[0].place} could not be read to the end, so the shards are not the whole "
            "corpus, and `shards load` does not take them. Correct the corpus and run again."
        )


class ShardPlan:
    """One pass over the corpus, which finds all blocks and those that this worker has to encode.

    on_rejected: called with the bad rows of this worker's blocks. documents: of all workers. rows: the
    documents and bad rows of this worker.
    """

    def __init__(
        self,
        folder: ShardFolder,
        fingerprint: Fingerprint,
        settings: EncodeOptions,
        on_rejected: Callable[[Rejected], None],
    ) -> None:
        self._folder, self._fingerprint, self._settings = folder, fingerprint, settings
        self._digest = fingerprint.digest
        self._on_rejected = on_rejected
        self._contents: list[str] = []
        self.documents = self.kept = self.rows = 0

    @property
    def shards(self) -> int:
        return len(self._contents)

    def missing(self, corpus: Corpus) -> Iterator[Block]:
        """The blocks whose shards are missing, for this worker."""
        worker, settings = self._settings.worker, self._settings
        all_blocks = in_blocks.blocks(
            corpus,
            settings.source,
            self._fingerprint.passages,
            documents=settings.shard_documents,
            on_rejected=lambda number, item: self._reject(item) if worker.takes(number) else None,
        )
        for block in all_blocks:
            shard = block.shard
            self._contents.append(shard.content)
            self.documents += shard.documents
            if not worker.takes(shard.number):
                continue
            self.rows += shard.documents
            if self._folder.finished(shard.number, shard.content, self._digest):
                self.kept += 1
            else:
                yield block

    def _reject(self, rejected: Rejected) -> None:
        self.rows += 1
        self._on_rejected(rejected)

    def record(self) -> CorpusRecord:
        """The record of the corpus, after the pass."""
        content = digest_of_digests(self._contents)
        return CorpusRecord(self.shards, self.documents, content, self._fingerprint)


def open_for(out: Folder, fingerprint: Fingerprint) -> ShardFolder:
    """The folder to write to. Raises MismatchError if it contains shards with another fingerprint."""
    folder = ShardFolder(out)
    if any(entry.fingerprint != fingerprint.digest for entry in folder.entries.values()):
        record = folder.record()
        by = record.fingerprint.encoder.name if record else "another encoder"
        raise MismatchError(
            f"{out} has shards made by {by} with other settings. Choose another folder, or delete this one."
        )
    return folder


def passages_of(
    blocks: Iterable[Block], tokenizer: Tokenizer, size: PassageSize, on_rejected: Callable[[Rejected], None]
) -> Iterator[OfShard]:
    """The passages of the documents of each block, which may be cut some blocks ahead."""

    def documents() -> Iterator[tuple[ShardKey, Hashed | None]]:
        for block in blocks:
            for hashed in block.documents:
                yield block.shard, hashed
            yield block.shard, None

    def document_of(item: tuple[ShardKey, Hashed | None]) -> Document | None:
        return item[1].document if item[1] is not None else None

    for (shard, hashed), found in cut_stream(documents(), document_of, tokenizer, size):
        if hashed is None or found is None:
            yield shard, None
        elif found.problem:
            on_rejected(Rejected.of(hashed.document, found.problem))
        else:
            for passage in found.passages:
                yield shard, (hashed, passage, len(found.passages))


def in_pieces(passages: Iterable[OfShard]) -> Iterator[Piece]:
    """Pieces that are the same on every machine."""
    piece: list[CutPassage] = []
    tokens = 0
    for shard, passage in passages:
        if passage is not None:
            piece.append(passage)
            tokens += passage[1].tokens
        if passage is None or tokens >= PIECE_TOKENS or len(piece) == PIECE_ROWS:
            yield Piece(shard, piece, last=passage is None)
            piece, tokens = [], 0


def encode_pieces(
    encoder: Encoder, pieces: Iterable[Piece], source: str, fingerprint: Fingerprint
) -> Iterator[EncodedRows]:
    """The rows of each piece, in order."""
    arrow = fingerprint.arrow
    calls = ((piece, [passage.token_ids for _, passage, _ in piece.passages]) for piece in pieces)
    for piece, batch in encoder.encode_stream(calls, lexical=fingerprint.sparse == "lexical"):
        passages = piece.passages
        columns: dict[str, Sequence[Any]] = {
            "passage_id": [passage_key(hashed.key, passage.ordinal) for hashed, passage, _ in passages],
            "doc_id": [hashed.document.doc_id for hashed, _, _ in passages],
            "ordinal": [passage.ordinal for _, passage, _ in passages],
            "source": [source] * len(passages),
            "doc_hash": [hashed.doc_hash for hashed, _, _ in passages],
            "passages": [count for _, _, count in passages],
            "title": [hashed.document.title for hashed, _, _ in passages],
            "breadcrumb": [passage.breadcrumb for _, passage, _ in passages],
            "anchor": [passage.anchor for _, passage, _ in passages],
            "text": [passage.text for _, passage, _ in passages],
            "metadata": [hashed.metadata for hashed, _, _ in passages],
        }
        rows = encoded_to_arrow(columns, batch, arrow)
        yield EncodedRows(piece.shard, rows, int(batch.tokens.sum()), piece.last)


def write_shard(
    folder: ShardSink,
    fingerprint: Fingerprint,
    pieces: Iterable[EncodedRows],
    open_writer: OpenWriter = Writer,
) -> Entry | None:
    """Writes a shard from all its pieces. Returns None, and writes no shard, if the last one is missing."""
    try:
        return _write(folder, fingerprint, pieces, open_writer)
    except _UnfinishedError:
        return None


class _UnfinishedError(Exception):
    """The last piece of a shard is missing, so its file must be discarded."""


def _write(
    folder: ShardSink, fingerprint: Fingerprint, pieces: Iterable[EncodedRows], open_writer: OpenWriter
) -> Entry:
    pieces = iter(pieces)
    piece = next(pieces)
    shard = piece.shard
    folder.unfinish(shard.number)
    rows = tokens = 0
    with folder.shards.writing(shard_file(shard.number)) as path:
        writer = open_writer(path, fingerprint)
        try:
            while True:
                writer.add(piece.rows)
                rows, tokens = rows + piece.rows.num_rows, tokens + piece.tokens
                if piece.last:
                    break
                following = next(pieces, None)
                if following is None:
                    raise _UnfinishedError
                piece = following
        finally:
            size, digest = writer.close()
    entry = Entry(
        shard.number, shard.content, fingerprint.digest, shard.documents, rows, tokens or None, size, digest
    )
    folder.finish(entry)
    return entry
