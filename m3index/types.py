"""The data types that the layers of m3index exchange, as frozen dataclasses with slots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from m3index.errors import UsageError

if TYPE_CHECKING:  # `m3index --help` imports this module and does not need numpy
    import numpy as np
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.float32]"
IntArray: TypeAlias = "NDArray[np.int32]"
Metadata: TypeAlias = Mapping[str, Any]
FieldValue: TypeAlias = str | int | float | bool | Sequence[str] | None
FieldType: TypeAlias = Literal["str", "int", "float", "bool", "date", "str[]"]
SparseKind: TypeAlias = Literal["lexical", "bm25", "none"]
Storage: TypeAlias = Literal["fp32", "fp16", "bf16"]

DEFAULT_SOURCE = "default"
DEFAULT_COLLECTION = "docs"

MOST_TRUST = 4.0
"""How often the votes of the dense leg count at most in fusion by evidence."""

MAX_PASSAGES = 100
"""The maximum number of passages of a document to read in one call."""


# ------------------------------------------------------------------ corpus


@dataclass(frozen=True, slots=True)
class Place:
    """The place a document was read from. line: from 1; the row in Parquet."""

    path: str
    line: int | None = None

    def __str__(self) -> str:
        return self.path if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Document:
    """A document to index. Raises UsageError for an empty id or text and for a wrong type.

    metadata: a mapping of JSON values, which also holds the declared fields. place: where it was read.
    format: of the file that the document is, such as `markdown` or `pdf`; empty for a row of a file.
    digests: of the content and of the metadata (corpus/hash.py), if they were made where it was read; a copy
    with other values has none.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    place: Place | None = None
    format: str = ""
    digests: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_text(self.doc_id):
            raise UsageError(f"The doc_id of a document must be a non-empty string, not {self.doc_id!r}.")
        if not _is_text(self.text):
            raise UsageError(f"The text of a document must be a non-empty string, not {self.text!r}.")
        if not isinstance(self.title, str):
            raise UsageError(f"The title of a document must be a string, not {self.title!r}.")
        if not isinstance(self.metadata, Mapping):
            raise UsageError(f"The metadata of a document must be a mapping, not {self.metadata!r}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and not value.isspace()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of a corpus that cannot be indexed. It is quarantined and the run continues.

    raw: the row as it was read (a line of JSON, or the row as JSON), so that the quarantine file can be
    corrected and ingested. truncated: the row was too long to keep completely. document: set instead of `raw`
    if the row was readable but rejected later.
    """

    place: Place
    reason: str
    raw: str = ""
    doc_id: str | None = None
    truncated: bool = False
    document: Document | None = None

    @classmethod
    def of(cls, document: Document, reason: str) -> Rejected:
        """A readable document that cannot be indexed for this reason."""
        place = document.place or Place("<memory>")
        return cls(place, reason, doc_id=document.doc_id, document=document)

    @property
    def is_file(self) -> bool:
        """Whether this is a file that could not be read, or not to its end, and no row of it."""
        return self.place.line is None and self.doc_id is None and not self.raw

    @property
    def is_document_file(self) -> bool:
        """Whether this is a file that is one document, and is not held here."""
        return self.place.line is None and self.doc_id is not None and not self.raw and self.document is None

    @property
    def identified(self) -> bool:
        """Whether the row has a usable id; its document must not be taken for one that left the corpus."""
        return self.doc_id is not None


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a document's text: exactly `document.text[start:end]`.

    token_ids: prompt, title, breadcrumb and text with the special tokens of the model, as the encoder takes
    them; shape (n,), int32. breadcrumb: the headings of the section that it is from, `Guide > Install`.
    anchor: what links to its place in the document, `install`, `page=12` or `L120`. Both may be empty.
    """

    ordinal: int
    text: str
    start: int
    end: int
    token_ids: IntArray
    breadcrumb: str
    anchor: str

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


def join_title(title: str, breadcrumb: str, text: str) -> str:
    """The text that is encoded and indexed by BM25: title, breadcrumb, text, in lines; what is empty has no
    line."""
    if breadcrumb:
        text = f"{breadcrumb}\n{text}"
    return f"{title}\n{text}" if title else text


PLAIN_FIELDS = (
    "doc_id", "ordinal", "source", "doc_hash", "passages", "title", "breadcrumb", "anchor", "text",
)  # fmt: skip
"""The fields of a row that are texts or numbers in every collection, without its key."""

JOINED = ("title", "breadcrumb", "text")
"""The fields of a row that `joined` takes."""


def joined(row: Mapping[str, Any]) -> str:
    """`join_title` of a stored row."""
    return join_title(row["title"], row["breadcrumb"], row["text"])


def document_key(source: str, doc_id: str) -> str:
    """The 128-bit hex digest of (source, doc_id): 32 characters that are safe in any filter."""
    payload = source.encode("utf-8", "surrogatepass") + b"\0" + doc_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def passage_key(key: str, ordinal: int) -> str:
    """The primary key of a passage: the key of the document, `-`, the ordinal."""
    return f"{key}-{ordinal}"


def key_of_passage(passage_id: str) -> str:
    """The key of the document in a primary key."""
    return passage_id.partition("-")[0]


# ----------------------------------------------------------------- encoder


@dataclass(frozen=True, slots=True)
class SparseRows:
    """The lexical weights of n texts in CSR form; token ids ascend within a row, weights are > 0.

    indptr: (n + 1,) int64; indices: (nnz,) int32 token ids; values: (nnz,) float32.
    """

    indptr: NDArray[np.int64]
    indices: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, i: int) -> SparseVector:
        a, b = self.indptr[i], self.indptr[i + 1]
        return SparseVector(self.indices[a:b], self.values[a:b])

    def part(self, start: int, end: int) -> SparseRows:
        """The rows [start, end)."""
        a, b = self.indptr[start], self.indptr[end]
        return SparseRows(self.indptr[start : end + 1] - a, self.indices[a:b], self.values[a:b])


