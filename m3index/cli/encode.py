"""m3index encode: a corpus into Parquet shards of vectors, with no store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3index.cli import options, parse
from m3index.cli.extras import need
from m3index.cli.session import Session, session
from m3index.errors import Exit, UsageError
from m3index.types import DEFAULT_SOURCE

if TYPE_CHECKING:
    from m3index.api import EncoderChoice
    from m3index.corpus.mapping import FieldMapping
    from m3index.files import Folder
    from m3index.progress import Reporter
    from m3index.scale.blocks import Worker
    from m3index.scale.encode import EncodeSettings, EncodeSummary

_SHARDS = "Shards"

Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        envvar="M3INDEX_OUT",
        metavar="DIR",
        rich_help_panel=_SHARDS,
        help="Folder of the shards: a path, or s3://, gs://. What is there already is not done again.",
    ),
]
Shard = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_SHARD",
        metavar="I/N",
        rich_help_panel=_SHARDS,
        help="Do a share of the work: worker I of N, from 0. All may write to the same folder.",
    ),
]
ShardDocuments = Annotated[
    int,
    typer.Option(
        envvar="M3INDEX_SHARD_DOCUMENTS",
        metavar="N",
        min=1,
        rich_help_panel=_SHARDS,
        help="Documents of one shard; all workers of a folder need the same.",
    ),
]
DenseAs = Annotated[
    str,
    typer.Option(
        "--dense-as",
        envvar="M3INDEX_DENSE_AS",
        metavar="TYPE",
        rich_help_panel=_SHARDS,
        help="float32, or float16 for half the bytes and vectors rounded to about 3 digits.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_ENGINE",
        metavar="ENGINE",
        rich_help_panel=_SHARDS,
        help="local: this process; ray: Ray Data, on one machine or a cluster (extra: ray).",
    ),
]
RayAddress = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_RAY_ADDRESS",
        metavar="ADDRESS",
        rich_help_panel=_SHARDS,
        show_default="RAY_ADDRESS, else a cluster on this machine",
        help="Cluster to run on: auto, host:port, ray://host:port.",
    ),
]
Actors = Annotated[
    int,
    typer.Option(
        envvar="M3INDEX_ACTORS",
        metavar="N",
        min=1,
        rich_help_panel=_SHARDS,
        help="With ray: actors, each with a model of its own.",
    ),
]
GpusPerActor = Annotated[
    float,
    typer.Option(
        envvar="M3INDEX_GPUS_PER_ACTOR",
        metavar="X",
        min=0.0,
        rich_help_panel=_SHARDS,
        help="With ray: GPUs of each actor; 0 encodes on CPUs.",
    ),
]


def encode(
    paths: options.Paths,
    out: Out,
    shard: Shard = "0/1",
    shard_documents: ShardDocuments = 4096,
    dense_as: DenseAs = "float32",
    engine: Engine = "local",
    ray_address: RayAddress = "",
    actors: Actors = 1,
    gpus_per_actor: GpusPerActor = 0.0,
    source: options.Source = DEFAULT_SOURCE,
    passage_tokens: options.PassageTokens = "",
    overlap: options.Overlap = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    quarantine: options.QuarantinePath = None,
    max_errors: options.MaxErrors = None,
    encoder: options.Encoder = "",
    sparse: options.Sparse = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    batch_tokens: options.BatchTokens = "auto",
    cache: options.Cache = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode a corpus into Parquet shards, for `m3index load`. A second run does what is missing."""
    given = dict(locals())
    with session("encode", as_json=as_json, quiet=quiet) as run:
        _encode(run, given)


def _encode(run: Session, given: dict[str, Any]) -> None:
    from m3index.api import EncoderChoice, quarantining
    from m3index.corpus.mapping import FieldMapping
    from m3index.files import Folder

    settings = _settings(given)
    worker = settings.worker
    share = "" if worker.of == 1 else f"-{worker.index}-of-{worker.of}"
    quarantine = given["quarantine"] or Path(f"m3index-quarantine{share}.jsonl")
    mapping = FieldMapping.named(
        id=given["id_field"] or None,
        text=given["text_field"] or None,
        title=given["title_field"] or None,
        metadata=given["metadata_field"] or None,
    )
    input_format = given["input_format"] or None
    choice = EncoderChoice(
        given["encoder"] or None,
        given["device"],
        given["precision"],
        given["dim"],
        given["batch_tokens"],
        cache=given["cache"] or None,
    )
    out = Folder(given["out"])
    with quarantining(run.reporter, quarantine) as told:
        match given["engine"]:
            case "local":
                summary = _locally(run, given["paths"], mapping, input_format, out, choice, settings, told)
            case "ray":
                summary = _on_ray(given, mapping, input_format, out, choice, settings, told)
            case other:
                raise UsageError(f"--engine is local or ray, not {other!r}.")
    run.exit, run.summary = Exit(summary.exit), summary.to_json()
    run.reporter.note(
        f"{out}: {summary.written:,} shards written, {summary.kept:,} were there, of {summary.shards:,}. "
        f"{summary.passages:,} passages, {summary.tokens:,} tokens in {summary.seconds:.1f} s."
    )


def _locally(
    run: Session,
    paths: list[str],
    mapping: FieldMapping,
    input_format: str | None,
    out: Folder,
    choice: EncoderChoice,
    settings: EncodeSettings,
    reporter: Reporter,
) -> EncodeSummary:
    from m3index.corpus.readers import read
    from m3index.scale.encode import encode as encode_here

    corpus, encoder = read(paths, mapping, format=input_format), choice.load()
    try:
        with run.stop.listening(run.reporter):
            return encode_here(corpus, out, encoder, settings, reporter=reporter, stop=run.stop)
    finally:
        encoder.close()


def _on_ray(
    given: dict[str, Any],
    mapping: FieldMapping,
    input_format: str | None,
    out: Folder,
    choice: EncoderChoice,
    settings: EncodeSettings,
    reporter: Reporter,
) -> EncodeSummary:
    need("ray", extra="ray")
    if settings.worker.of != 1:
        raise UsageError("--shard is for workers without an engine; Ray shares the work out itself.")
    from m3index.corpus.remote import is_remote
    from m3index.scale.spread import Engine, Source, encode_on_ray

    if out.local:
        out = Folder(Path(out.location).absolute())
    paths = [
        path if path == "-" or is_remote(path) else str(Path(path).absolute()) for path in given["paths"]
    ]
    engine = Engine(given["ray_address"] or None, given["actors"], given["gpus_per_actor"])
    source = Source(paths, mapping, input_format)
    return encode_on_ray(source, out, choice.load, settings, engine, reporter=reporter)


def _settings(given: dict[str, Any]) -> EncodeSettings:
    from m3index.scale.encode import EncodeSettings
    from m3index.scale.shards import dense_type

    return EncodeSettings(
        source=given["source"],
        passages=parse.passages(given["passage_tokens"], given["overlap"]),
        sparse=parse.sparse(given["sparse"]),
        dense=dense_type(given["dense_as"]),
        worker=_worker(given["shard"]),
        block=given["shard_documents"],
        max_errors=given["max_errors"],
    )


def _worker(text: str) -> Worker:
    """`3/8`: the worker 3 of the workers 0 to 7."""
    from m3index.scale.blocks import Worker

    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise UsageError(f"--shard is written I/N with I from 0 to N - 1, as in 0/8; {text!r} is not.")
    return Worker(int(index), int(of))
