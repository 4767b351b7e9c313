"""Encodes on Ray Data: CPU tasks read and tokenise, and actors with one model each encode.

A row of the dataset is a whole shard, so that Ray never splits one: an actor takes the passages of a shard
and writes the shard. Ray repeats a failed task, which writes the same file. A failed run is started again and
encodes the shards without a line in the manifest.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, dropwhile
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from m3index.corpus.notes import tell
from m3index.corpus.options import Input
from m3index.corpus.places import STDIN
from m3index.corpus.readers import FileCorpus, open_corpus
from m3index.corpus.windows import Tokenizer
from m3index.encoder.base import Encoder
from m3index.encoder.cached import CachedEncoder
from m3index.errors import DriftError, M3IndexError, UnreachableError, UsageError, decide
from m3index.files import Folder
from m3index.index.prefetch import prefetch
from m3index.progress import Progress, Reporter, Silent
from m3index.scale.blocks import Block, Hashed, ShardKey, blocks
from m3index.scale.encode import (
    CutPassage,
    EncodeSummary,
    ShardPlan,
    check_complete,
    check_errors,
    encode_pieces,
    fingerprint_of,
    in_pieces,
    open_for,
    passages_of,
    write_shard,
)
from m3index.scale.manifest import ShardSink
from m3index.scale.options import Cluster, EncodeOptions
from m3index.scale.shards import Fingerprint
from m3index.types import Document, Passage, Place, Rejected
from m3index.wording import many

LoadEncoder = Callable[[], Encoder]
_BLOCK_BYTES = 1
"""Ray combines rows into blocks of this size, one per task: so each shard is a block."""

_PLACE = [pa.field("path", pa.string()), pa.field("line", pa.int64())]
_KEY = [pa.field("shard", pa.int64()), pa.field("content", pa.string()), pa.field("documents", pa.int64())]
_DOCUMENT = pa.struct(
    [
        *(
            pa.field(name, pa.string())
            for name in ("doc_id", "title", "text", "metadata", "format", "key", "doc_hash")
        ),
        *_PLACE,
    ]
)
_PASSAGE = pa.struct(
    [
        pa.field("document", pa.int32()),
        pa.field("ordinal", pa.int32()),
        pa.field("passages", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("breadcrumb", pa.string()),
        pa.field("anchor", pa.string()),
    ]
)
_REJECTED = pa.struct([pa.field("doc_id", pa.string()), pa.field("reason", pa.string()), *_PLACE])
READ = pa.schema([*_KEY, pa.field("of", pa.list_(_DOCUMENT))])
CUT = pa.schema([*READ, pa.field("cut", pa.list_(_PASSAGE)), pa.field("rejected", pa.list_(_REJECTED))])
DONE = pa.schema(
    [
        *_KEY,
        *(pa.field(name, pa.int64()) for name in ("rows", "tokens")),
        pa.field("rejected", pa.list_(_REJECTED)),
    ]
)


@dataclass(frozen=True, slots=True)
class CorpusInput:
    """How to read the corpus, on any machine with the same files. base: the working directory of the run,
    which the names of files are relative to."""

    paths: Sequence[str]
    options: Input
    base: str

    def open(self, only: Collection[str] | None = None) -> FileCorpus:
        """only: the paths of the files to read; None for all."""
        return open_corpus(self.paths, self.options, base=self.base, only=only)


@dataclass(frozen=True, slots=True)
class ShardSpan:
    """The location of a shard's documents: from this line of the first of these files."""

    shard: ShardKey
    files: Sequence[str]
    line: int | None


@dataclass(frozen=True, slots=True)
class RayJob:
    """The job of all tasks."""

    source: CorpusInput
    settings: EncodeOptions
    fingerprint: Fingerprint
    out: Folder
    load: LoadEncoder


