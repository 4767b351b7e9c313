"""The options that several commands share: one place for each name, help text and variable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from m3index.api import Index
    from m3index.cli.session import Session

_STORE = "Store"
_ENCODER = "Encoder"
_OUTPUT = "Output"
_CORPUS = "Corpus"
_SEARCH = "Search"

DEFAULT_URI = "m3index.db"
DEFAULT_QUARANTINE = Path("m3index-quarantine.jsonl")

Uri = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_URI",
        metavar="URI",
        rich_help_panel=_STORE,
        help="Milvus: a local file (Milvus Lite), or the URI of a server.",
    ),
]
Token = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_TOKEN",
        metavar="TOKEN",
        rich_help_panel=_STORE,
        show_default="none",
        help="Login of the server, USER:PASSWORD or an API key. Better in the variable than here.",
    ),
]
Db = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_DB",
        metavar="NAME",
        rich_help_panel=_STORE,
        show_default="the server's default",
        help="Database of the server.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        envvar="M3INDEX_TIMEOUT",
        metavar="SECONDS",
        rich_help_panel=_STORE,
        min=0.1,
        help="How long to try again when the store does not answer.",
    ),
]
Collection = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        envvar="M3INDEX_COLLECTION",
        metavar="NAME",
        rich_help_panel=_STORE,
        help="Name of the collection (an alias over its generations).",
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder",
        "-e",
        envvar="M3INDEX_ENCODER",
        metavar="MODEL",
        rich_help_panel=_ENCODER,
        show_default="the collection's own; for a new one: teacher",
        help="Preset, hub id or directory of the model (see: m3index models).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_DEVICE",
        metavar="DEVICE",
        rich_help_panel=_ENCODER,
        help="auto, cpu, cuda, mps, or a list: cuda:0,cuda:1.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_PRECISION",
        metavar="PRECISION",
        rich_help_panel=_ENCODER,
        help="auto, fp32, bf16, fp16, or int8 (CPUs; compared with fp32 on your first texts).",
    ),
]
Dim = Annotated[
    Optional[int],  # noqa: UP045  (typer evaluates it)
    typer.Option(
        envvar="M3INDEX_DIM",
        metavar="N",
        min=1,
        rich_help_panel=_ENCODER,
        show_default="the model's",
        help="Width of the dense vector, for models trained with Matryoshka.",
    ),
]
BatchTokens = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_BATCH_TOKENS",
        metavar="N",
        rich_help_panel=_ENCODER,
        help="Token budget of one forward pass; auto finds it from the free memory.",
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_CACHE",
        metavar="DIR",
        rich_help_panel=_ENCODER,
        show_default="none",
        help="Folder (a path, s3://) of vectors by content: what it holds is not encoded again.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_SOURCE",
        metavar="NAME",
        rich_help_panel=_CORPUS,
        help="Name of the corpus: several may share a collection, each prunes its own.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        envvar="M3INDEX_JSON",
        rich_help_panel=_OUTPUT,
        help="JSON lines on standard output, nothing else there.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        metavar="",
        envvar="M3INDEX_QUIET",
        rich_help_panel=_OUTPUT,
        help="Warnings and errors only.",
    ),
]
Where = Annotated[
    list[str],
    typer.Option(
        metavar="FIELD=VALUE",
        rich_help_panel=_SEARCH,
        envvar="M3INDEX_WHERE",
        show_default="none",
        help="Only where a declared field compares so (=, !=, <, <=, >, >=). Repeat it for and.",
    ),
]
FilterText = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        rich_help_panel=_SEARCH,
        envvar="M3INDEX_FILTER",
        show_default="none",
        help="Only where this Milvus expression holds.",
    ),
]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="JSONL (also .gz, .zst), Parquet, CSV, text: files, globs, directories, or - for stdin.",
    ),
]
SomePaths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="JSONL (also .gz, .zst), Parquet, CSV, text: files, globs, directories, or - for stdin.",
    ),
]
Changes = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_CHANGES",
        metavar="FILE",
        rich_help_panel=_CORPUS,
        show_default="none",
        help='Instead of a corpus, a feed of its changes: documents, and {"op": "delete", "id": ...}.',
    ),
]
Sparse = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_SPARSE",
        metavar="KIND",
        rich_help_panel=_ENCODER,
        show_default="lexical where the model has the head, else bm25",
        help="Sparse vectors: lexical, bm25 or none.",
    ),
]
Analyzer = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_ANALYZER",
        metavar="NAME",
        rich_help_panel=_ENCODER,
        show_default="the best that the store has",
        help="Analyzer of BM25 for a new collection.",
    ),
]
Field = Annotated[
    list[str],
    typer.Option(
        "--field",
        envvar="M3INDEX_FIELD",
        metavar="NAME:TYPE",
        rich_help_panel=_CORPUS,
        show_default="the collection's own",
        help="Typed column from the metadata, for filters (str, int, float, bool, str[]). Repeatable.",
    ),
]
TenantField = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_TENANT_FIELD",
        metavar="FIELD",
        rich_help_panel=_CORPUS,
        show_default="the collection's own",
        help="Metadata key that says whose a document is, the partition key of a new collection; KEY:int.",
    ),
]
Tenant = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_TENANT",
        metavar="VALUE",
        rich_help_panel=_CORPUS,
        show_default="all",
        help="Only this tenant's documents: others are neither read nor written nor removed.",
    ),
]
TenantFilter = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--tenant",
        envvar="M3INDEX_TENANT",
        metavar="VALUE",
        rich_help_panel=_SEARCH,
        show_default="all",
        help="Only this tenant's documents, by the collection's tenant field.",
    ),
]
StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="M3INDEX_STORAGE",
        metavar="TYPE",
        rich_help_panel=_STORE,
        show_default="the collection's own; for a new one: fp32",
        help="How a server keeps dense vectors: fp32, or fp16, bf16 for half the bytes.",
    ),
]
IndexClass = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_INDEX_CLASS",
        metavar="CLASS",
        rich_help_panel=_STORE,
        show_default="the collection's own; for a new one: small",
        help="Indexes on a server: small (HNSW), large (IVF_RABITQ) or huge (DISKANN); see docs/scale.md.",
    ),
]
IndexChange = Annotated[
    list[str],
    typer.Option(
        "--index",
        envvar="M3INDEX_INDEX",
        metavar="LEG.NAME=VALUE",
        rich_help_panel=_STORE,
        show_default="none",
        help="Change the class's index: dense.type=HNSW_SQ, dense.M=24, sparse.mmap=true. Repeatable.",
    ),
]
PassageTokens = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_PASSAGE_TOKENS",
        metavar="N",
        rich_help_panel=_CORPUS,
        show_default="the collection's own; for a new one: 512 or the model's limit",
        help="Most tokens of a passage, title and prompt counted in; full: the model's limit.",
    ),
]
Overlap = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_OVERLAP",
        metavar="N",
        min=0,
        rich_help_panel=_CORPUS,
        show_default="the collection's own; for a new one: 64",
        help="Tokens that neighbouring passages share.",
    ),
]
InputFormat = Annotated[
    str,
    typer.Option(
        "--input-format",
        envvar="M3INDEX_INPUT_FORMAT",
        metavar="FORMAT",
        rich_help_panel=_CORPUS,
        show_default="by the file's name; stdin is jsonl",
        help="jsonl, parquet, csv, tsv or text.",
    ),
]
IdField = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_ID_FIELD",
        metavar="NAME",
        rich_help_panel=_CORPUS,
        show_default="id, _id, docid or doc_id",
        help="Key of a row that holds the id.",
    ),
]
TextField = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_TEXT_FIELD",
        metavar="NAME",
        rich_help_panel=_CORPUS,
        show_default="text, contents, page_content or content",
        help="Key that holds the text.",
    ),
]
TitleField = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_TITLE_FIELD",
        metavar="NAME",
        rich_help_panel=_CORPUS,
        show_default="title",
        help="Key that holds the title.",
    ),
]
MetadataField = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_METADATA_FIELD",
        metavar="NAME",
        rich_help_panel=_CORPUS,
        show_default="metadata",
        help="Key that holds the metadata; keys that are none of these go into it too.",
    ),
]
QuarantinePath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--quarantine",
        envvar="M3INDEX_QUARANTINE",
        metavar="FILE",
        rich_help_panel=_CORPUS,
        show_default="m3index-quarantine.jsonl",
        help="Where bad rows go, with file, line and reason; mend it and ingest it.",
    ),
]
MaxErrors = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_MAX_ERRORS",
        metavar="N",
        min=0,
        rich_help_panel=_CORPUS,
        show_default="no limit",
        help="Stop (exit 17) after more bad rows than this.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        envvar="M3INDEX_DRY_RUN",
        rich_help_panel=_CORPUS,
        help="Say what would be done; write nothing.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        metavar="",
        envvar="M3INDEX_FORCE",
        rich_help_panel=_CORPUS,
        help="Encode unchanged documents too.",
    ),
]
RetryLock = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_RETRY_LOCK",
        metavar="TIME",
        rich_help_panel=_STORE,
        help="How long to wait for another run to end: 90s, 5m.",
    ),
]
MaxDelete = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_MAX_DELETE",
        metavar="N|P%",
        rich_help_panel=_CORPUS,
        show_default="10%, and never less than 10 documents",
        help="Most documents to remove in one run; more are withheld (exit 14).",
    ),
]
MetricsFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_METRICS_FILE",
        metavar="FILE",
        rich_help_panel=_OUTPUT,
        show_default="none",
        help="Write the outcome in Prometheus' textfile format.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", envvar="M3INDEX_YES", help="Do not ask.")]


def index_of(given: dict[str, Any], *, create: bool = False) -> Index:
    """The index that a command's options, by parameter name, say. An empty string is not given.

    create: whether a local database is made where there is none.
    """
    from m3index.api import EncoderChoice, Index

    choice = EncoderChoice(
        given.get("encoder") or None,
        given.get("device", "auto"),
        given.get("precision", "auto"),
        given.get("dim"),
        given.get("batch_tokens", "auto"),
        cache=given.get("cache") or None,
    )
    return Index.open(
        given["collection"],
        uri=given["uri"],
        token=given["token"] or None,
        db=given["db"] or None,
        timeout=given["timeout"],
        encoder=choice,
        create=create,
    )


@contextmanager
def opened(run: Session, given: dict[str, Any], *, create: bool = False) -> Iterator[Index]:
    """`index_of` for the time of a command; what the store's engine complains of meanwhile is shown.

    Milvus Lite only logs that it lost rows: nobody should have to read its log to learn that.
    """
    with index_of(given, create=create) as index:
        try:
            yield index
        finally:
            for warning in dict.fromkeys(index.store.warnings):
                run.reporter.warning(
                    f"Milvus Lite says: {warning} Rows may be lost: run m3index verify --repair."
                )
