"""The nouns of m3index: frozen, slotted dataclasses that the layers hand to each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:  # `m3index --help` loads this module, and has no need of numpy
    import numpy as np
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.float32]"
IntArray: TypeAlias = "NDArray[np.int32]"
Metadata: TypeAlias = Mapping[str, Any]
FieldValue: TypeAlias = str | int | float | bool | Sequence[str] | None
FieldType: TypeAlias = Literal["str", "int", "float", "bool", "str[]"]
SparseKind: TypeAlias = Literal["lexical", "bm25", "none"]
Storage: TypeAlias = Literal["fp32", "fp16", "bf16"]

DEFAULT_SOURCE = "default"
DEFAULT_COLLECTION = "m3index"


# ------------------------------------------------------------------ corpus


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document was read; `line` counts from 1 (for Parquet: the row)."""

    path: str
    line: int | None = None

    def __str__(self) -> str:
        return self.path if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Document:
    doc_id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of a corpus that is no document; it goes to the quarantine and the run goes on.

    `raw` is the row as it was read (a line of JSON, or the row as JSON), so that the quarantine
    file can be mended and replayed; `truncated` where it was too long to keep whole. `document` is
    there instead where the row was readable and was refused later. `identified` is True where the
    row has a usable id: a document that is present in the corpus but bad must not be taken for one
    that has left it.
    """

    place: Place
    reason: str
    raw: str = ""
    doc_id: str | None = None
    truncated: bool = False
    document: Document | None = None

    @classmethod
    def of(cls, document: Document, reason: str) -> Rejected:
        """A document that was read well and cannot be indexed for this reason."""
        place = document.place or Place("<memory>")
        return cls(place, reason, doc_id=document.doc_id, document=document)

    @property
    def identified(self) -> bool:
        return self.doc_id is not None


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a document's text. `text` is exactly `document.text[start:end]`.

    `token_ids` are the ids of prompt + title + newline + text with the model's special tokens,
    as the encoder takes them: shape (n,), int32.
    """

    ordinal: int
    text: str
    start: int
    end: int
    token_ids: IntArray

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


def join_title(title: str, text: str) -> str:
    """What is encoded, and what BM25 sees: title, newline, text; the text alone without a title."""
    return f"{title}\n{text}" if title else text


def document_key(source: str, doc_id: str) -> str:
    """128-bit hex digest of (source, doc_id): 32 characters that are safe in any filter."""
    payload = source.encode("utf-8", "surrogatepass") + b"\0" + doc_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def passage_key(key: str, ordinal: int) -> str:
    """The primary key of a passage: the document's key, `-`, the ordinal."""
    return f"{key}-{ordinal}"


def key_of_passage(passage_id: str) -> str:
    """The document's key inside a primary key."""
    return passage_id.partition("-")[0]


# ----------------------------------------------------------------- encoder


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Lexical weights of n texts in CSR form; token ids ascend within a row, weights are > 0.

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

    dense: (n, dim) float32 of unit norm. lexical: n rows, or None where the encoder has no lexical
    head or it was not asked for. multi_vector: n arrays (tokens - 1, width) of unit rows, likewise.
    tokens: (n,) int32, special tokens counted.
    """

    dense: FloatArray
    lexical: SparseRows | None
    tokens: IntArray
    multi_vector: Sequence[FloatArray] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What an encoder is and can do.

    `space_id` is equal for encoders whose vectors may be compared; `encoder_id` names the exact
    model and settings. `limit` is the most tokens of one input, special tokens counted.
    `window_reserve` is how many of them the special tokens and the document prompt take.
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
    """A row to write. `sparse` is None unless the collection's sparse kind is `lexical`."""

    passage_id: str
    doc_id: str
    ordinal: int
    source: str
    doc_hash: str
    passages: int
    title: str
    text: str
    metadata: Metadata
    fields: Mapping[str, FieldValue]
    dense: FloatArray
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that one leg found. Scores are comparable within one leg only; higher is better."""

    passage_id: str
    score: float
    group: FieldValue = None

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
    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class LegRank:
    """A hit's place in one leg: rank from 1, the leg's raw score, what it adds to the fused score."""

    rank: int
    score: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Hit:
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
    fused_rank: int | None = None
    group: FieldValue = None