def encode_on_ray(
    source: CorpusInput,
    out: Folder,
    load: LoadEncoder,
    settings: EncodeOptions,
    cluster: Cluster,
    *,
    reporter: Reporter | None = None,
) -> EncodeSummary:
    """Like `encode.encode`, on a Ray cluster. load: called in each process that needs the encoder. The corpus
    and the folder must have the same paths on all machines.

    Raises UsageError for standard input, UnreachableError, DriftError if shards are missing at the end, and
    the errors of `encode.encode`.
    """
    reporter = reporter or Silent()
    if STDIN in source.paths:
        raise UsageError("Ray reads the corpus on several machines. Give files, not standard input.")
    encoder = load()
    fingerprint = fingerprint_of(encoder, settings)
    encoder.close()
    started, folder = time.monotonic(), open_for(out, fingerprint)
    reporter.stage("looking for missing shards")
    rejected: list[Rejected] = []
    plan = ShardPlan(folder, fingerprint, settings, rejected.append)
    corpus = source.open()
    spans = list(_spans(corpus, plan))
    summary = EncodeSummary(str(out), fingerprint.encoder.name, "ray", shards=plan.shards, kept=plan.kept)
    summary.skipped = dict(corpus.skip_counts)
    tell(corpus, reporter)
    for item in [*rejected, *corpus.read_errors]:
        reporter.rejected(item)
    summary.quarantined = len(rejected) + len(corpus.read_errors)
    check_complete(summary.quarantined, plan.rows, corpus, settings)
    if spans:
        reporter.stage(f"encoding {many(len(spans), 'shard')} on {many(cluster.actors, 'actor')}")
        _run(RayJob(source, settings, fingerprint, out, load), spans, cluster, reporter, summary)
    folder = open_for(out, fingerprint)
    lost = sum(not folder.finished(s.shard.number, s.shard.content, fingerprint.digest) for s in spans)
    if lost:
        raise DriftError(
            f"Ray did not write {many(lost, 'shard')}. Run it again: only missing shards are encoded."
        )
    folder.conclude(plan.record())
    summary.exit = int(decide(quarantined=bool(summary.quarantined)))
    return replace(summary, seconds=round(time.monotonic() - started, 3))


def _run(
    job: RayJob, spans: Sequence[ShardSpan], cluster: Cluster, reporter: Reporter, summary: EncodeSummary
) -> None:
    _connect(cluster, reporter)
    shards = ShardSource(job, spans, readers=cluster.actors)
    rows = (
        ray.data.read_datasource(shards, override_num_blocks=len(shards.parts))
        .map_batches(cut_shard, batch_size=1, batch_format="pyarrow", fn_kwargs={"job": job})
        .map_batches(
            EncodeShard,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_kwargs={"job": job},
            compute=ray.data.ActorPoolStrategy(size=cluster.actors),
            num_cpus=cluster.cpus_per_actor,
            num_gpus=cluster.gpus_per_actor or None,
        )
    )
    total = sum(span.shard.documents for span in spans)
    for row in _mapped(rows.iter_rows()):
        for item in row["rejected"]:
            place = Place(item["path"], item["line"])
            reporter.rejected(Rejected(place, item["reason"], doc_id=item["doc_id"]))
            summary.quarantined += 1
        check_errors(summary.quarantined, None, job.settings)
        summary.written += 1
        summary.documents += row["documents"]
        summary.passages += row["rows"]
        summary.tokens += row["tokens"]
        reporter.progress(Progress(summary.documents, summary.passages, summary.tokens, total=total))


