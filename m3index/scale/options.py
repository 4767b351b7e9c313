"""The options of shards: encoding, loading and exporting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from m3index import schema
from m3index.corpus.options import Input, Passages, Rejects
from m3index.index.options import SPARSE_KINDS, Columns, CorpusName, Waiting
from m3index.options import Custom, FileName, Flag, Group, Number, OneOf, Text, Whole, group, option
from m3index.types import SparseKind

DenseType: TypeAlias = Literal["float32", "float16"]
ShardStorage: TypeAlias = Literal["fp32", "fp16"]
_DENSE_TYPES: dict[ShardStorage, DenseType] = {"fp32": "float32", "fp16": "float16"}
_DOCUMENTS: int = schema.load("shard.json")["block"]["documents"]


@dataclass(frozen=True, slots=True)
class Worker:
    """Selects the blocks of one worker: every `of`-th block, starting at `index`."""

    index: int = 0
    of: int = 1

    def takes(self, number: int) -> bool:
        return number % self.of == self.index

    @classmethod
    def parse(cls, value: object) -> Worker:
        """Reads `3/8`: worker 3 of the workers 0 to 7. Raises ValueError."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError
        index, slash, of = value.partition("/")
        if slash and index.isdecimal() and of.isdecimal() and int(index) < int(of):
            return cls(int(index), int(of))
        raise ValueError


@group
class Destination(Group):
    """The folder of the shards."""

    panel = "Shards"

    out: str = option(
        FileName("DIR"),
        "Folder of the shards, a path, s3:// or gs://; existing shards are not written again.",
        flags=("--out", "-o"),
    )


@group
class ShardOptions(Group):
    """The size and the storage type of shards."""

    panel = "Shards"

    shard_documents: int = option(
        Whole(1),
        "Number of documents per shard; all workers of a folder must use the same number.",
        default=_DOCUMENTS,
    )
    storage: ShardStorage = option(
        OneOf(tuple(_DENSE_TYPES), "TYPE"),
        "Storage type of dense vectors: fp32, or fp16 for half the bytes, rounded to about 3 digits.",
        default="fp32",
    )

    @property
    def dense(self) -> DenseType:
        """The storage type as named in shards."""
        return _DENSE_TYPES[self.storage]


@group
class EncodeOptions(ShardOptions, Passages, Rejects, Input, CorpusName):
    """The encoding of a corpus into shards."""

    panel = "Shards"

    sparse: SparseKind | None = option(
        OneOf(SPARSE_KINDS, "KIND"),
        "Kind of sparse vectors: lexical, bm25 or none.",
        default=None,
        shown="lexical if the model has a lexical head, else bm25",
    )
    shard: str | Worker = option(
        Custom(Worker.parse, "a worker such as 0/8, counted from 0", "I/N"),
        "Share of the work to do, as worker I of N, counted from 0; all workers can use the same folder.",
        default="0/1",
    )

    @property
    def worker(self) -> Worker:
        """The worker that `shard` names."""
        return Worker.parse(self.shard)


@group
class Cluster(Group):
    """The engine that encodes a corpus."""

    panel = "Shards"

    engine: Literal["local", "ray"] = option(
        OneOf(("local", "ray"), "ENGINE"),
        "Engine: local for this process, or ray for Ray Data on one machine or a cluster (extra: ray).",
        default="local",
    )
    ray_address: str | None = option(
        Text("ADDRESS"),
        "Address of the Ray cluster: auto, host:port or ray://host:port.",
        default=None,
        shown="RAY_ADDRESS, else a cluster on this machine",
    )
    actors: int = option(Whole(1), "Number of Ray actors, each with its copy of the model.", default=1)
    gpus_per_actor: float = option(
        Number(0.0), "Number of GPUs per Ray actor; 0 encodes on CPUs.", default=0.0
    )

    @property
    def cpus_per_actor(self) -> int:
        """0 with GPUs, to leave all CPUs to reading and tokenising."""
        return 0 if self.gpus_per_actor else 1

    @property
    def cpus(self) -> int:
        """The minimum number of CPUs: those of the actors and one for reading."""
        return self.actors * self.cpus_per_actor + 1


@group
class LoadOptions(Waiting, Columns, Rejects):
    """The loading of shards into a collection."""

    panel = "Shards"

    fresh: bool = option(
        Flag(),
        "Load into a new generation and move the collection to it once its rows are counted.",
        default=False,
        file=False,
    )
    keep: int = option(
        Whole(0),
        "Number of earlier generations to keep for rollback, with fresh: those that served last.",
        default=1,
    )
    workers: int | None = option(
        Whole(1),
        "Number of shards to write at the same time.",
        default=None,
        shown="4 for a server, 1 for a local file",
    )
    bulk: str | None = option(
        FileName("S3_FOLDER"),
        "Use the bulk import of the server, with files in this folder of the server's bucket.",
        default=None,
        shown="none; rows are upserted",
    )