@dataclass(frozen=True, slots=True)
class SparseVector:
    """One row of lexical weights: indices (m,) int32 ascending, values (m,) float32."""

    indices: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.indices)

    def to_dict(self) -> dict[int, float]:
        return {int(i): float(v) for i, v in zip(self.indices, self.values, strict=True)}


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """The vectors of n texts, in the order of the texts.

    dense: (n, dim) float32 with unit norm. lexical: n rows; None if not available or not requested.
    multi_vector: n arrays (tokens - 1, width) of unit rows; None likewise. tokens: (n,) int32, including
    special tokens.
    """

    dense: FloatArray
    lexical: SparseRows | None
    tokens: IntArray
    multi_vector: Sequence[FloatArray] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, end: int) -> EncodedBatch:
        """The texts [start, end)."""
        if (start, end) == (0, len(self)):
            return self
        return EncodedBatch(
            self.dense[start:end],
            None if self.lexical is None else self.lexical.part(start, end),
            self.tokens[start:end],
            None if self.multi_vector is None else self.multi_vector[start:end],
        )


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """The properties of an encoder.

    limit: the maximum number of tokens per input, including special tokens. window_reserve: the tokens of it
    taken by special tokens and the document prompt. space_id: equal for encoders whose vectors can be
    compared. encoder_id: identifies the exact model and settings.
    """

    name: str
    dim: int
    limit: int
    window_reserve: int
    lexical: bool
    multi_vector: bool
    space_id: str
    encoder_id: str
    parameters: int = 0


# ------------------------------------------------------------------- store


@dataclass(frozen=True, slots=True)
class Row:
    """A row to write. sparse: None unless the sparse vectors of the collection are `lexical`."""

    passage_id: str
    doc_id: str
    ordinal: int
    source: str
    doc_hash: str
    passages: int
    title: str
    breadcrumb: str
    anchor: str
    text: str
    metadata: Metadata
    fields: Mapping[str, FieldValue]
    dense: FloatArray
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """What changes in a stored row, which keeps its text and its vectors. metadata, fields: all of them."""

    passage_id: str
    doc_hash: str
    passages: int
    metadata: Metadata
    fields: Mapping[str, FieldValue]


AnyRow = TypeVar("AnyRow", bound=Row | RowUpdate)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage retrieved by one leg. score: comparable only within the leg; higher is better. values: of the
    fields that were asked for."""

    passage_id: str
    score: float
    values: Mapping[str, FieldValue] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of_passage(self.passage_id)


# ------------------------------------------------------------------ search


class Leg(StrEnum):
    """A way to retrieve: one vector field, one ranking."""

    DENSE = "dense"
    LEXICAL = "lexical"
    BM25 = "bm25"


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a set. query_id: its id in qrels and run files."""

    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class LegRank:
    """A hit's position in one leg. rank: from 1. score: of the leg. contribution: to the fused score.
    by_chance: with fusion by evidence, the number of documents that would score as high by chance."""

    rank: int
    score: float
    contribution: float
    by_chance: float | None = None


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A stored passage."""

    ordinal: int
    passage_id: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A stored document. passage_count: the number of all its passages. passages: those requested, in order;
    neighbouring passages overlap."""

    doc_id: str
    source: str
    title: str
    metadata: Metadata
    passage_count: int
    passages: tuple[StoredPassage, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document (or passage, or group) found by a search, with its best passage.

    rank: from 1. score: the fused score, comparable only within one result. legs: its position in each leg
    that retrieved it. rerank_score: that of the reranker. boosted_score: the one of these two that counts,
    with the boosts. fused_rank: the rank by the fusion alone. group: that of `group_by`. breadcrumb: the
    headings of the section that the passage is from, as in `Guide > Install > Linux`. anchor: what leads to
    it in the document, after a `#`.
    """

    rank: int
    doc_id: str
    passage_id: str
    ordinal: int
    source: str
    score: float
    title: str
    text: str
    metadata: Metadata
    legs: Mapping[str, LegRank] = field(default_factory=dict)
    rerank_score: float | None = None
    boosted_score: float | None = None
    fused_rank: int | None = None
    group: FieldValue = None
    breadcrumb: str = ""
    anchor: str = ""

    @property
    def place(self) -> str:
        """The document with the place of the passage in it, as in `guide/install.md#linux`."""
        return f"{self.doc_id}#{self.anchor}" if self.anchor else self.doc_id