def _mapped(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Raises the original error of a failed task, or M3IndexError."""
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, M3IndexError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from error
        raise M3IndexError(f"Ray failed: {error}. Run it again: only missing shards are encoded.") from error


def _connect(cluster: Cluster, reporter: Reporter) -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not ray.is_initialized():
        is_local = cluster.ray_address is None and "RAY_ADDRESS" not in os.environ
        cpus = {"num_cpus": max(os.cpu_count() or 1, cluster.cpus)} if is_local else {}
        try:
            ray.init(cluster.ray_address, log_to_driver=False, logging_level=logging.WARNING, **cpus)
        except ConnectionError as error:
            raise UnreachableError(
                f"{error}. Check the address, and that RAY_AUTH_MODE is that of the cluster."
            ) from error
    available = int(ray.cluster_resources().get("CPU", 0))
    if available < cluster.cpus:
        reporter.warning(
            f"The cluster has {available} CPUs; {many(cluster.actors, 'actor')} and a reader need "
            f"{cluster.cpus}. The run waits until there are more. Use fewer --actors to start now."
        )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.target_max_block_size = _BLOCK_BYTES


# ------------------------------------------------------------------ reading


def _spans(corpus: FileCorpus, plan: ShardPlan) -> Iterator[ShardSpan]:
    """The missing shards with the locations of their documents, from one pass over the corpus."""
    for block in plan.missing(corpus):
        places = [hashed.document.place for hashed in block.documents]
        files = dict.fromkeys(place.path for place in places if place is not None)
        first = places[0]
        yield ShardSpan(block.shard, list(files), first.line if first is not None else None)


class ShardSource(Datasource):  # type: ignore[misc]  # Ray has no types here
    """The documents of the missing shards, one shard per row."""

    def __init__(self, job: RayJob, spans: Sequence[ShardSpan], readers: int) -> None:
        """readers: number of reading tasks. Each starts at the first file of its shards."""
        self._job = job
        size = -(-len(spans) // readers)
        self.parts = [spans[start : start + size] for start in range(0, len(spans), size)]

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """One task per part, regardless of the requested parallelism."""
        return [
            ReadTask(
                _Read(self._job, part),
                BlockMetadata(num_rows=len(part), size_bytes=None, input_files=None, exec_stats=None),
                schema=READ,
            )
            for part in self.parts
        ]


@dataclass(frozen=True, slots=True)
class _Read:
    job: RayJob
    spans: Sequence[ShardSpan]

    def __call__(self) -> Iterator[pa.Table]:
        """One table with one row per shard. Adjacent shards are read together, so no file is read twice."""
        for run in _consecutive(self.spans):
            run_blocks = _blocks_from(self.job, run)
            for span in run:
                block = next(run_blocks, None)
                if block is None or block.shard.content != span.shard.content:
                    raise DriftError(
                        f"Shard {span.shard.number}: the corpus changed during the run, or contains a "
                        "file twice. Run it again."
                    )
                row = _key(span.shard) | {"of": [_document(hashed) for hashed in block.documents]}
                yield pa.Table.from_pylist([row], READ)


def _consecutive(spans: Sequence[ShardSpan]) -> Iterator[list[ShardSpan]]:
    """Groups of consecutive shards."""
    run: list[ShardSpan] = []
    for span in spans:
        if run and span.shard.number != run[-1].shard.number + 1:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _blocks_from(job: RayJob, run: Sequence[ShardSpan]) -> Iterator[Block]:
    first = run[0]
    items = job.source.open({file for span in run for file in span.files})
    from_first = dropwhile(
        lambda item: (_place(item).path, _place(item).line) != (first.files[0], first.line), items
    )
    return blocks(
        from_first, job.settings.source, job.fingerprint.passages, documents=job.settings.shard_documents
    )


# ------------------------------------------------------------------ tasks and actors


@cache
def _tokenizer_of(load: LoadEncoder) -> Tokenizer:
    """The tokenizer of a worker process."""
    return load().tokenizer


def cut_shard(table: pa.Table, job: RayJob) -> pa.Table:
    """Turns a row of READ into a row of CUT."""
    [row] = table.to_pylist()
    block = Block(_shard(row), [_hashed(one) for one in row["of"]])
    rejected: list[Rejected] = []
    places = {id(hashed): i for i, hashed in enumerate(block.documents)}
    passages = job.fingerprint.passages
    of_shard = passages_of([block], _tokenizer_of(job.load), passages, rejected.append)
    cut = [passage for _, passage in of_shard if passage is not None]
    rejected_rows = [
        {"doc_id": r.doc_id, "reason": r.reason, "path": r.place.path, "line": r.place.line} for r in rejected
    ]
    columns = [
        *table.columns,
        _one(_passages(cut, places)),
        pa.array([rejected_rows], CUT.field("rejected").type),
    ]
    return pa.Table.from_arrays(columns, schema=CUT)


def _passages(cut: Sequence[CutPassage], places: Mapping[int, int]) -> pa.StructArray:
    """Passages as an array of _PASSAGE. Token ids are copied without conversion to Python numbers."""
    ids = [passage.token_ids for _, passage, _ in cut]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int32)
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return pa.StructArray.from_arrays(
        [
            pa.array([places[id(hashed)] for hashed, _, _ in cut], pa.int32()),
            pa.array([passage.ordinal for _, passage, _ in cut], pa.int32()),
            pa.array([count for _, _, count in cut], pa.int32()),
            pa.array([passage.text for _, passage, _ in cut], pa.string()),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.int32))),
            pa.array([passage.breadcrumb for _, passage, _ in cut], pa.string()),
            pa.array([passage.anchor for _, passage, _ in cut], pa.string()),
        ],
        fields=list(_PASSAGE),
    )


def _one(values: pa.Array) -> pa.ListArray:
    """A list array with one row that contains all values."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _cut_passages(cut: pa.StructArray, documents: Sequence[Hashed]) -> Iterator[CutPassage]:
    """The inverse of `_passages`."""
    ids = cut.field("token_ids")
    flat, offsets = ids.values.to_numpy(zero_copy_only=False), ids.offsets.to_pylist()
    names = ("document", "ordinal", "passages", "text", "breadcrumb", "anchor")
    plain = (cut.field(name).to_pylist() for name in names)
    for i, (document, ordinal, count, text, *place) in enumerate(zip(*plain, strict=True)):
        passage = Passage(ordinal, text, 0, 0, flat[offsets[i] : offsets[i + 1]], *place)
        yield documents[document], passage, count


class EncodeShard:
    """An actor with one model, which encodes shards and writes them."""

    def __init__(self, job: RayJob) -> None:
        self._job, self._encoder, self._sink = job, job.load(), ShardSink(job.out)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Turns a row of CUT into a row of DONE. A thread encodes while this one writes."""
        job = self._job
        [row] = table.drop_columns(["cut"]).to_pylist()
        documents = [_hashed(one) for one in row["of"]]
        cut = _cut_passages(table.column("cut").combine_chunks().flatten(), documents)
        shard = _shard(row)
        pieces = in_pieces(chain(((shard, passage) for passage in cut), [(shard, None)]))
        encoded = encode_pieces(self._encoder, pieces, job.settings.source, job.fingerprint)
        with closing(prefetch(encoded, depth=2)) as rows:
            entry = write_shard(self._sink, job.fingerprint, rows)
        assert entry is not None  # no piece is missing
        if isinstance(self._encoder, CachedEncoder):
            self._encoder.flush()  # actors are never closed
        done = {"rows": entry.rows, "tokens": entry.tokens or 0, "rejected": row["rejected"]}
        return pa.Table.from_pylist([_key(_shard(row)) | done], DONE)


def _key(shard: ShardKey) -> dict[str, Any]:
    return {"shard": shard.number, "content": shard.content, "documents": shard.documents}


def _shard(row: dict[str, Any]) -> ShardKey:
    return ShardKey(row["shard"], row["content"], row["documents"])


def _place(item: Document | Rejected) -> Place:
    return item.place or Place("")


def _document(hashed: Hashed) -> dict[str, Any]:
    document, place = hashed.document, _place(hashed.document)
    return {
        "doc_id": document.doc_id,
        "title": document.title,
        "text": document.text,
        "metadata": hashed.metadata,
        "format": document.format,
        "key": hashed.key,
        "doc_hash": hashed.doc_hash,
        "path": place.path,
        "line": place.line,
    }


def _hashed(row: dict[str, Any]) -> Hashed:
    place = Place(row["path"], row["line"])
    document = Document(
        row["doc_id"], row["text"], row["title"], json.loads(row["metadata"]), place, row["format"]
    )
    return Hashed(document, row["key"], row["doc_hash"], row["metadata"])
